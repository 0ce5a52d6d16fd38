"""rpc/capnweb/ could be a distribution of its own."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import lakebed.rpc.capnweb

PACKAGE = "lakebed.rpc.capnweb"


def imported(path):
    """The modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_it_imports_the_standard_library_msgspec_and_itself():
    """What Lakebed adds to the protocol, its values and errors, comes by a codec."""
    files = sorted(Path(lakebed.rpc.capnweb.__file__).parent.glob("*.py"))
    allowed = sys.stdlib_module_names | {"msgspec"}
    foreign = {
        (path.name, name)
        for path in files
        for name in imported(path)
        if name.partition(".")[0] not in allowed and not name.startswith(PACKAGE)
    }
    assert len(files) > 5
    assert not foreign
