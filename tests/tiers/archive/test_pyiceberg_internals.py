"""The contract with pyiceberg: for each undocumented part that the archive uses, the behaviour that it relies on.

A new version of pyiceberg is ready for use when this file passes, and the pin in pyproject.toml can move.
"""

from __future__ import annotations

import ast
import asyncio
import math
import socket
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyiceberg
import pytest
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import ManifestEntryStatus
from pyiceberg.schema import Schema
from pyiceberg.table import Transaction
from pyiceberg.types import LongType, NestedField, StringType
from pyiceberg.utils.concurrent import ExecutorFactory

import lakebed
from lakebed.errors import ArchiveUnavailable
from lakebed.events.event import SCHEMA
from lakebed.tiers.archive import pyiceberg_internals as internals
from tests.tiers.archive.archive_fixtures import events, open_archive

# Names outside the adapter that pyiceberg's guide documents (https://py.iceberg.apache.org/api and /configuration).
DOCUMENTED = {
    "pyiceberg.catalog": {"Catalog", "load_catalog"},
    "pyiceberg.exceptions": {
        "CommitFailedException",
        "NoSuchNamespaceError",
        "NoSuchTableError",
        "TableAlreadyExistsError",
        "ValidationException",
    },
    "pyiceberg.io": {"FileIO", "InputFile", "OutputFile"},
    "pyiceberg.partitioning": {"PartitionField", "PartitionSpec"},
    "pyiceberg.schema": {"Schema"},
    "pyiceberg.table": {"Table", "Transaction"},
    "pyiceberg.table.sorting": {"SortField", "SortOrder"},
    "pyiceberg.transforms": {"DayTransform", "IdentityTransform"},
}


@pytest.fixture
async def archive(tmp_path):
    archive = open_archive(tmp_path)
    await archive.append(events(0, 4), 0, 4)
    yield archive
    await archive.close()


@pytest.mark.integration
def test_only_the_adapter_imports_undocumented_names():
    """Every import of pyiceberg outside `pyiceberg_internals.py` is of a documented name."""
    for path in Path(lakebed.__file__).parent.rglob("*.py"):
        if path.name == "pyiceberg_internals.py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pyiceberg"):
                assert {alias.name for alias in node.names} <= DOCUMENTED.get(node.module, set()), path
            elif isinstance(node, ast.Import):
                assert not any(alias.name.startswith("pyiceberg") for alias in node.names), path


def test_the_version_is_the_pinned_one():
    """The contract was checked for 0.12: another minor version needs another check."""
    assert pyiceberg.__version__.startswith("0.12.")


# Catalogs


def test_connections_of_a_sql_catalog_are_prepared(tmp_path):
    """`SqlCatalog.engine` is SQLAlchemy's: each connection passes `on_connect`, also after the tables were created."""
    seen = []
    uri = f"sqlite:///{tmp_path}/catalog.db"
    catalog = internals.open_sql_catalog("lakebed", uri, str(tmp_path), {}, seen.append)
    catalog.create_namespace("lakebed")
    assert seen
    assert all(connection.execute("SELECT 1").fetchone() == (1,) for connection in seen[-1:])
    catalog.close()


async def test_requests_of_the_rest_client_time_out(tmp_path, monkeypatch):
    """`RestCatalog._create_session` makes the session of every request: a server that never answers is an error."""
    monkeypatch.setattr(internals, "_REQUEST_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        archive = open_archive(tmp_path, catalog={"type": "rest", "uri": uri})
        async with asyncio.timeout(20):
            with pytest.raises(ArchiveUnavailable, match="catalog cannot be opened"):
                await archive.watermark()
        await archive.close()


# Threads


def test_jobs_run_inline_on_our_threads_alone():
    """`ExecutorFactory.get_or_create` gives pyiceberg its pool; only threads that ask for it run jobs inline."""

    def thread_of_a_job() -> int | None:
        return ExecutorFactory.get_or_create().submit(threading.get_ident).result()

    def ours() -> bool:
        internals.run_inline()
        return thread_of_a_job() == threading.get_ident()

    def another() -> bool:
        return thread_of_a_job() == threading.get_ident()

    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(ours).result()
    with ThreadPoolExecutor(1) as thread:
        assert not thread.submit(another).result()
    ExecutorFactory.get_or_create().shutdown()  # pyiceberg's own pool, which would outlive this test
    ExecutorFactory._instance = None


def test_an_error_of_an_inline_job_is_raised_by_its_result():
    """The caller gets the error from `result()`, as with pyiceberg's pool."""
    internals.run_inline()
    try:
        future = ExecutorFactory.get_or_create().submit(lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            future.result()
    finally:
        internals._thread.inline = False


# Schemas and data files


def test_field_ids_of_arrow_are_kept():
    """`pyarrow_to_schema` uses the ids in the metadata and assigns no others."""
    fields = internals.schema_from_arrow(SCHEMA).fields
    assert [(field.field_id, field.name) for field in fields] == list(enumerate(SCHEMA.names, 1))
    assert [field.required for field in fields] == [not field.nullable for field in SCHEMA]


async def test_a_data_file_is_described_from_its_footer(archive, tmp_path):
    """Rows, bytes, partition, and bounds as Iceberg encodes them, for the columns whose metrics are "full"."""
    table = await archive._run(lambda worker: worker.load())
    factory = internals.DataFileFactory(table.metadata)
    location = factory.location("timestamp_day=2026-01-01/a.parquet")
    assert location == f"{table.location()}/data/timestamp_day=2026-01-01/a.parquet"
    path = tmp_path / "a.parquet"
    rows = events(7, 9)
    with pq.ParquetWriter(path, rows.schema) as writer:
        writer.write_table(rows)
    described = factory.describe(location, 20_454, path.stat().st_size, writer.writer.metadata)
    assert (described.file_path, described.record_count) == (location, 2)
    assert (described.file_size_in_bytes, described.partition[0]) == (path.stat().st_size, 20_454)
    bounds = described.lower_bounds[1], described.upper_bounds[1]
    assert [struct.unpack("<q", bound)[0] for bound in bounds] == [7, 8]
    assert set(described.value_counts) == set(range(1, len(SCHEMA) + 1))


def test_names_of_parquet_columns_map_to_field_ids():
    """`parquet_path_to_id_mapping` maps plain column names, also those with spaces, which we write unchanged."""
    schema = Schema(NestedField(1, "seq", LongType()), NestedField(14, "a b", StringType()))
    assert internals.parquet_path_to_id_mapping(schema) == {"seq": 1, "a b": 14}


# File IO


def test_the_parts_of_pyarrow_file_io_that_are_overridden(tmp_path):
    """A location has scheme and path; `create` makes a stream for `_path`; `delete` takes a location."""
    assert PyArrowFileIO.parse_location(str(tmp_path))[::2] == ("file", str(tmp_path))
    assert PyArrowFileIO.parse_location("s3://bucket/key")[0] == "s3"
    io = PyArrowFileIO({})
    file = internals.PyArrowFile(str(tmp_path / "x"), str(tmp_path / "x"), io.fs_by_scheme("file", ""))
    assert file._path == str(tmp_path / "x")
    with file.create() as stream:
        stream.write(b"abc")
    assert len(io.new_input(str(tmp_path / "x"))) == 3
    io.delete(str(tmp_path / "x"))
    assert not (tmp_path / "x").exists()


# Manifests


async def test_manifests_list_the_live_files(archive):
    """`snapshot.manifests` and `fetch_manifest_entry`: the files of the snapshot, without those that it removed."""
    await archive.append(events(4, 5), 4, 5)
    await archive.erase("message_id", ["m0"])

    def listed(worker):
        table = worker.load()
        manifests, has_deletes = internals.manifests_of(table.current_snapshot(), table.io)
        removed = [
            entry.data_file.file_path
            for manifest in manifests
            for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False)
            if entry.status == ManifestEntryStatus.DELETED
        ]
        live = [file for manifest in manifests for file in internals.live_files_in(manifest, table.io)]
        return has_deletes, removed, [file.file_path for file in live], sum(file.record_count for file in live)

    has_deletes, removed, live, rows = await archive._run(listed)
    assert not has_deletes
    assert rows == 4
    assert len(removed) == 1
    assert removed[0] not in live
    async with archive.pin() as view:
        assert {Path(path.removeprefix("file://")) for path in live} == {Path(file.path) for file in view.files}


# Transactions


async def test_metadata_of_a_cached_transaction_are_those_of_pyiceberg(archive):
    """After each staged change the metadata equal those of pyiceberg, and they are derived once.

    This is the contract with `Transaction._table`, `_updates` (a new tuple for each change) and `table_metadata`.
    """
    table = await archive._run(lambda worker: worker.load())
    cached, plain = internals.CachedTransaction(table), Transaction(table)
    assert cached.table_metadata == plain.table_metadata
    for number in range(3):
        for transaction in (cached, plain):
            transaction.set_properties({"lakebed.test": str(number)})
        assert cached.table_metadata.properties["lakebed.test"] == str(number)
        ignored = {"last_updated_ms": 0}  # pyiceberg reads the clock
        assert cached.table_metadata.model_copy(update=ignored) == plain.table_metadata.model_copy(update=ignored)
        assert cached.table_metadata is cached.table_metadata
    assert "lakebed.test" not in table.metadata.properties


async def test_a_staged_append_changes_nothing_before_the_commit(archive):
    """`update_snapshot().merge_append()` stages a snapshot with our summary; a commit alone changes the table."""

    def stage(worker):
        table = worker.load()
        manifests, _ = internals.manifests_of(table.current_snapshot(), table.io)
        files = [file for manifest in manifests for file in internals.live_files_in(manifest, table.io)]
        transaction = internals.CachedTransaction(table)
        internals.stage_overwrite(transaction, {"lakebed.test": "1"}, files, files)
        staged = transaction.table_metadata.current_snapshot()
        return table.current_snapshot(), staged, worker.load().current_snapshot()

    before, staged, after = await archive._run(stage)
    assert staged.summary.additional_properties["lakebed.test"] == "1"
    assert staged.parent_snapshot_id == before.snapshot_id == after.snapshot_id
    assert int(staged.summary.additional_properties["total-records"]) == 4


async def test_tags_and_expiry_take_a_transaction(archive):
    """`ManageSnapshots` and `ExpireSnapshots` stage into the transaction that they are given."""
    await archive.append(events(4, 5), 4, 5)

    def change(worker):
        table = worker.load()
        first, second = (snapshot.snapshot_id for snapshot in table.metadata.snapshots)
        transaction = internals.CachedTransaction(table)
        internals.create_tag(transaction, second, "kept")
        internals.expire_snapshots(transaction, [first])
        transaction.commit_transaction()
        table = worker.load()
        tagged = internals.tags_of(table), internals.snapshot_id_of_ref(table, "kept")
        transaction = internals.CachedTransaction(table)
        internals.delete_tag(transaction, "kept")
        transaction.commit_transaction()
        return second, tagged, worker.load()

    second, tagged, table = await archive._run(change)
    assert tagged == ({"kept": second}, second)
    assert internals.tags_of(table) == {}
    assert [snapshot.snapshot_id for snapshot in table.metadata.snapshots] == [second]


def test_retries_of_pyiceberg_can_be_switched_off():
    """The table property `commit.retry.num-retries` exists under this name: at 0 a commit is attempted once."""
    from pyiceberg.table import TableProperties

    assert TableProperties.COMMIT_NUM_RETRIES == "commit.retry.num-retries"
    assert math.isclose(int(TableProperties.COMMIT_NUM_RETRIES_DEFAULT), 4)


def test_arrow_strings_of_a_schema_are_known():
    """`Schema.as_arrow` gives strings as `string` or `large_string`: the two kinds that our files' schema expects."""
    kind = Schema(NestedField(1, "text", StringType())).as_arrow().field("text").type
    assert kind in (pa.string(), pa.large_string())
