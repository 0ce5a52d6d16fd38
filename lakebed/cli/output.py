"""What commands print: tables on a terminal, tab-separated lines elsewhere, or one JSON document."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import msgspec

__all__ = ["Table", "approve", "note", "print_facts", "print_table", "text", "to_json"]


class Table(msgspec.Struct, frozen=True):
    """Rows under named columns.

    Attributes:
        origin: one line about where they came from; shown on a terminal only.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    origin: str = ""

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Table:
        """The `columns` of records."""
        return cls(columns, [[record.get(column) for column in columns] for record in records])

    def records(self) -> list[dict[str, Any]]:
        """The rows as mappings."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def print_table(table: Table, *, as_json: bool) -> None:
    """All of `table`: JSON is an array of objects; off a terminal, a line of names and then one line a row."""
    if as_json:
        print(to_json(table.records()))
    elif sys.stdout.isatty():
        _draw(table)
    else:
        for row in (table.columns, *table.rows):
            print("\t".join(_cell(value) for value in row))


def print_facts(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """One record: a JSON object, or a line for each fact; a mapping in it takes a line for each of its entries."""
    if as_json:
        print(to_json(facts))
        return
    rows = [(name, fact) for name, fact in _flat(facts, "")]
    if sys.stdout.isatty():
        width = max((len(name) for name, _ in rows), default=0)
        for name, fact in rows:
            print(f"{name:<{width}}  {text(fact)}")
    else:
        for name, fact in rows:
            print(f"{_cell(name)}\t{_cell(fact)}")


def _flat(facts: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    for name, fact in facts.items():
        if isinstance(fact, Mapping):
            yield from _flat(fact, f"{prefix}{name}.")
        else:
            yield prefix + name, fact


def note(message: str) -> None:
    """Something for a person to know. On stderr, so that it is never taken for the answer."""
    print(message, file=sys.stderr)


def approve(question: str, *, yes: bool) -> bool:
    """Whether to go on: asks on a terminal; elsewhere the command itself is the answer, and `yes` always is."""
    if yes or not sys.stdin.isatty():
        return True
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def to_json(value: Any) -> str:
    """`value` on one line. Times are ISO 8601, and what JSON does not have is text."""
    return msgspec.json.encode(value, enc_hook=str).decode()


def text(value: Any) -> str:
    """A value for people: digits in groups, times without what they all have in common."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return value if isinstance(value, str) else _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, (date, float)):
        return str(value)
    if isinstance(value, Decimal):
        return f"{value:f}"  # 0.000000001, not 1E-9
    if isinstance(value, (tuple, list)) and all(isinstance(one, str) for one in value):
        return ", ".join(value)
    return to_json(value) if isinstance(value, (dict, list, tuple, msgspec.Struct)) else str(value)


_ESCAPED = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def _cell(value: Any) -> str:
    """A value in one tab-separated cell: exact, and never with a tab or a line of its own."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bool):
        return "true" if value else "false"
    return (value if isinstance(value, str) else _plain(value)).translate(_ESCAPED)


def _draw(table: Table) -> None:
    import rich.box
    import rich.console
    import rich.table

    numeric = [
        all(isinstance(row[at], (int, float, Decimal)) or row[at] is None for row in table.rows)
        for at in range(len(table.columns))
    ]
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, caption=table.origin or None, caption_justify="left")
    for name, is_number in zip(table.columns, numeric, strict=True):
        drawn.add_column(rich.text.Text(_visible(name)), justify="right" if is_number else "left")
    for row in table.rows:
        # Text, so that what looks like markup is shown as it is.
        drawn.add_row(*(rich.text.Text(_visible(text(value))) for value in row))
    rich.console.Console(highlight=False).print(drawn)


def _visible(value: str) -> str:
    """Without what would move the cursor or change colours: names come from strangers."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in value)
