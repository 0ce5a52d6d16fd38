"""The archive's Parquet files (sorted, one day each, with Iceberg's field ids) and their description in manifests."""

from __future__ import annotations

import struct
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.schema import Schema
from pyiceberg.table import Table

from lakebed.clock import DAY_US
from lakebed.errors import ArchiveConflict
from lakebed.events.event import BASE_COLUMNS, SCHEMA
from lakebed.events.parquet import layout, with_filters
from lakebed.events.promotions import Promotion
from lakebed.tiers.archive.file_io import local_path, unavailable
from lakebed.tiers.archive.models import DataFile
from lakebed.tiers.archive.pyiceberg_internals import DataFile as IcebergFile
from lakebed.tiers.archive.pyiceberg_internals import (
    DataFileFactory,
    ManifestFile,
    Snapshot,
    TableMetadata,
    live_files_in,
    manifests_of,
)

__all__ = ["DAY_US", "FileWriter", "ManifestCache", "describe", "live_files", "promoted_columns", "read_rows"]

_ROW_GROUP = 131_072
_ROW_GROUP_BYTES = 256 << 20
_LARGE = 1 << 30
_ORDER = [("timestamp", "ascending"), ("seq", "ascending")]
_SEQ, _TIMESTAMP, _RECEIVED = (SCHEMA.get_field_index(name) + 1 for name in ("seq", "timestamp", "received_at"))
_WIDEST = (-(1 << 63), (1 << 63) - 1)


def _arrow_schema(schema: Schema, names: list[str]) -> pa.Schema:
    """The Arrow schema, with field ids, of a file that has the columns `names`.

    Names do not change. (pyiceberg writes "a b" as "a_x20b", which only readers by field id understand.)
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
    """The promotions of a table's columns, including promotions that this opening of the object does not name."""
    kinds = {Promotion("", kind).arrow_type: kind for kind in ("str", "float", "int", "bool", "Decimal", "datetime")}
    columns = {field.name: _small(field.type) for field in schema.as_arrow() if field.name not in BASE_COLUMNS}
    return tuple(Promotion(name, kinds[kind]) for name, kind in columns.items() if kind in kinds)


def _small(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_large_string(kind) else kind


class FileWriter:
    """Writes rows into files of `table`, with the schema of `metadata`, which may include staged changes.

    Args:
        target_bytes: when a row group takes a file to this size, the next row group goes to a new file.
    """

    def __init__(self, table: Table, metadata: TableMetadata, target_bytes: int) -> None:
        self._io: FileIO = table.io
        self._schema = metadata.schema()
        self._target_bytes = target_bytes
        self._factory = DataFileFactory(metadata)

    def write(self, rows: pa.Table) -> list[IcebergFile]:
        """Sort and write `rows`, one or more files for each day. The files are durable, but not in a snapshot yet.

        Memory holds `rows` and a sorted copy of one row group at a time, and a second copy of `rows` if they are far
        from sorted.
        """
        if rows.num_rows == 0:
            return []
        rows = _widened(rows.select([name for name in rows.column_names if name in self._column_names()]))
        order = pc.sort_indices(rows, sort_keys=_ORDER)
        step = max(1, min(_ROW_GROUP, _ROW_GROUP_BYTES * rows.num_rows // max(1, rows.nbytes)))
        schema = _wide(_arrow_schema(self._schema, rows.column_names), rows.schema)
        source = _Chunks(rows)
        files: list[IcebergFile] = []
        for day, start, stop in _days(rows.column("timestamp").take(order)):
            groups = (source.take(order[row : min(row + step, stop)]).cast(schema) for row in range(start, stop, step))
            files += self._write_day(day, groups, schema)
        return files

    def _column_names(self) -> set[str]:
        return {field.name for field in self._schema.fields}

    def _write_day(self, day: int, groups: Iterator[pa.Table], schema: pa.Schema) -> Iterator[IcebergFile]:
        group = next(groups, None)
        while group is not None:
            date = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).date().isoformat()
            location = self._factory.location(f"timestamp_day={date}/{uuid.uuid4()}.parquet")
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
            yield self._factory.describe(location, day, size, writer.writer.metadata)


def _wide(schema: pa.Schema, rows_schema: pa.Schema) -> pa.Schema:
    """`schema` with the large string columns of `rows_schema`. Only offsets in memory differ, and Parquet has none."""
    kinds = ((field, rows_schema.field(field.name).type) for field in schema)
    return pa.schema([field.with_type(kind) if pa.types.is_large_string(kind) else field for field, kind in kinds])


def _widened(rows: pa.Table) -> pa.Table:
    """`rows` with 64-bit offsets in columns that would not fit into one chunk."""
    for position, name in enumerate(rows.column_names):
        column = rows.column(position)
        if pa.types.is_string(column.type) and column.nbytes > _LARGE:
            rows = rows.set_column(position, name, column.cast(pa.large_string()))
    return rows


class _Chunks:
    """A table to take rows from. Events arrive nearly sorted, so the rows of a row group are seldom far apart."""

    def __init__(self, rows: pa.Table) -> None:
        self._rows = rows
        self._whole = False

    def take(self, indices: pa.Array) -> pa.Table:
        """The rows at `indices`, at least one. Taking rows from many chunks is slow, so near rows are sliced first.

        To combine the whole table into one chunk copies it into fresh memory: a third of the cost of archiving.
        """
        extremes = pc.min_max(indices)
        low, high = extremes["min"], extremes["max"]
        span = high.as_py() - low.as_py() + 1
        if span <= 2 * len(indices):
            return self._rows.slice(low.as_py(), span).take(pc.subtract(indices, low))
        if not self._whole:
            self._rows, self._whole = self._rows.combine_chunks(), True
        return self._rows.take(indices)


def _days(timestamps: pa.ChunkedArray) -> Iterator[tuple[int, int, int]]:
    """Each day (in days since 1970) of sorted timestamps, with the start and end of its rows."""
    days = pc.run_end_encode(timestamps.combine_chunks().cast(pa.date32()).cast(pa.int32()), run_end_type=pa.int64())
    start = 0
    for day, stop in zip(days.values.to_pylist(), days.run_ends.to_pylist(), strict=True):
        yield day, start, stop
        start = stop


def describe(file: IcebergFile, schema: Schema) -> DataFile:
    """A live file, as described in a manifest. Bounds that the manifest lacks are as wide as possible: no pruning."""
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
    """Returns one object for all equal sets, because each query compares the sets of all its files."""
    return columns


def read_rows(io: FileIO, file: IcebergFile, columns: list[str] | None = None) -> pa.Table:
    """The rows of a data file. Verifies checksums. Raises ArchiveUnavailable if the file is missing or damaged."""
    try:
        with (
            io.new_input(file.file_path).open() as source,
            pq.ParquetFile(source, page_checksum_verification=True) as parquet,
        ):
            return parquet.read(columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise unavailable(f"{file.file_path} cannot be read", error) from error


_REMEMBERED = 64


def live_files(table: Table, snapshot: Snapshot | None) -> Iterator[IcebergFile]:
    """Every live data file of a snapshot, as pyiceberg describes it."""
    for manifest in _data_manifests(table, snapshot):
        yield from _entries(table, manifest)


def _data_manifests(table: Table, snapshot: Snapshot | None) -> list[ManifestFile]:
    if snapshot is None:
        return []
    try:
        manifests, has_deletes = manifests_of(snapshot, table.io)
    except Exception as error:
        raise unavailable("the archive's manifest list cannot be read", error) from error
    if has_deletes:
        raise ArchiveConflict(
            "the archive has delete files, which Lakebed neither writes nor applies",
            hint="Another program deleted rows: let it rewrite the data files",
        )
    return manifests


def _entries(table: Table, manifest: ManifestFile) -> list[IcebergFile]:
    try:
        return live_files_in(manifest, table.io)
    except Exception as error:
        raise unavailable(f"{manifest.manifest_path} cannot be read", error) from error


class ManifestCache:
    """The manifests already read. Manifests never change, so after a commit only new manifests are read."""

    def __init__(self) -> None:
        self._read: OrderedDict[tuple[str, int], tuple[DataFile, ...]] = OrderedDict()

    def files(self, table: Table, snapshot: Snapshot | None) -> tuple[DataFile, ...]:
        """The live files of `snapshot`, by first timestamp. Blocks."""
        manifests = _data_manifests(table, snapshot)
        files = [file for manifest in manifests for file in self._described(table, manifest)]
        while len(self._read) > max(_REMEMBERED, 2 * len(manifests)):
            self._read.popitem(last=False)
        return tuple(sorted(files, key=lambda file: (file.min_timestamp, file.first_seq, file.path)))

    def _described(self, table: Table, manifest: ManifestFile) -> tuple[DataFile, ...]:
        schema = table.schema()
        key = (manifest.manifest_path, schema.schema_id)
        if key not in self._read:
            self._read[key] = tuple(describe(file, schema) for file in _entries(table, manifest))
        self._read.move_to_end(key)
        return self._read[key]
