"""Output of commands: tables on a terminal, tab-separated lines elsewhere, or one JSON document; and a progress bar."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

import msgspec

from lakebed.clients.client import Table, to_json

__all__ = ["Progress", "approve", "note", "print_facts", "print_table"]


def print_table(table: Table, *, as_json: bool) -> None:
    """Print `table`: drawn on a terminal, else as tab-separated lines; with `as_json`, as a JSON array of objects."""
    if as_json:
        print(to_json(table.records()))
    elif sys.stdout.isatty():
        _draw(table)
    else:
        for row in (table.columns, *table.rows):
            print("\t".join(_cell(value) for value in row))


def print_facts(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one record: a JSON object, or a line for each fact; a mapping among them takes a line for each entry."""
    if as_json:
        print(to_json(facts))
        return
    rows = list(_flat(facts, ""))
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
    """Print a remark for a person, on stderr, so that it is never taken for the answer."""
    print(message, file=sys.stderr)


def approve(question: str, *, yes: bool) -> bool:
    """Whether to go on: asks on a terminal; with `yes`, or without a terminal, returns True without a question."""
    if yes or not sys.stdin.isatty():
        return True
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def text(value: Any) -> str:
    """A value for people: digits in groups, times without zone and microseconds."""
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
    if isinstance(value, (tuple, list)) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return to_json(value) if isinstance(value, (dict, list, tuple, msgspec.Struct)) else str(value)


_ESCAPED = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def _cell(value: Any) -> str:
    """A value in one tab-separated cell: exact, with tabs and line ends escaped."""
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
        all(isinstance(row[index], (int, float, Decimal)) or row[index] is None for row in table.rows)
        for index in range(len(table.columns))
    ]
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, caption=table.origin or None, caption_justify="left")
    for name, is_number in zip(table.columns, numeric, strict=True):
        drawn.add_column(rich.text.Text(_visible(name)), justify="right" if is_number else "left")
    for row in table.rows:
        # As Text, so that markup in a value is shown and not interpreted.
        drawn.add_row(*(rich.text.Text(_visible(text(value))) for value in row))
    rich.console.Console(highlight=False).print(drawn)


def _visible(value: str) -> str:
    """`value` with characters that move the cursor or change colours replaced: names of events are untrusted."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in value)


class Progress:
    """A progress bar. A context manager.

    Args:
        label: the text before the bar.
        total: the steps of the work, in any unit; 0 if unknown.
    """

    def __init__(self, label: str, total: int) -> None:
        self._label = label
        self._total = total
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            import rich.console
            import rich.progress as bars

            columns = (
                bars.TextColumn("{task.description}"),
                bars.BarColumn(),
                bars.TaskProgressColumn(),
                bars.TextColumn("{task.fields[rows]:,} rows"),
                bars.TextColumn("{task.fields[rate]:,.0f} rows/s"),
                bars.TimeRemainingColumn(),
            )
            console = rich.console.Console(stderr=True)
            self._bar = bars.Progress(*columns, console=console, transient=True).__enter__()
            self._task = self._bar.add_task(self._label, total=self._total or None, rows=0, rate=0.0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)

    def move(self, done: int, rows: int) -> None:
        """Show that `done` steps of the total and `rows` rows are done."""
        if self._bar is not None:
            task = self._bar.tasks[0]
            elapsed = task.elapsed or 0.0
            self._bar.update(self._task, completed=done, rows=rows, rate=rows / elapsed if elapsed else 0.0)
