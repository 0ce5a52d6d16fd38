from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import textwrap
import threading

import aiosqlite
import pytest

from lakebed.errors import FormatTooNew, ObjectClosed, StorageUnavailable
from lakebed.tiers.storage.identifiers import identify
from lakebed.tiers.storage.migrations import MIGRATIONS, migrate
from lakebed.tiers.storage.schedule_runs import ScheduleRuns
from lakebed.tiers.storage.storage import Storage


@pytest.fixture
async def storage(tmp_path):
    storage = Storage(tmp_path / "storage.db")
    await storage.open()
    yield storage
    if storage._open:
        assert await storage.check() == []
    await storage.close()
    assert _threads() == []


def _threads():
    return [t.name for t in threading.enumerate() if "worker_thread" in t.name or "aiosqlite" in t.name]


async def test_a_checkpoint_moves_only_from_where_it_is(storage):
    """A range cannot be counted twice: the second transaction over it fails and is rolled back."""

    async def fold(tx):
        await tx.put("seen", "second")
        await tx.advance("rollup:a", 0, 20)

    await storage.transact(lambda tx: tx.advance("rollup:a", 0, 10))
    with pytest.raises(StorageUnavailable) as caught:
        await storage.transact(fold)
    assert (caught.value.consumer, caught.value.expected) == ("rollup:a", 0)
    assert await storage.checkpoints() == {"rollup:a": 10}
    assert await storage.get("seen") is None
    with pytest.raises(StorageUnavailable):
        await storage.transact(lambda tx: tx.advance("rollup:b", 5, 10))  # it has no row: it is at 0
    await storage.transact(lambda tx: tx.advance("rollup:a", 10, 10))
    assert await storage.checkpoints() == {"rollup:a": 10}


async def test_an_error_rolls_all_of_a_transaction_back(storage):
    """After any error of `work` nothing of the transaction stays, and the next one works."""

    async def work(tx):
        await tx.put("a", 1)
        raise KeyError("mine")

    with pytest.raises(KeyError):
        await storage.transact(work)
    assert await storage.get("a", "nothing") == "nothing"
    await storage.put("a", {"b": [1, None, "ü"]})
    assert await storage.get("a") == {"b": [1, None, "ü"]}


async def test_a_transaction_that_hid_an_error_is_not_committed(storage):
    """After a failed statement there is no commit, even if the code continues."""

    async def work(tx):
        await tx.put("a", 1)
        with pytest.raises(sqlite3.Error):
            await tx.fetch("INSERT INTO nowhere VALUES (1)")
        await tx.put("b", 2)

    with pytest.raises(StorageUnavailable):
        await storage.transact(work)
    assert await storage.get("a") is None
    assert await storage.get("b") is None


async def test_full_disk_leaves_no_checkpoint_behind(storage):
    """SQLITE_FULL rolls back by itself; later statements must not be committed alone (stack.md S1)."""
    ((pages,),) = await storage._connection.execute_fetchall("PRAGMA page_count")
    await storage._connection.execute_fetchall(f"PRAGMA max_page_count = {pages + 2}")

    async def work(tx):
        try:
            await identify(tx, [f"{i:0200d}" for i in range(1000)])
        except sqlite3.OperationalError as error:
            assert error.sqlite_errorname == "SQLITE_FULL"  # noqa: PT017 - the code goes on, that is the point
        await tx.advance("rollup:a", 0, 10)

    with pytest.raises(StorageUnavailable):
        await storage.transact(work)
    assert await storage.checkpoints() == {}
    with pytest.raises(StorageUnavailable) as caught:
        await storage.transact(lambda tx: identify(tx, [f"{i:0200d}" for i in range(1000)]))
    assert caught.value.code == "SQLITE_FULL"
    await storage._connection.execute_fetchall("PRAGMA max_page_count = 1000000")
    assert sorted(await storage.transact(lambda tx: identify(tx, [f"{i:0200d}" for i in range(1000)]))) == list(
        range(1, 1001)
    )


async def test_cancelling_a_caller_does_not_split_its_transaction(storage):
    """A cancelled call completes its transaction, and no other call runs between its statements."""
    started, gate = asyncio.Event(), asyncio.Event()

    async def slow(tx):
        await tx.put("a", 1)
        started.set()
        await gate.wait()
        await tx.put("b", 2)

    call = asyncio.create_task(storage.transact(slow))
    await started.wait()
    reading = asyncio.create_task(storage.get("a"))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not reading.done()  # a read sees committed state only, so it waits
    gate.set()
    assert await reading == 1
    assert await storage.get("b") == 2


async def test_concurrent_transactions_take_turns(storage):
    """With many concurrent callers each transaction runs alone, and none is lost."""

    async def add(tx):
        (row,) = await tx.fetch("SELECT coalesce((SELECT value FROM meta WHERE key = 'n'), '0')")
        await asyncio.sleep(0)
        await tx.put("n", int(row[0]) + 1)

    await asyncio.gather(*(storage.transact(add) for _ in range(50)))
    assert await storage.get("n") == 50


async def test_close_waits_for_the_transaction_under_way(tmp_path):
    """A transaction started before close() is committed; a later one is refused."""
    storage = Storage(tmp_path / "storage.db")
    await storage.open()
    started, gate = asyncio.Event(), asyncio.Event()

    async def slow(tx):
        started.set()
        await gate.wait()
        await tx.put("a", 1)

    call = asyncio.create_task(storage.transact(slow))
    await started.wait()
    closing = asyncio.create_task(storage.close())
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(call, closing)
    await storage.close()
    with pytest.raises(ObjectClosed):
        await storage.get("a")
    await storage.open()
    assert await storage.get("a") == 1
    await storage.close()
    assert _threads() == []


async def test_identifiers_are_dense_and_stay(storage):
    """Each distinct text, of any characters, has one permanent id, from 1 without gaps."""
    odd = ["a\0b", "a\0c", '"a"', '"', "a", "A", "ü", "\U0001f600", "\\u0000", " a", ""]
    first = await storage.transact(lambda tx: identify(tx, odd))
    assert sorted(first) == list(range(1, len(odd) + 1))
    again = await storage.transact(lambda tx: identify(tx, ["new", *reversed(odd)]))
    assert again == [len(odd) + 1, *reversed(first)]
    assert await storage.transact(lambda tx: identify(tx, [])) == []


async def test_a_rolled_back_identifier_is_given_again(storage):
    """Ids stay dense through failures."""

    async def fail(tx):
        assert await identify(tx, ["a", "b"]) == [1, 2]
        raise KeyError

    with pytest.raises(KeyError):
        await storage.transact(fail)
    assert await storage.transact(lambda tx: identify(tx, ["c"])) == [1]


async def test_identifiers_end_at_32_bits(storage):
    """An id too large for a bitmap is an error."""
    await storage._connection.execute_fetchall("INSERT INTO identifiers VALUES (4294967295, 'last')")
    with pytest.raises(StorageUnavailable):
        await storage.transact(lambda tx: identify(tx, ["one more"]))


async def test_runs_of_scheduled_jobs(storage):
    """The last planned time never goes back; a successful run clears the error but not the count of failures."""
    runs = ScheduleRuns(storage)
    await runs.record("archive", 100, 110)
    await runs.record("archive", 200, 210, "disk on fire")
    await runs.record("report", 50, 60, "no")
    assert await runs.last() == {"archive": 200, "report": 50}
    assert await runs.failing() == {"archive": "disk on fire", "report": "no"}
    await runs.record("archive", 150, 220)
    assert await runs.last() == {"archive": 200, "report": 50}
    assert await runs.failing() == {"report": "no"}
    rows = await storage._connection.execute_fetchall("SELECT runs, failures FROM schedule_runs ORDER BY job")
    assert list(rows) == [(3, 1), (1, 1)]


# Formats


async def test_a_newer_format_is_refused_and_not_touched(tmp_path):
    """FormatTooNew leaves every byte as it was, and no thread."""
    path = tmp_path / "storage.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    connection.close()
    before = path.read_bytes()
    storage = Storage(path)
    with pytest.raises(FormatTooNew) as caught:
        await storage.open()
    assert caught.value.version == len(MIGRATIONS) + 1
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["storage.db"]
    await storage.close()
    assert _threads() == []


async def test_older_formats_are_migrated_step_by_step_or_not_at_all(tmp_path):
    """All missing steps are one transaction: a failing one leaves the version and the tables as they were."""
    steps = (("CREATE TABLE a (x)",), ("CREATE TABLE b (x)", "INSERT INTO a VALUES (1)"))
    async with aiosqlite.connect(tmp_path / "x.db", isolation_level=None) as connection:
        await migrate(connection, tmp_path, steps[:1])
        with pytest.raises(sqlite3.OperationalError):
            await migrate(connection, tmp_path, (*steps, ("CREATE TABLE c (x)", "nonsense")))
        assert await _tables(connection) == (1, ["a"])
        await migrate(connection, tmp_path, steps)
        assert await _tables(connection) == (2, ["a", "b"])
        await migrate(connection, tmp_path, steps)
        assert list(await connection.execute_fetchall("SELECT x FROM a")) == [(1,)]


async def _tables(connection):
    ((version,),) = await connection.execute_fetchall("PRAGMA user_version")
    rows = await connection.execute_fetchall("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return version, [name for (name,) in rows]


async def test_commits_are_durable(storage):
    """A checkpoint that was committed survives power loss: WAL with synchronous FULL."""
    ((journal,),) = await storage._connection.execute_fetchall("PRAGMA journal_mode")
    ((synchronous,),) = await storage._connection.execute_fetchall("PRAGMA synchronous")
    assert (journal, synchronous) == ("wal", 2)


# Failures


@pytest.mark.parametrize("content", [b"no SQLite file" * 100, None])
async def test_a_failed_open_is_typed_and_leaves_no_thread(tmp_path, content):
    """With a file that is no database, or a missing directory: StorageUnavailable, and close() returns."""
    path = tmp_path / "storage.db" if content else tmp_path / "missing" / "storage.db"
    if content:
        path.write_bytes(content)
    storage = Storage(path)
    with pytest.raises(StorageUnavailable) as caught:
        await storage.open()
    assert caught.value.path == path
    assert _threads() == []
    await storage.close()


async def test_after_damage_the_file_is_opened_again_and_checked(storage):
    """A damaged file gives errors until it is repaired; then the same Storage works again."""
    await storage.transact(lambda tx: identify(tx, [f"{i:0300d}" for i in range(2000)]))
    await storage._connection.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
    sound = storage.path.read_bytes()
    storage.path.write_bytes(sound[:8192] + b"\xff" * (len(sound) - 8192))
    await storage._connection.execute_fetchall("PRAGMA shrink_memory")
    for _ in range(2):
        with pytest.raises(StorageUnavailable):
            await storage.transact(lambda tx: identify(tx, [f"{i:0301d}" for i in range(2000)]))
    assert storage._connection is None
    storage.path.write_bytes(sound)
    assert sorted(await storage.transact(lambda tx: identify(tx, ["new"]))) == [2001]


async def test_check_reports_damage(storage):
    """check() reports problems that name the file."""
    await storage._connection.execute_fetchall("PRAGMA foreign_keys = OFF")
    await storage._connection.execute_fetchall("INSERT INTO rollup_groups VALUES (99, 0, '[]', '[1]', NULL)")
    (problem,) = await storage.check()
    assert str(storage.path) in problem
    assert "no rollup" in problem
    await storage._connection.execute_fetchall("DELETE FROM rollup_groups")


async def test_a_locked_file_is_unavailable(storage):
    """Another writer in the file, which the object's lock forbids, is a typed error and not a wait for ever."""
    await storage._connection.execute_fetchall("PRAGMA busy_timeout = 10")
    other = sqlite3.connect(storage.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageUnavailable) as caught:
        await storage.put("a", 1)
    assert caught.value.code == "SQLITE_BUSY"
    other.execute("ROLLBACK")
    other.close()
    await storage.put("a", 1)


def _run(code, path):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(path)],
        cwd=path.parent,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_an_unclosed_storage_does_not_block_the_end_of_the_interpreter(tmp_path):
    """A1: the interpreter ends though the connection is open; committed data is there."""
    done = _run(
        """
        import asyncio, os, sys
        from pathlib import Path
        from lakebed.tiers.storage.storage import Storage

        async def main():
            global storage
            storage = Storage(Path(sys.argv[1]))
            await storage.open()
            await storage.put("a", 1)

        asyncio.run(main())
        """,
        tmp_path / "storage.db",
    )
    assert done.returncode == 0, done.stderr
    assert _value(tmp_path / "storage.db", "SELECT value FROM meta") == [("1",)]


@pytest.mark.integration
@pytest.mark.parametrize("step", ["state", "checkpoint", "commit"])
def test_a_process_that_dies_leaves_both_or_neither(tmp_path, step):
    """State and checkpoint agree, at whichever statement the process dies."""
    done = _run(
        f"""
        import asyncio, os, sys
        from pathlib import Path
        from lakebed.tiers.storage.storage import Storage

        async def work(tx):
            definition = await tx.define("a", "print")
            await tx.put_groups(definition.id, [(0, "[]", "[1]", None)])
            if {step!r} == "state":
                os._exit(9)
            await tx.advance("rollup:a", 0, 1)
            if {step!r} == "checkpoint":
                os._exit(9)

        async def main():
            storage = Storage(Path(sys.argv[1]))
            await storage.open()
            await storage.transact(work)
            os._exit(9)

        asyncio.run(main())
        """,
        tmp_path / "storage.db",
    )
    assert done.returncode == 9, done.stderr
    kept = step == "commit"
    assert _value(tmp_path / "storage.db", "SELECT count(*) FROM rollup_groups") == [(int(kept),)]
    assert _value(tmp_path / "storage.db", "SELECT count(*) FROM checkpoints") == [(int(kept),)]


def _value(path, sql):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()
