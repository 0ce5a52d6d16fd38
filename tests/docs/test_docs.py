"""What the documentation says is run: every Python block, every link, every table of limits, the notebook."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import inspect
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))
FOLDERS = (ROOT, DOCS, DOCS / "decisions", ROOT / "examples" / "data")
EVERY_PAGE = [page for folder in FOLDERS for page in sorted(folder.glob("*.md"))]
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_SAYS = " # → "


def blocks(page: Path) -> Iterator[str]:
    """The Python blocks of a page, each moved down to its own line, so that a traceback names the line of the page."""
    text = page.read_text("utf-8")
    for found in _BLOCK.finditer(text):
        yield "\n" * text.count("\n", 0, found.start(1)) + found[1]


def run(source: str, page: Path, names: dict[str, Any], runner: asyncio.Runner) -> None:
    """Run a block. An expression with `# → value` behind it must have that value."""
    lines = source.splitlines()
    for statement in ast.parse(source).body:
        is_value = isinstance(statement, ast.Expr)
        tree = ast.Expression(statement.value) if is_value else ast.Module([statement], [])
        code = compile(tree, str(page), "eval" if is_value else "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        value = eval(code, names)  # noqa: S307 - our own documentation
        if code.co_flags & inspect.CO_COROUTINE:
            value = runner.run(value)
        _, says, expected = lines[statement.end_lineno - 1].partition(_SAYS)
        if says:
            assert is_value, f"{page.name}, line {statement.end_lineno}: only an expression of its own is compared"
            assert repr(value) == expected, f"{page.name}, line {statement.end_lineno}"


def module(path: Path) -> ModuleType:
    """A script of the documentation, imported."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.mark.parametrize("page", [page for page in PAGES if any(blocks(page))], ids=lambda page: page.name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page, one after another, do what they say in an empty directory."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__main__"}
    with asyncio.Runner() as runner:
        for block in blocks(page):
            run(block, page, names, runner)


def test_the_first_example_has_ten_lines() -> None:
    """What a reader must type to see an answer fits in ten lines, on both first pages."""
    for page in (ROOT / "README.md", DOCS / "quickstart.md"):
        first = next(blocks(page))
        assert len([line for line in first.splitlines() if line.strip()]) <= 10, page.name


@pytest.mark.parametrize("page", EVERY_PAGE, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a file of the repository finds it."""
    targets = [target.partition("#")[0] for target in _LINK.findall(page.read_text("utf-8"))]
    local = [target for target in targets if target and "://" not in target]
    assert not [target for target in local if not (page.parent / target).exists()]


def test_reading_the_source_names_files_that_exist() -> None:
    """The six entry points are there, and so is every file named beside them."""
    text = (DOCS / "reading-the-source.md").read_text("utf-8")
    assert len(re.findall(r"^\d\. ", text, re.MULTILINE)) == 8
    known = {str(path.relative_to(ROOT)) for folder in ("lakebed", "tests") for path in (ROOT / folder).rglob("*.py")}
    named = re.findall(r"`([\w/]+\.py)`", text)
    assert named
    assert not [name for name in named if not any(path == name or path.endswith(f"/{name}") for path in known)]


def test_limits_are_those_of_the_source() -> None:
    """limits.md says of each setting and each limit of an event what the source says, and leaves none out."""
    limits = module(DOCS / "limits.py")
    page = (DOCS / "limits.md").read_text("utf-8")
    assert page == limits.written(page), "run `python docs/limits.py`"
    assert list(limits.meanings()) == list(limits.Settings.__struct_fields__)


def test_reports_are_those_of_the_source() -> None:
    """reports.md has a section for each report, with its arguments as they are."""
    reports = module(DOCS / "reports.py")
    page = (DOCS / "reports.md").read_text("utf-8")
    assert page == reports.written(page), "run `python docs/reports.py`"


def test_oracles_are_those_of_the_tests() -> None:
    """oracles.md says of each report by how many questions, and by which functions of ClickHouse, it is compared."""
    oracles = module(DOCS / "oracles.py")
    page = (DOCS / "oracles.md").read_text("utf-8")
    assert page == oracles.written(page), "run `python docs/oracles.py`"


def test_every_promise_is_on_its_page() -> None:
    """guarantees.md numbers eleven promises, and says of each what is not promised."""
    text = (DOCS / "guarantees.md").read_text("utf-8")
    sections = re.split(r"^## \d+\. ", text, flags=re.MULTILINE)[1:]
    assert len(sections) == 11
    assert not [section.splitlines()[0] for section in sections if "**Not promised" not in section]


def test_the_picture_is_an_image() -> None:
    """tiers.svg is well-formed, has a title for those who cannot see it, and colours for dark pages."""
    picture = DOCS / "tiers.svg"
    assert ET.parse(picture).getroot().find("{http://www.w3.org/2000/svg}title") is not None  # noqa: S314 - our own
    assert "prefers-color-scheme: dark" in picture.read_text("utf-8")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path) -> None:
    """Each runs from top to bottom in an empty directory, and shows the answers that it was stored with."""
    execute = module(DOCS / "notebooks" / "execute.py")
    stored = execute.read(path)
    assert execute.answers(execute.executed(stored, tmp_path)) == execute.answers(stored)


def test_nothing_shows_the_machine_that_wrote_it() -> None:
    """No path of a machine in any page, example or stored output, and no time of day in a notebook."""
    shown = [*EVERY_PAGE, *NOTEBOOKS, *sorted((ROOT / "examples").glob("*.py"))]
    assert not [page.name for page in shown if re.search(r"/home/|/root/|/tmp/|/work/", page.read_text("utf-8"))]
    assert not [path.name for path in NOTEBOOKS if '"execution":' in path.read_text("utf-8")]
