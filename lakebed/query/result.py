"""The answer to a query: an Arrow table, its rows, and the tiers and files that they came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from html import escape
from typing import TYPE_CHECKING, Any, overload

import pyarrow as pa

from lakebed.clock import from_us

if TYPE_CHECKING:
    import pandas as pd  # type: ignore[import-untyped, unused-ignore]
    import polars as pl

    from lakebed.charts.chart import Chart

__all__ = ["Result", "Row"]

_HTML_ROWS = 50
_REPR_ROWS = 10
_HUGEINT = pa.decimal128(38, 0)  # DuckDB's 128-bit integers in Arrow


class Row:
    """One row: its values by attribute, by key and by position.

    `row.dau`, `row["dau"]` and `row[1]` are the same value; iteration gives the values in the order of the columns. A
    column whose name is not a Python name, or starts with `__`, is read by key. If two columns have one name, the name
    means the first. Rows are equal if their names and values are. Rows are immutable.
    """

    __slots__ = ("__positions", "__values")

    def __init__(self, positions: Mapping[str, int], values: tuple[Any, ...]) -> None:
        object.__setattr__(self, "_Row__positions", positions)
        object.__setattr__(self, "_Row__values", values)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__values[self.__positions[name]]
        except KeyError:
            raise AttributeError(f"no column {name!r}; there are {', '.join(self.__positions)}") from None

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a row is read-only: {name} cannot be set to {value!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a row is read-only: {name} cannot be deleted")

    def __getitem__(self, key: str | int) -> Any:
        if isinstance(key, str):
            try:
                return self.__values[self.__positions[key]]
            except KeyError:
                raise KeyError(f"no column {key!r}; there are {', '.join(self.__positions)}") from None
        return self.__values[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.__values)

    def __len__(self) -> int:
        return len(self.__values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Row):
            return NotImplemented
        return bool(self.__values == other.__values and self.__positions == other.__positions)

    def __hash__(self) -> int:
        return hash(self.__values)

    def __repr__(self) -> str:
        return f"Row({', '.join(f'{name}={self[name]!r}' for name in self.__positions)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return Row, (dict(self.__positions), self.__values)

    def _asdict(self) -> dict[str, Any]:
        """The row as a dict, in the order of the columns."""
        return {name: self.__values[position] for name, position in self.__positions.items()}


class Result:
    """The answer to one query. Immutable; its rows are made at the first access.

    Timestamps are aware UTC datetimes, even if the SQL made them without a zone; dates are `date`.

    Attributes:
        tiers: the tiers that were read, in order: "L1" log, "L2" rollups, "L3" archive.
        seq: the positions that the answer covers, `(start, end)`; end exclusive, positions of pruned events included.
        files: paths of the Parquet files that were read.
        elapsed_ms: milliseconds from the call to the answer.
        watermark: position in `seq`; events before it were read from the archive (L3).
        as_of: the moment of the query; None means the present.
        report: name of the report; "" for a plain query.
    """

    __slots__ = ("_as_of_us", "_elapsed_ms", "_files", "_report", "_rows", "_seq", "_table", "_tiers", "_watermark")

    def __init__(
        self,
        table: pa.Table,
        *,
        tiers: tuple[str, ...] = (),
        seq: tuple[int, int] = (0, 0),
        files: tuple[str, ...] = (),
        elapsed_ms: float = 0.0,
        watermark: int = 0,
        as_of_us: int | None = None,
        report: str = "",
    ) -> None:
        self._table = _with_utc(table)
        self._report = report
        self._tiers = tiers
        self._seq = seq
        self._files = files
        self._elapsed_ms = elapsed_ms
        self._watermark = watermark
        self._as_of_us = as_of_us
        self._rows: tuple[Row, ...] | None = None

    @property
    def tiers(self) -> tuple[str, ...]:
        """The tiers that were read, in order."""
        return self._tiers

    @property
    def seq(self) -> tuple[int, int]:
        """The positions that the answer covers: start, and end exclusive."""
        return self._seq

    @property
    def files(self) -> tuple[str, ...]:
        """Paths of the Parquet files that were read."""
        return self._files

    @property
    def elapsed_ms(self) -> float:
        """Milliseconds from the call to the answer."""
        return self._elapsed_ms

    @property
    def watermark(self) -> int:
        """The seq before which events were read from the archive."""
        return self._watermark

    @property
    def as_of(self) -> datetime | None:
        """The moment of the query; None means the present."""
        return None if self._as_of_us is None else from_us(self._as_of_us)

    @property
    def report(self) -> str:
        """The name of the report; "" for a plain query."""
        return self._report

    def named(self, report: str, table: pa.Table | None = None) -> Result:
        """A copy of the result that has the name of a report, and `table` in place of its table if that is set."""
        return Result(
            self._table if table is None else table,
            tiers=self._tiers,
            seq=self._seq,
            files=self._files,
            elapsed_ms=self._elapsed_ms,
            watermark=self._watermark,
            as_of_us=self._as_of_us,
            report=report,
        )

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(self._table.column_names)

    @property
    def rows(self) -> list[Row]:
        """All rows, in a new list. The Row objects are made once and shared."""
        return list(self._row_tuple())

    def _row_tuple(self) -> tuple[Row, ...]:
        if self._rows is None:
            positions: dict[str, int] = {}
            for position, name in enumerate(self._table.column_names):
                positions.setdefault(name, position)
            columns = [_values(column) for column in self._table.columns]
            self._rows = tuple(Row(positions, values) for values in zip(*columns, strict=True))
        return self._rows

    def scalar(self) -> Any:
        """The first value of the first row. Raises ValueError if the result has no row or no column."""
        if not self._table.num_rows or not self._table.num_columns:
            raise ValueError(f"the result has no rows (columns: {', '.join(self.columns)}): there is no first value")
        return self[0][0]

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __bool__(self) -> bool:
        return len(self) > 0

    def __iter__(self) -> Iterator[Row]:
        return iter(self._row_tuple())

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        if isinstance(index, slice):
            return list(self._row_tuple()[index])
        return self._row_tuple()[index]

    def arrow(self) -> pa.Table:
        """The result as an Arrow table. Nothing is copied."""
        return self._table

    def df(self) -> pd.DataFrame:
        """The result as a pandas DataFrame. Raises ImportError if pandas is not installed."""
        try:
            import pandas as pd  # noqa: F401 - optional; pyarrow's own error does not say what to install
        except ImportError as error:
            raise ImportError("df() needs pandas: pip install 'lakebed[notebook]' or pip install pandas") from error
        return self._table.to_pandas()

    def pl(self) -> pl.DataFrame:
        """The result as a polars DataFrame. Raises ImportError if polars is not installed."""
        try:
            import polars as pl  # optional
        except ImportError as error:
            raise ImportError("pl() needs polars: pip install polars") from error
        frame = pl.from_arrow(self._table)
        assert isinstance(frame, pl.DataFrame)  # noqa: S101 - polars types it as possibly a Series; tables never are
        return frame

    def plot(self) -> Chart:
        """The result as a chart: its report's chart, or else a line or bars, chosen by the types of the columns.

        Raises:
            ValueError: no chart fits the columns.
        """
        from lakebed.charts.chart_types import draw  # imported with the first chart: it costs 8 ms of an import

        return draw(self._report, self._table)

    def _origin(self) -> str:
        rows = f"{len(self):,} row{'' if len(self) == 1 else 's'}"
        as_of = "" if self.as_of is None else f" · as of {self.as_of.isoformat()}"
        return f"{' + '.join(self._tiers) or 'no tier'} · {rows} · {self._elapsed_ms:.1f} ms{as_of}"

    def __repr__(self) -> str:
        lines = [f"  {row!r}" for row in self._head(_REPR_ROWS)]
        if len(self) > _REPR_ROWS:
            lines.append(f"  … {len(self) - _REPR_ROWS:,} more")
        return "\n".join([f"<Result {self._origin()}>", *lines])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in self.columns)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(_text(value))}</td>' for value in row)}</tr>" for row in self._head(_HTML_ROWS)
        )
        more = "" if len(self) <= _HTML_ROWS else f" · the first {_HTML_ROWS} are shown"
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        picture = self.plot()._repr_html_() if self._report else ""
        return f"<div>{picture}{table}<p>{escape(self._origin() + more)}</p></div>"

    def _head(self, count: int) -> tuple[Row, ...]:
        if self._rows is None and len(self) > count:
            return tuple(Result(self._table.slice(0, count)))
        return self._row_tuple()[:count]


def _with_utc(table: pa.Table) -> pa.Table:
    """Convert the timestamps in `table` to aware ones in microseconds. Naive ones are UTC, as all SQL runs in UTC."""
    for position, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type) and (field.type.tz is None or field.type.unit != "us"):
            column = table.column(position).cast(pa.timestamp("us"), safe=False).cast(pa.timestamp("us", tz="UTC"))
            table = table.set_column(position, field.name, column)
        elif field.type == _HUGEINT:
            table = table.set_column(position, field.name, _narrowed(table.column(position)))
    return table


def _narrowed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert the column to 64-bit integers if all values fit, so that a sum of counts is no decimal."""
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column


def _values(column: pa.ChunkedArray) -> list[Any]:
    values: list[Any] = column.to_pylist()
    if column.type == _HUGEINT:
        return [int(value) if isinstance(value, Decimal) else value for value in values]
    return values


def _text(value: object) -> str:
    return "" if value is None else value.isoformat(" ") if isinstance(value, datetime) else str(value)
