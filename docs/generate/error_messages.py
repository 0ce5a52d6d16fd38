"""Writes the list of all error messages from the `raise` statements of the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from docs.generate.marked import DOCS, replaced
from lakebed.errors import InvalidEvent, LogCorrupted

PAGE = DOCS / "error-messages.md"
SOURCE = DOCS.parent / "lakebed"
_OWN_HINTS = {"InvalidEvent": InvalidEvent("").hint, "LogCorrupted": LogCorrupted("", path=Path(), offset=0).hint}
"""The hints that classes themselves give, where the `raise` gives none."""


def table() -> str:
    """A section for each package, with a row for each message: its file, its class, its text and its hint."""
    sections: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = str(path.relative_to(SOURCE))
        for error, message, hint in messages(path.read_text("utf-8")):
            row = f"| `{name}` | {error} | {_cell(message)} | {_cell(hint or _OWN_HINTS.get(error, ''))} |"
            sections.setdefault(name.partition("/")[0], []).append(row)
    lines: list[str] = []
    for package, rows in sections.items():
        lines += [
            f"## {package}",
            "",
            "| file | error | message | hint |",
            "|---|---|---|---|",
            *dict.fromkeys(rows),
            "",
        ]
    return "\n".join(lines).rstrip()


def messages(source: str) -> Iterator[tuple[str, str, str]]:
    """Class, message and hint of each error that a file raises with a text. `{…}` stands for a fact."""
    tree = ast.parse(source)
    helpers = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    for scope in ast.walk(tree):
        if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Module)):
            texts = dict(_assigned(scope))
            for node in _own_nodes(scope):
                if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                    yield from _message(node.exc, texts, helpers)


def _message(
    call: ast.Call, texts: dict[str, str], helpers: dict[str, ast.FunctionDef]
) -> Iterator[tuple[str, str, str]]:
    error = ast.unparse(call.func).rpartition(".")[2]
    arguments = [_text(argument, texts) for argument in call.args]
    if error in helpers:  # the message is what the helper makes of its arguments
        helper = helpers[error]
        names = [argument.arg for argument in helper.args.args]
        filled = {name: text or "{…}" for name, text in zip(names, arguments, strict=False)}
        made = [node.value for node in _own_nodes(helper) if isinstance(node, ast.Return)]
        if made and isinstance(made[-1], ast.Call):
            yield from _message(made[-1], dict(_assigned(helper)) | filled, {})
    elif not error.startswith("_") and any(arguments):
        hint = next((_text(keyword.value, texts) or "{…}" for keyword in call.keywords if keyword.arg == "hint"), "")
        # A Refusal has its code before its message; other classes may have a fact after it.
        message = arguments[-1] if error == "Refusal" else [text for text in arguments if text is not None][-1]
        yield error, message or "{…}", hint


def _own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function, without those of functions in it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield child
            yield from _own_nodes(child)


def _assigned(scope: ast.AST) -> Iterator[tuple[str, str]]:
    for node in _own_nodes(scope):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            text = _text(node.value, {})
            if text is not None:
                yield node.targets[0].id, text


def _text(node: ast.expr, texts: dict[str, str]) -> str | None:
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            return "".join(_text(part, texts) or "{…}" for part in values)
        case ast.Name(id=name) | ast.FormattedValue(value=ast.Name(id=name)):
            return texts.get(name)
        case _:
            return None


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def pages() -> dict[Path, str]:
    """The page of error messages as it must be."""
    return {PAGE: replaced(PAGE, "error messages", table())}
