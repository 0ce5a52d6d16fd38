"""docs/testing.md: every fault of the list has existing tests, or a reason for having none."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_ROW = re.compile(r"^\| (\d+) \| (.+?) \|(.*)\|$", re.MULTILINE)
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_REASON = re.compile(r"\w.{20,}")
PAGE = (ROOT / "docs" / "testing.md").read_text("utf-8")
ROWS = {int(number): cell.strip() for number, _, cell in _ROW.findall(PAGE)}


@functools.cache
def names_in(path: str) -> frozenset[str]:
    """The names of the test functions of a file, and of those in its classes."""
    if not (ROOT / path).is_file():
        return frozenset()
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def test_every_fault_has_a_row():
    """The list is 1 to 46, and the loop of kills, 51; each once. Rows beyond it may be added."""
    numbers = [int(number) for number, _, _ in _ROW.findall(PAGE)]
    assert len(numbers) == len(set(numbers))
    assert {*range(1, 47), 51} <= set(numbers)


@pytest.mark.parametrize("number", ROWS)
def test_every_row_names_tests_that_exist_or_a_reason(number):
    """A row names tests that exist in the source, or gives a reason why it does not apply."""
    named = _TEST.findall(ROWS[number])
    assert [f"{path}::{name}" for path, name in named if name not in names_in(path)] == []
    assert named or _REASON.search(ROWS[number]), f"fault {number} has neither tests nor a reason"


def test_every_test_named_for_a_fault_is_in_the_table():
    """A test called `test_l1_05_…` is in row 5, so that the table stays complete."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in names_in(str(path.relative_to(ROOT))):
            match = re.match(r"test_(?:l1|l2|l3|time|data|query)_(\d\d)_", name)
            if match and (row := ROWS.get(int(match[1]))) is not None:
                assert f"`{path.relative_to(ROOT)}::{name}`" in row, f"{name} is not in row {match[1]}"
