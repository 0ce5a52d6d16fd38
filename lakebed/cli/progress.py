"""Progress: a bar on stderr during long work; nothing off a terminal."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, Self

__all__ = ["Progress"]


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
