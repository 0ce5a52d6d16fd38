"""The parts of pyiceberg that its guide does not document: this file is their only importer.

pyiceberg is pinned to one minor version because of these parts (docs/decisions/0003). For each part,
`test_pyiceberg_internals.py` states the behaviour that the archive relies on: run that test first against a new
version. Elsewhere only the documented API is imported: catalogs, tables, transactions, schemas, partition specs, sort
orders, exceptions and the `FileIO` interface.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import pyarrow as pa
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import (
    PyArrowFile,
    PyArrowFileIO,
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    pyarrow_to_schema,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestContent, ManifestFile
from pyiceberg.schema import Schema
from pyiceberg.table import Table, Transaction
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update.snapshot import ExpireSnapshots, ManageSnapshots
from pyiceberg.typedef import Record
from pyiceberg.utils.concurrent import ExecutorFactory
from sqlalchemy import event

__all__ = [
    "CachedTransaction",
    "DataFile",
    "DataFileFactory",
    "ManifestFile",
    "PyArrowFile",
    "PyArrowFileIO",
    "Snapshot",
    "TableMetadata",
    "create_tag",
    "delete_tag",
    "expire_snapshots",
    "limit_rest_requests",
    "live_files_in",
    "manifests_of",
    "open_sql_catalog",
    "run_inline",
    "schema_from_arrow",
    "snapshot_id_of_ref",
    "stage_append",
    "stage_overwrite",
    "tags_of",
]

_REQUEST_TIMEOUT_S = 60.0


# Catalogs


def open_sql_catalog(
    name: str, uri: str, warehouse: str, properties: Mapping[str, str], on_connect: Callable[[Any], None]
) -> Catalog:
    """A SQL catalog, created if missing. `on_connect` gets each new connection of its SQLAlchemy engine."""
    catalog = SqlCatalog(name, uri=uri, warehouse=warehouse, **properties)
    event.listen(catalog.engine, "connect", lambda connection, _: on_connect(connection))
    catalog.engine.dispose()  # the connection that created the tables was made before the listener
    return catalog


def limit_rest_requests() -> None:
    """Give the requests of pyiceberg's REST client a timeout, on threads that called `run_inline`.

    The client offers no timeout, and sends its first request while it is constructed.
    """
    from pyiceberg.catalog.rest import RestCatalog  # few objects need an HTTP client

    create_session = RestCatalog._create_session  # noqa: SLF001 - see above
    if getattr(create_session, "is_limited", False):
        return

    @functools.wraps(create_session)
    def create_limited_session(catalog: Any) -> Any:
        session = create_session(catalog)
        if getattr(_thread, "inline", False):
            session.request = functools.partial(session.request, timeout=_REQUEST_TIMEOUT_S)  # type: ignore[method-assign]
        return session

    create_limited_session.is_limited = True  # type: ignore[attr-defined]
    RestCatalog._create_session = create_limited_session  # type: ignore[method-assign,assignment]  # noqa: SLF001


# Threads


class _InlineExecutor(Executor):
    """An executor that runs its jobs at once, on the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - result() raises it again
            future.set_exception(error)
        return future


_thread = threading.local()
_inline_executor = _InlineExecutor()
_shared_executor = ExecutorFactory.get_or_create


def run_inline() -> None:
    """Make pyiceberg run its small jobs on the calling thread from now on.

    Otherwise pyiceberg starts a pool of threads that lives as long as the process, and writes in no certain order. To
    shut the pool down was rejected: the surrounding program may use pyiceberg too. Other threads keep the pool.
    """
    _thread.inline = True


def _executor() -> Executor:
    return _inline_executor if getattr(_thread, "inline", False) else _shared_executor()


ExecutorFactory.get_or_create = staticmethod(_executor)  # type: ignore[method-assign]


# Schemas and data files


def schema_from_arrow(schema: pa.Schema) -> Schema:
    """The Iceberg schema of an Arrow schema. Field ids are taken from `PARQUET:field_id` of the Arrow fields."""
    return pyarrow_to_schema(schema)


class DataFileFactory:
    """Names and describes the Parquet files that Lakebed writes into a table with the given metadata."""

    def __init__(self, metadata: TableMetadata) -> None:
        schema = metadata.schema()
        self._metadata = metadata
        self._statistics_plan = compute_statistics_plan(schema, metadata.properties)
        self._field_ids = parquet_path_to_id_mapping(schema)
        self._locations = load_location_provider(metadata.location, metadata.properties)

    def location(self, name: str) -> str:
        """The location for a file with this name."""
        return self._locations.new_data_location(name)

    def describe(self, location: str, partition: int, size: int, footer: Any) -> DataFile:
        """The manifest entry of a finished file.

        Args:
            location: the result of the method `location`.
            partition: the day of the rows, in days since 1970.
            size: the size of the file in bytes.
            footer: the Parquet metadata that the writer returned.
        """
        statistics = data_file_statistics_from_parquet_metadata(
            parquet_metadata=footer, stats_columns=self._statistics_plan, parquet_column_mapping=self._field_ids
        )
        return DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=location,
            file_format=FileFormat.PARQUET,
            partition=Record(partition),
            file_size_in_bytes=size,
            sort_order_id=self._metadata.default_sort_order_id,
            spec_id=self._metadata.default_spec_id,
            equality_ids=None,
            key_metadata=None,
            **statistics.to_serialized_dict(),
        )


# Manifests


def manifests_of(snapshot: Snapshot, io: FileIO) -> tuple[list[ManifestFile], bool]:
    """The manifests of a snapshot, and whether one of them lists deleted rows. Raises any error of reading them."""
    manifests = list(snapshot.manifests(io))
    return manifests, any(manifest.content != ManifestContent.DATA for manifest in manifests)


def live_files_in(manifest: ManifestFile, io: FileIO) -> list[DataFile]:
    """The data files that a manifest lists, without files that its snapshot removed. Raises any error of reading."""
    return [entry.data_file for entry in manifest.fetch_manifest_entry(io, discard_deleted=True)]


# Transactions


class CachedTransaction(Transaction):
    """A transaction that derives its metadata once for each staged change.

    pyiceberg derives the metadata anew at each access, 23 times in an append, and copies all snapshots each time, so a
    commit would cost more with every earlier commit. The metadata changes only when a change is staged, and nothing
    writes to the derived metadata.
    """

    def __init__(self, table: Table) -> None:
        super().__init__(table)
        self._derived: tuple[object, object, TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        """The table's metadata with the changes staged so far."""
        base, staged = self._table.metadata, self._updates
        if not staged:
            return base
        if self._derived is None or self._derived[0] is not base or self._derived[1] is not staged:
            self._derived = base, staged, super().table_metadata
        return self._derived[2]


def stage_append(transaction: Transaction, summary: dict[str, str], files: Iterable[DataFile]) -> None:
    """Stage a snapshot that adds `files`; small manifests are merged."""
    with transaction.update_snapshot(summary).merge_append() as update:
        for file in files:
            update.append_data_file(file)


def stage_overwrite(
    transaction: Transaction, summary: dict[str, str], old: Iterable[DataFile], new: Iterable[DataFile]
) -> None:
    """Stage a snapshot that replaces the files `old` by `new`."""
    with transaction.update_snapshot(summary).overwrite() as update:
        for file in old:
            update.delete_data_file(file)
        for file in new:
            update.append_data_file(file)


def expire_snapshots(transaction: Transaction, ids: Sequence[int]) -> None:
    """Stage the removal of snapshots. Files of the snapshots are not deleted."""
    ExpireSnapshots(transaction=transaction).by_ids(list(ids)).commit()


def create_tag(transaction: Transaction, snapshot_id: int, name: str) -> None:
    """Stage a tag, or the move of a tag."""
    ManageSnapshots(transaction=transaction).create_tag(snapshot_id, name).commit()


def delete_tag(transaction: Transaction, name: str) -> None:
    """Stage the removal of a tag."""
    ManageSnapshots(transaction=transaction).remove_tag(name).commit()


def tags_of(table: Table) -> dict[str, int]:
    """The snapshot id of each tag, by the tag's name, in order of names."""
    refs = sorted(table.metadata.refs.items())
    return {name: ref.snapshot_id for name, ref in refs if ref.snapshot_ref_type == SnapshotRefType.TAG}


def snapshot_id_of_ref(table: Table, name: str) -> int | None:
    """The snapshot id of a tag or branch; None if there is no tag or branch with this name."""
    refs = table.metadata.refs
    return refs[name].snapshot_id if name in refs else None
