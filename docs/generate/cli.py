"""Writes the tables of cli.md from the commands themselves, so that they cannot drift: `python docs/cli.py`."""
# ruff: noqa: INP001 - a script, not a package

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lakebed.cli.app import program
from lakebed.cli.failure import Exit

PAGE = Path(__file__).with_name("cli.md")


def commands(group: Any = program, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each command that does something, with its whole name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def tables() -> str:
    """All tables, as they must stand between the markers of the page."""
    lines = ["## Commands", "", "| command | |", "|---|---|"]
    lines += [f"| `{usage(name, command)}` | {summary(command)} |" for name, command in commands()]
    lines += ["", "## Exit codes", "", "| code | |", "|---|---|"]
    lines += [f"| {code.value} | {meaning} |" for code, meaning in meanings().items()]
    lines += ["", "## Options and variables", "", "| option | variable | of | |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in options()])


def usage(name: str, command: Any) -> str:
    """How a command is typed, without its options."""
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    return " ".join([name, *(spoken(one) for one in arguments)])


def spoken(argument: Any) -> str:
    """An argument as usage lines have it."""
    name = (argument.metavar or argument.name).strip("[].").upper()
    name = f"{name}…" if argument.nargs == -1 else name
    return name if argument.required else f"[{name}]"


def summary(command: Any) -> str:
    """The first paragraph of what a command says of itself."""
    return " ".join(command.help.split("\n\n")[0].split())


def meanings() -> dict[Exit, str]:
    """What the source says behind each exit code."""
    found = re.findall(r'^    (\w+) = \d+\n    """(.*)"""$', inspect.getsource(Exit), re.MULTILINE)
    return {Exit[name]: meaning for name, meaning in found}


def options() -> list[tuple[str, str, str, str]]:
    """Each option once: how it is typed, its variable, which commands have it, and what it says."""
    found: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for name, command in commands():
        for one in command.params:
            if one.param_type_name == "option" and one.name != "help":
                typed = ", ".join(f"`{opt}`" for opt in one.opts)
                found.setdefault((typed, one.envvar), (one.help or "", []))[1].append(name)
    return [(typed, f"`{envvar}`", _of(names), said) for (typed, envvar), (said, names) in found.items()]


def _of(names: list[str]) -> str:
    many = 4
    return ", ".join(names) if len(names) <= many else f"{len(names)} commands"


def written(page: str) -> str:
    """`page` with its tables as they must be."""
    head, _, rest = page.partition("<!-- tables -->\n")
    _, _, tail = rest.partition("<!-- end of tables -->")
    return f"{head}<!-- tables -->\n\n{tables()}\n\n<!-- end of tables -->{tail}"


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
