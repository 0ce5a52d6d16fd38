"""rpc/capnweb/ could be a distribution of its own."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import msgspec
import pytest

import lakebed.rpc.capnweb
from lakebed.rpc.capnweb.codec import Target
from lakebed.rpc.capnweb.errors import Unreachable
from lakebed.rpc.capnweb.session import Peer
from lakebed.rpc.capnweb.values import Pointer

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


class Point(msgspec.Struct):
    x: int
    names: list[str]


async def test_it_works_without_a_codec_of_a_program():
    """Calls that build on calls, structs, errors and callbacks between two peers, with the errors of the protocol."""
    seen = []
    members = {
        "point": lambda x: Point(x, ["a", "b"]),
        "add": lambda left, right: left + right,
        "call": lambda callback, value: callback(value),
    }
    server = Peer(lambda text: client.receive(text) is None, Target("math", members))
    client = Peer(lambda text: server.receive(text) is None)
    imports = client.imports

    def ask(*arguments):
        return imports.pull(imports.push(*arguments))

    point = imports.push(0, ("point",), [3])
    assert await imports.pull(point) == {"x": 3, "names": ["a", "b"]}
    assert await ask(0, ("add",), [4, Pointer(imports.push(0, ("point",), [5]), ("x",))]) == 9
    await ask(0, ("call",), [seen.append, "called"])
    assert seen == ["called"]
    with pytest.raises(TypeError, match=r"math has no 'nope'\. It has: add, call, point"):
        await ask(0, ("nope",), [])
    with pytest.raises(TypeError, match="has no '__call__'"):
        await ask(0, ("add", "__call__"), [])
    with pytest.raises(TypeError, match="can only concatenate"):
        await ask(0, ("add",), ["a", 1])
    await server.settle()
    client.close(Exception("over"))
    server.close(Exception("over"))
    with pytest.raises(Unreachable, match="the session ended: over"):
        await imports.call(-1, ())
    assert (client.pending, server.pending) == (0, 0)
