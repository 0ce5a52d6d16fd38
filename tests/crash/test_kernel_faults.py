"""Faults injected into the kernel's calls: the whole engine runs in its own process, under strace."""

import random

import pytest

from tests.faults.engine_under_strace import SETTINGS, TODAY, Shop

LOG = "shop/log/00000000000000000000.log"
WAL = "shop/storage.db-wal"


def acknowledged(results):
    """The message ids that a process acknowledged as stored, with their seqs."""
    receipts = [result for step, result in results if isinstance(result, list) and step in ("track", "again", "large")]
    return {name: seq for status, seq, name in receipts if status == "stored"}


def errors(results):
    return [result["error"] for _, result in results if isinstance(result, dict)]


async def tracked(root, count):
    """What this process was promised for so many events, in an object that no fault has met."""
    async with Shop("shop", root=root, **SETTINGS) as shop:
        receipts = [
            await shop.track("e", {"plan": "free"}, user_id="u", message_id=f"m{number}", timestamp=TODAY)
            for number in range(count)
        ]
    return {receipt.message_id: receipt.seq for receipt in receipts}


async def audit(root, promised, *, more=0):
    """Open the object again: each promised event is there once at its seq, with at most `more` events in flight."""
    async with Shop("shop", root=root, headroom_bytes=0) as shop:
        rows = (await shop.query("SELECT message_id, seq FROM events ORDER BY seq")).rows
        stored = {row[0]: row[1] for row in rows}
        assert len(stored) == len(rows)
        assert [row[1] for row in rows] == list(range(len(rows)))
        assert promised.items() <= stored.items()
        assert len(stored) <= len(promised) + more
        days = (await shop.dau(start=TODAY, end=TODAY)).rows
        assert sum(row[2] for row in days) == len(stored)
        assert (await shop.query("SELECT coalesce(sum(n), 0)::BIGINT FROM plans")).scalar() == len(stored)
        assert await shop.check() == []


@pytest.mark.parametrize(
    ("call", "number"),
    [
        ("pwritev2", 9),
        ("fdatasync", 2),
        *(pytest.param("pwritev2", number, marks=pytest.mark.slow) for number in (2, 3, 4)),
        pytest.param("fdatasync", 5, marks=pytest.mark.slow),
    ],
)
async def test_l1_01_killed_at_a_system_call(tmp_path, strace, call, number):
    """kill -9 as the log enters its Nth write or sync: each acknowledged event is there, once, without gaps."""
    results, code, calls = strace(tmp_path, ["track"] * 8, inject=f"{call}:signal=KILL:when={number}")
    assert code == -9
    assert calls
    await audit(tmp_path, acknowledged(results), more=1)


@pytest.mark.parametrize("call", ["pwritev2", "fdatasync"])
async def test_l1_05_interrupted_system_calls(tmp_path, strace, call):
    """EINTR at every second write, or sync, of the log causes no error and loses no event."""
    results, code, calls = strace(tmp_path, ["track"] * 6, inject=f"{call}:error=EINTR:when=2+2", path=LOG)
    assert code == 0
    assert sum("EINTR" in call for call in calls) >= 2
    assert errors(results) == []
    assert len(acknowledged(results)) == 6
    await audit(tmp_path, acknowledged(results))


# No segment ends by itself, so that no sealing frees space at an unplanned moment.
_FILL = """
export SEGMENT_EVENTS=1000
mount -t tmpfs -o size=4m lakebed "$3"
dd if=/dev/zero of="$3/ballast" bs=1M count=1 status=none
"""


def test_l1_06_a_full_file_system(tmp_path, namespace):
    """On a full file system: DiskFull, and reads go on. After space is freed the retry and every answer are exact.

    The disk fills up in the middle of a record or of a new segment, wherever that falls. The file system goes with the
    process, so the program itself opens the object again and counts.
    """
    full = ["fill", "again", "dau", "archive", "count"]
    steps = ["rollup", *full, "roomier", "large", "track", "rollup", "archive", "reopen", "count", "check"]
    results = namespace(tmp_path, _FILL, steps)
    answers = dict(results)
    stored = len(acknowledged(results))
    assert stored > 20
    assert errors(results) == ["DiskFull", "DiskFull", "StorageUnavailable", "LogUnavailable"], "while it is full"
    assert [result for step, result in results if step == "count"] == [stored - 2, stored]
    assert answers["rollup"] == answers["archive"] == stored
    assert answers["check"] == []


@pytest.mark.parametrize("number", [3, *(pytest.param(number, marks=pytest.mark.slow) for number in (2, 4))])
async def test_l1_07_eio_on_the_nth_sync(tmp_path, strace, number):
    """A failed sync is never repeated on that file: later acknowledgements and the retry use a new one."""
    steps = ["track", "track", "track", "again", "track", "count"]
    results, code, calls = strace(tmp_path, steps, inject=f"fdatasync:error=EIO:when={number}", path=LOG)
    assert code == 0
    assert "EIO" in calls[-1], "the file was synced again"
    assert len(calls) == number
    assert errors(results) == ["LogUnavailable"]
    stored = acknowledged(results)
    assert results[-2] == ("count", len(stored))
    await audit(tmp_path, stored, more=1)


_READ_ONLY = 'mount --bind "$3" "$3"; mount -o remount,bind,ro "$3"'


async def test_l1_14_a_read_only_file_system(tmp_path, namespace):
    """An object on a file system that is mounted read-only does not open, says so in a typed error, and is unharmed."""
    promised = await tracked(tmp_path, 6)
    assert namespace(tmp_path, _READ_ONLY, ["track"]) == [("open", {"error": "ObjectUnavailable", "code": None})]
    await audit(tmp_path, promised)


@pytest.mark.parametrize("number", [8, *(pytest.param(number, marks=pytest.mark.slow) for number in (4, 6))])
async def test_l2_19_eio_on_the_sync_of_the_wal(tmp_path, strace, number):
    """The call that fails is StorageUnavailable; tracking goes on; later rollups are exact, also in a new process."""
    steps = ["track", "track", "rollup", "track", "dau", "rollup", "track", "dau", "plans", "count", "check"]
    results, code, calls = strace(tmp_path, steps, inject=f"fdatasync:error=EIO:when={number}", path=WAL)
    assert code == 0
    assert any("EIO" in call for call in calls)
    assert errors(results) in ([], ["StorageUnavailable"]), "a checkpoint that fails costs nothing"
    assert all(result["code"] == "SQLITE_IOERR_FSYNC" for _, result in results if isinstance(result, dict))
    stored = acknowledged(results)
    if results[0][0] != "open":
        assert len(stored) == 4
        failed = [step for step, result in results if isinstance(result, dict)]
        expected = {"plans": 4, "count": 4, "check": []}
        assert {step: result for step, result in results if step in expected and step not in failed} == {
            step: result for step, result in expected.items() if step not in failed
        }
    await audit(tmp_path, stored)


@pytest.mark.parametrize("number", [9, *(pytest.param(number, marks=pytest.mark.slow) for number in (1, 13))])
async def test_l2_16_killed_while_the_wal_is_written(tmp_path, strace, number):
    """kill -9 as SQLite enters its Nth write of the WAL, in a rollup's transaction: state and checkpoint agree."""
    await tracked(tmp_path, 3)
    results, code, _ = strace(tmp_path, ["track", "rollup"], inject=f"pwrite64:signal=KILL:when={number}", path=WAL)
    assert code in (-9, 0)
    async with Shop("shop", root=tmp_path, headroom_bytes=0) as shop:
        assert (await shop.dau(start=TODAY, end=TODAY))[0].events == 3 + len(acknowledged(results))
        assert await shop.check() == []
    assert code == -9, "there were not as many writes"


# The number of calls of each kind that one thread of the program makes, about.
_CALLS = {"pwritev2": 14, "pwrite64": 34, "pread64": 24, "fdatasync": 14, "fsync": 14, "rename": 4, "unlink": 6}
_LOADER_READS = 3  # the dynamic loader's own calls of pread64, before Python runs: if one fails, there is no process
_FAULTS = ("error=EIO", "error=ENOSPC", "signal=KILL")
_LIFE = "track track rollup track archive track track dau archive plans count check reopen track dau archive count"


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(100) if seed != 1)])
async def test_any_system_call_may_fail(tmp_path, strace, seed):
    """Any system call fails once or three times in a row, or kills: errors are typed, and nothing is lost.

    The seed chooses. The test fails on any error that is no LakebedError, and if the process ends by itself.
    """
    rng = random.Random(seed)
    results, _, _ = strace(
        tmp_path, ["track", "archive", "track", "rollup", "track"], inject="fsync:error=EIO:when=9999"
    )
    before = acknowledged(results)
    call = rng.choice(list(_CALLS))
    number = rng.randint(1, _CALLS[call]) + (_LOADER_READS if call == "pread64" else 0)
    when = rng.choice([f"{number}", f"{number}..{number + 2}"])
    results, code, _ = strace(tmp_path, _LIFE.split(), inject=f"{call}:{rng.choice(_FAULTS)}:when={when}")
    assert code in (0, -9)
    await audit(tmp_path, before | acknowledged(results), more=len(errors(results)) + 1)
