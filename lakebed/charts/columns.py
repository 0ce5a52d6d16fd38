"""Columns: the columns from which a chart is drawn. Panels: a chart of one kind for each value of `by`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa

from lakebed.charts import formatting
from lakebed.charts.canvas import Canvas

__all__ = ["Columns", "panels"]


class Columns:
    """A table by columns.

    Attributes:
        columns: names of all columns.
        rows: number of rows.
        times: names of the columns of dates and timestamps.
        numbers: names of the columns of integers, floats and decimals.
        names: names of the columns of texts.
    """

    def __init__(self, table: pa.Table) -> None:
        self.columns = tuple(table.column_names)
        self.rows = int(table.num_rows)
        self._table = table
        self.times = self._of(pa.types.is_temporal)
        self.names = self._of(lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind))
        self.numbers = self._of(
            lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
        )

    def _of(self, test: Any) -> tuple[str, ...]:
        return tuple(field.name for field in self._table.schema if test(field.type))

    def __getitem__(self, column: str) -> list[Any]:
        values: list[Any] = self._table.column(self.columns.index(column)).to_pylist()
        return values

    def others(self, known: Iterable[str]) -> tuple[str, ...]:
        """The columns that are not in `known`; in a report, these are the columns of `by`."""
        names = set(known)
        return tuple(column for column in self.columns if column not in names)

    def labels(self, columns: Iterable[str]) -> list[str]:
        """A label for each row, made of the row's values in these columns."""
        names = [[formatting.name(value) for value in self[column]] for column in columns]
        return [" · ".join(parts) for parts in zip(*names, strict=True)] if names else [""] * self.rows

    def parts(self, columns: Iterable[str]) -> dict[str, Columns]:
        """The rows of each label (see `labels`), by label; labels are in order of their first rows."""
        places: dict[str, list[int]] = {}
        for place, label in enumerate(self.labels(columns)):
            places.setdefault(label, []).append(place)
        return {label: Columns(self._table.take(rows)) for label, rows in places.items()}


_MAX_HEIGHT = 2_000  # pixels; the first panel is drawn however tall it is
_HEADING = 26


def panels(frame: Columns, own: tuple[str, ...], chart: Callable[[Columns], tuple[Canvas, str]]) -> tuple[Canvas, str]:
    """The `chart` of `frame` if all its columns are in `own`; otherwise a chart for each value of other columns."""
    by = frame.others(own)
    if not by:
        return chart(frame)
    canvas, y, parts = Canvas(), 4.0, frame.parts(by)
    sentences: list[str] = []
    for label, part in parts.items():
        panel, description = chart(part)
        if sentences and y + _HEADING + panel.height > _MAX_HEIGHT:
            canvas.note(f"The first {len(sentences)} of {formatting.figure(len(parts))} values are drawn.")
            break
        canvas.text(24, y + 14, label, kind="lb-strong", max_width=canvas.width - 48)
        canvas.place(panel, y + _HEADING)
        y += _HEADING + panel.height + 8
        sentences.append(f"{label}: {description}")
    canvas.height = y
    return canvas, " ".join(sentences)
