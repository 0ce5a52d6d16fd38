"""Writes the tables of cli.md from the commands, so that they cannot drift."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.generate.marked import DOCS, replaced
from lakebed.cli.app import program
from lakebed.cli.exit_codes import Exit

PAGE = DOCS / "cli.md"


def commands(group: Any = program, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each command that does something, with its whole name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield prefix + name, command


def tables() -> str:
    """The tables of commands, exit codes and options, as Markdown."""
    lines = ["## Commands", "", "| command | |", "|---|---|"]
    lines += [f"| `{usage(name, command)}` | {summary(command)} |" for name, command in commands()]
    lines += ["", "## Exit codes", "", "| code | |", "|---|---|"]
    lines += [f"| {code.value} | {meaning} |" for code, meaning in meanings().items()]
    lines += ["", "## Options and variables", "", "| option | variable | command | |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in options()])


def usage(name: str, command: Any) -> str:
    """How a command is typed, without its options."""
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    return " ".join([name, *map(placeholder, arguments)])


def placeholder(argument: Any) -> str:
    """An argument as a usage line shows it."""
    name = (argument.metavar or argument.name).strip("[].").upper()
    name = f"{name}…" if argument.nargs == -1 else name
    return name if argument.required else f"[{name}]"


def summary(command: Any) -> str:
    """The first paragraph of a command's help."""
    return " ".join(command.help.split("\n\n")[0].split())


def meanings() -> dict[Exit, str]:
    """The docstring of each exit code."""
    members = re.findall(r'^    (\w+) = \d+\n    """(.*)"""$', inspect.getsource(Exit), re.MULTILINE)
    return {Exit[name]: meaning for name, meaning in members}


def options() -> list[tuple[str, str, str, str]]:
    """Each option once: its spellings, its variable, the commands that have it, and its help."""
    rows: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for name, command in commands():
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                spellings = ", ".join(f"`{spelling}`" for spelling in parameter.opts)
                rows.setdefault((spellings, parameter.envvar), (parameter.help or "", []))[1].append(name)
    return [
        (spellings, f"`{envvar}`", _short(names), help_text) for (spellings, envvar), (help_text, names) in rows.items()
    ]


def _short(names: list[str]) -> str:
    many = 4
    return ", ".join(names) if len(names) <= many else f"{len(names)} commands"


def pages() -> dict[Path, str]:
    """cli.md as it must be."""
    return {PAGE: replaced(PAGE, "tables", tables())}
