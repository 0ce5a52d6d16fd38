"""Parquet files of the archive: sorted, one day each, with Iceberg's field ids; and what manifests know of them."""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
)
from pyiceberg.manifest import DataFile as IcebergFile
from pyiceberg.manifest import DataFileContent, FileFormat
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.typedef import Record

from lakebed.clock import DAY_US
from lakebed.events.event import BASE_COLUMNS, SCHEMA
from lakebed.events.parquet import layout, with_filters
from lakebed.events.promotions import Promotion
from lakebed.tiers.archive.file_io import local_path, unavailable
from lakebed.tiers.archive.models import DataFile

__all__ = ["DAY_US", "FileWriter", "arrow_schema", "describe", "promoted_columns", "read_rows"]

_ROW_GROUP = 131_072
_ROW_GROUP_BYTES = 256 << 20
_LARGE = 1 << 30
_ORDER = [("timestamp", "ascending"), ("seq", "ascending")]
_SEQ, _TIMESTAMP, _RECEIVED = (SCHEMA.get_field_index(name) + 1 for name in ("seq", "timestamp", "received_at"))
_WIDEST = (-(1 << 63), (1 << 63) - 1)


def arrow_schema(schema: Schema, names: list[str]) -> pa.Schema:
    """The Arrow schema, with field ids, of a file that has the columns `names`.

    Names stay as they are. (pyiceberg writes "a b" as "a_x20b", which only readers by field id understand.)
    """
    ids = {field.name: field.field_id for field in schema.fields}
    fields = {field.name: field for field in schema.as_arrow()}
    return pa.schema(
        [
            pa.field(
                name,
                SCHEMA.field(name).type if name in SCHEMA.names else _small(fields[name].type),
                nullable=fields[name].nullable,
                metadata={b"PARQUET:field_id": str(ids[name]).encode()},
            )
            for name in names
        ]
    )


def promoted_columns(schema: Schema) -> tuple[Promotion, ...]:
    """The promotions that a table's columns stand for: also those that this opening of the object does not name."""
    kinds = {Promotion("", kind).arrow_type: kind for kind in ("str", "float", "int", "bool", "Decimal", "datetime")}
    found = {field.name: _small(field.type) for field in schema.as_arrow() if field.name not in BASE_COLUMNS}
    return tuple(Promotion(name, kinds[kind]) for name, kind in found.items() if kind in kinds)


def _small(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_large_string(kind) else kind


class FileWriter:
    """Writes rows into files of `table`, under the schema that `metadata` has come to.

    Args:
        target_bytes: a file is closed, and the next begun, at the row group that passes this.
    """

    def __init__(self, table: Table, metadata: TableMetadata, target_bytes: int) -> None:
        self._io: FileIO = table.io
        self._metadata = metadata
        self._schema = metadata.schema()
        self._target_bytes = target_bytes
        self._statistics = compute_statistics_plan(self._schema, metadata.properties)
        self._numbers = parquet_path_to_id_mapping(self._schema)
        self._locations = load_location_provider(metadata.location, metadata.properties)

    def write(self, rows: pa.Table) -> list[IcebergFile]:
        """Sort `rows` and write them, a file or more a day. The files are durable, and in no snapshot yet.

        Memory: `rows`, and a sorted copy of one row group at a time; a second copy of `rows` where they come in quite
        another order.
        """
        if rows.num_rows == 0:
            return []
        rows = _widened(rows.select([name for name in rows.column_names if name in self._known()]))
        order = pc.sort_indices(rows, sort_keys=_ORDER)
        step = max(1, min(_ROW_GROUP, _ROW_GROUP_BYTES * rows.num_rows // max(1, rows.nbytes)))
        schema = _wide(arrow_schema(self._schema, rows.column_names), rows.schema)
        source = _Chunks(rows)
        files: list[IcebergFile] = []
        for day, start, stop in _days(rows.column("timestamp").take(order)):
            groups = (source.take(order[at : min(at + step, stop)]).cast(schema) for at in range(start, stop, step))
            files += self._write_day(day, groups, schema)
        return files

    def _known(self) -> set[str]:
        return {field.name for field in self._schema.fields}

    def _write_day(self, day: int, groups: Iterator[pa.Table], schema: pa.Schema) -> Iterator[IcebergFile]:
        group = next(groups, None)
        while group is not None:
            date = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).date().isoformat()
            location = self._locations.new_data_location(f"timestamp_day={date}/{uuid.uuid4()}.parquet")
            output = self._io.new_output(location)
            with output.create() as sink:
                options = with_filters(layout(schema.names), group)
                with pq.ParquetWriter(sink, schema, **options) as writer:
                    while group is not None:
                        writer.write_table(group, row_group_size=_ROW_GROUP)
                        group = next(groups, None)
                        if sink.tell() >= self._target_bytes:
                            break
                size = sink.tell()
            yield self._data_file(location, day, size, writer.writer.metadata)

    def _data_file(self, location: str, day: int, size: int, footer: Any) -> IcebergFile:
        statistics = data_file_statistics_from_parquet_metadata(
            parquet_metadata=footer,
            stats_columns=self._statistics,
            parquet_column_mapping=self._numbers,
        )
        return IcebergFile.from_args(
            content=DataFileContent.DATA,
            file_path=location,
            file_format=FileFormat.PARQUET,
            partition=Record(day),
            file_size_in_bytes=size,
            sort_order_id=self._metadata.default_sort_order_id,
            spec_id=self._metadata.default_spec_id,
            equality_ids=None,
            key_metadata=None,
            **statistics.to_serialized_dict(),
        )


def _wide(schema: pa.Schema, given: pa.Schema) -> pa.Schema:
    """`schema` with the wide string columns of `given`. Only offsets in memory differ: Parquet has none."""
    kinds = ((field, given.field(field.name).type) for field in schema)
    return pa.schema([field.with_type(kind) if pa.types.is_large_string(kind) else field for field, kind in kinds])


def _widened(rows: pa.Table) -> pa.Table:
    """`rows` with wider offsets in columns that would not fit into one chunk."""
    for position, name in enumerate(rows.column_names):
        column = rows.column(position)
        if pa.types.is_string(column.type) and column.nbytes > _LARGE:
            rows = rows.set_column(position, name, column.cast(pa.large_string()))
    return rows


class _Chunks:
    """A table to take rows out of. Events come nearly sorted, so those of a row group are seldom far apart."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows
        self._whole = False

    def take(self, places: pa.Array) -> pa.Table:
        """The rows at `places`, of which there is one at least. Looking for them in many chunks is slow.

        Making the whole table one chunk copies it, into fresh memory: a third of what archiving would cost.
        """
        extremes = pc.min_max(places)
        low, high = extremes["min"], extremes["max"]
        span = high.as_py() - low.as_py() + 1
        if span <= 2 * len(places):
            return self._rows.slice(low.as_py(), span).take(pc.subtract(places, low))
        if not self._whole:
            self._rows, self._whole = self._rows.combine_chunks(), True
        return self._rows.take(places)


def _days(timestamps: pa.ChunkedArray) -> Iterator[tuple[int, int, int]]:
    """Days since 1970 of sorted timestamps, with the range of rows that each has."""
    days = pc.run_end_encode(timestamps.combine_chunks().cast(pa.date32()).cast(pa.int32()), run_end_type=pa.int64())
    start = 0
    for day, stop in zip(days.values.to_pylist(), days.run_ends.to_pylist(), strict=True):
        yield day, start, stop
        start = stop


def describe(file: IcebergFile, schema: Schema) -> DataFile:
    """What a manifest knows of a live file. Where it gives no bounds they are as wide as can be: nothing is pruned."""
    lower, upper = file.lower_bounds or {}, file.upper_bounds or {}
    path = local_path(file.file_path)

    def bounds(number: int) -> tuple[int, int]:
        if number not in lower or number not in upper:
            return _WIDEST
        return struct.unpack("<q", lower[number])[0], struct.unpack("<q", upper[number])[0]

    (first, last), (earliest, latest), (oldest, newest) = bounds(_SEQ), bounds(_TIMESTAMP), bounds(_RECEIVED)
    present = file.value_counts or {}
    return DataFile(
        path=file.file_path if path is None else str(path),
        rows=file.record_count,
        bytes=file.file_size_in_bytes,
        first_seq=first,
        last_seq=last,
        min_timestamp=earliest,
        max_timestamp=latest,
        min_received=oldest,
        max_received=newest,
        columns=_shared(frozenset(field.name for field in schema.fields if field.field_id in present)),
    )


@lru_cache(maxsize=256)
def _shared(columns: frozenset[str]) -> frozenset[str]:
    """The same object for equal sets: each question compares those of all its files."""
    return columns


def read_rows(io: FileIO, file: IcebergFile, columns: list[str] | None = None) -> pa.Table:
    """A data file's rows, their checksums verified.

    Raises:
        ArchiveUnavailable: when it is missing or damaged.
    """
    try:
        with (
            io.new_input(file.file_path).open() as source,
            pq.ParquetFile(source, page_checksum_verification=True) as parquet,
        ):
            return parquet.read(columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise unavailable(f"{file.file_path} cannot be read", error) from error
