import asyncio
import tempfile
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakebed.clock import ManualClock
from lakebed.disk import Disk
from lakebed.errors import LogCorrupted
from lakebed.tiers.pipeline import dedupe as module
from lakebed.tiers.pipeline.dedupe import Dedupe, SealedIds
from lakebed.tiers.pipeline.sealing import seal
from lakebed.tiers.pipeline.segment import scan
from tests.disks import FaultyDisk
from tests.tiers.pipeline.logs import ENGINE, events, held, ids, opened, write_segment


async def statuses(log, *message_ids):
    receipts = await log.append(events(*message_ids))
    assert [receipt.message_id for receipt in receipts] == list(message_ids)
    return [(receipt.status, receipt.seq) for receipt in receipts]


async def test_within_a_batch_the_first_counts(tmp_path):
    """The same id twice in one batch is stored once; the second receipt has the seq of the first."""
    async with opened(tmp_path) as log:
        assert await statuses(log, "a", "b", "a", "a") == [
            ("stored", 0),
            ("stored", 1),
            ("duplicate", 0),
            ("duplicate", 0),
        ]
        assert (ids(log), log.next_seq, log.duplicates) == (["a", "b"], 2, 2)


async def test_within_a_group_of_several_calls(tmp_path):
    """Each of the calls that share one commit gets its own receipts."""
    async with opened(tmp_path) as log:
        calls = [log.append(events("a", "b")), log.append(events("b", "c")), log.append(events("a"))]
        answers = [[(receipt.status, receipt.seq) for receipt in receipts] for receipts in await asyncio.gather(*calls)]
        assert answers == [[("stored", 0), ("stored", 1)], [("duplicate", 1), ("stored", 2)], [("duplicate", 0)]]


async def test_across_groups_sealing_and_reopening(tmp_path):
    """An id is known in the open segment, after its segment was sealed, and after reopening before and after that."""
    async with opened(tmp_path) as log:
        await statuses(log, "a")
        assert await statuses(log, "a") == [("duplicate", 0)]
        await log.seal()
        assert await statuses(log, "a", "b") == [("duplicate", 0), ("stored", 1)]
    async with opened(tmp_path) as log:
        assert await statuses(log, "b", "a") == [("duplicate", 1), ("duplicate", 0)]
        await log.seal()
    async with opened(tmp_path) as log:
        assert await statuses(log, "a", "b") == [("duplicate", 0), ("duplicate", 1)]
        assert ids(log) == ["a", "b"]


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("reopened", [False, True])
async def test_the_window_has_an_edge(tmp_path, sealed, reopened):
    """A retry exactly at the end of the window is a duplicate; a microsecond later it is a new event."""
    clock = ManualClock()
    options = {"clock": clock, "dedupe_window_s": 60}
    async with opened(tmp_path, **options) as log:
        await statuses(log, "a")
        if sealed:
            await log.seal()
        if not reopened:
            clock.advance(60)
            assert await statuses(log, "a") == [("duplicate", 0)]
            clock.advance(0.000001)
            assert await statuses(log, "a") == [("stored", 1)]
            return
    async with opened(tmp_path, **options) as log:
        clock.advance(60.000001)
        assert await statuses(log, "a", "a") == [("stored", 1), ("duplicate", 1)]
        clock.advance(60)
        assert await statuses(log, "a") == [("duplicate", 1)]


async def test_the_window_parts_the_events_of_one_sealed_segment(tmp_path):
    """Of two events in one segment the older may be out of the window while the newer is still in it."""
    clock = ManualClock()
    async with opened(tmp_path, clock=clock, dedupe_window_s=60) as log:
        await statuses(log, "a")
        clock.advance(30)
        await statuses(log, "b")
        await log.seal()
        clock.advance(31)
        assert await statuses(log, "a", "b") == [("stored", 2), ("duplicate", 1)]


async def test_the_newest_of_two_events_with_one_id_counts(tmp_path):
    """Once its window is over an id may be stored again; retries then answer with the newer seq, sealed or not."""
    clock = ManualClock()
    async with opened(tmp_path, clock=clock, dedupe_window_s=60) as log:
        for expected in range(3):
            assert await statuses(log, "a") == [("stored", expected)]
            clock.advance(30)
            assert await statuses(log, "a") == [("duplicate", expected)]
            await log.seal()
            assert await statuses(log, "a") == [("duplicate", expected)]
            clock.advance(31)


async def test_ids_are_known_while_they_are_still_read(tmp_path, monkeypatch):
    """After opening each commit moves some of the found ids into dicts; ids are known before, during and after that."""
    monkeypatch.setattr(module, "_STEP", 1)
    clock = ManualClock()
    options = {"clock": clock, "dedupe_window_s": 60}
    async with opened(tmp_path, **options) as log:
        for group in (("a", "b"), ("c",), ("d", "e")):
            await statuses(log, *group)
        clock.advance(61)
        await statuses(log, "f", "a")
        await statuses(log, "g")
    async with opened(tmp_path, **options) as log:
        dedupe = log._committer._dedupe
        assert len(dedupe) == 8
        assert await statuses(log, "g", "new", "a", "b") == [
            ("duplicate", 7),
            ("stored", 8),
            ("duplicate", 6),
            ("stored", 9),
        ]
        assert len(dedupe._unread) == 4
        assert await statuses(log, "new", "g", "b", "f") == [
            ("duplicate", 8),
            ("duplicate", 7),
            ("duplicate", 9),
            ("duplicate", 5),
        ]
        await log.seal()
        assert not dedupe._unread
        assert await statuses(log, "a", "f", "g", "b") == [
            ("duplicate", 6),
            ("duplicate", 5),
            ("duplicate", 7),
            ("duplicate", 9),
        ]


async def test_beyond_the_bound_the_oldest_segment_is_forgotten_early(tmp_path):
    """Beyond `dedupe_max_ids` the ids of the oldest sealed segment are dropped; those of newer ones stay exact."""
    async with opened(tmp_path, dedupe_max_ids=4) as log:
        for pair in (("a", "b"), ("c", "d"), ("e", "f")):
            await statuses(log, *pair)
            await log.seal()
        assert await statuses(log, "c", "f") == [("duplicate", 2), ("duplicate", 5)]
        assert await statuses(log, "a") == [("stored", 6)]


async def test_ids_of_unsealed_events_are_never_forgotten_early(tmp_path):
    """The bound affects sealed segments only: ids of unsealed events stay known."""
    async with opened(tmp_path, dedupe_max_ids=0) as log:
        await statuses(log, *"abcdef")
        assert await statuses(log, *"fa") == [("duplicate", 5), ("duplicate", 0)]


async def test_a_collision_of_hashes_drops_no_event(tmp_path, monkeypatch):
    """When all ids have the same two hashes, each event is still stored once: a hit is verified in the segment."""
    monkeypatch.setattr(module, "_low", lambda _: 1)
    monkeypatch.setattr(module, "_high", lambda _: 2)
    async with opened(tmp_path) as log:
        await statuses(log, "a", "b")
        await log.seal()
        assert await statuses(log, "c", "a", "d") == [("stored", 2), ("duplicate", 0), ("stored", 3)]
        await log.seal()
        assert await statuses(log, "e", "d", "b") == [("stored", 4), ("duplicate", 3), ("duplicate", 1)]
        assert ids(log) == list("abcde")


def packed(format_number=1, low=b"x"):
    data = msgspec.msgpack.encode([format_number, 1, low, b"y"])
    return module.google_crc32c.value(data).to_bytes(4, "little") + data


@pytest.mark.parametrize(
    "sidecar",
    [None, b"", b"\0", b"\0" * 4, b"\0" * 100, packed(2), packed(1)[:-1], b"\0\0\0\0" + packed()[4:]],
    ids=["missing", "empty", "short", "no body", "zeros", "newer", "cut", "crc"],
)
async def test_a_bad_sidecar_is_rebuilt(tmp_path, sidecar):
    """The .ids file is derived: missing, cut, zeroed or of another format, it is rebuilt from the segment."""
    async with opened(tmp_path) as log:
        await statuses(log, "a", "b")
        await log.seal()
    (path,) = tmp_path.glob("*.ids")
    if sidecar is None:
        path.unlink()
    else:
        path.write_bytes(sidecar)
    async with opened(tmp_path) as log:
        assert await statuses(log, "b", "c") == [("duplicate", 1), ("stored", 2)]


def test_a_sidecar_reads_back_as_written(tmp_path):
    """`load` reads the file of `save`, without opening the segment."""
    path = tmp_path / "0.parquet"
    written = SealedIds.of(path, 5, ["a", "b", "ü"])
    written.save()
    assert SealedIds.load(path, 5) == written


async def test_a_damaged_segment_raises(tmp_path):
    """When a possible duplicate cannot be verified the append fails with LogCorrupted."""
    async with opened(tmp_path) as log:
        await statuses(log, *(f"message-{i}" for i in range(50)))
        await log.seal()
        (path,) = tmp_path.glob("*.parquet")
        data = bytearray(path.read_bytes())
        at = data.find(b"\x28\xb5\x2f\xfd")  # a zstd frame
        while at != -1:
            data[at + 9] ^= 0xFF
            at = data.find(b"\x28\xb5\x2f\xfd", at + 1)
        path.write_bytes(data)
        with pytest.raises(LogCorrupted, match="is damaged"):
            await statuses(log, "message-7")
        assert await statuses(log, "other") == [("stored", 50)]


@pytest.mark.integration
def test_each_flipped_byte_of_a_sealed_segment_is_found_or_harmless(tmp_path):
    """With any byte of its pages changed a segment gives the right seq or LogCorrupted: pages carry checksums."""
    path, _, _ = write_segment(tmp_path, [[f"m{i}" for i in range(9)]])
    file = seal(Disk(), path, [frame.batch for frame in scan(path).frames], (), ENGINE)
    ids_ = SealedIds.of(file.path, 0, ["m7"])
    good = file.path.read_bytes()
    loud = 0
    for at in range(4, len(good) - int.from_bytes(good[-8:-4], "little") - 8):
        file.path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        try:
            assert ids_.seqs(["m7", "m8", "x"], 0) == {"m7": 7, "m8": 8}
        except LogCorrupted:
            loud += 1
    assert loud > 100


async def test_events_without_ids_are_never_duplicates(tmp_path):
    """Lakebed's own ids are unique: equal events without an id are all stored, also after reopening."""
    for expected in (3, 6):
        async with opened(tmp_path) as log:
            await log.append(events(None, None, None))
            assert len(set(ids(log))) == expected


async def test_ids_that_were_not_acknowledged_are_not_known(tmp_path):
    """After a failed commit the retry of its events is stored: unacknowledged events have no duplicates."""
    disk = FaultyDisk()
    async with opened(tmp_path, disk=disk) as log:
        await statuses(log, "a")
        disk.fail("sync", name=".log")
        with pytest.raises(OSError, match="cannot be written"):
            await log.append(events("b"))
        assert await statuses(log, "b", "a") == [("stored", 1), ("duplicate", 0)]
        assert held(log) == [(0, "a"), (1, "b")]


def test_hashes_are_stable():
    """The two hashes are CRC-32C and CRC-32 of the UTF-8: later versions of Lakebed read the sidecars of this one."""
    assert module._low("ü".encode()) == module.google_crc32c.value("ü".encode())
    assert module._high("ü".encode()) == zlib.crc32("ü".encode())
    assert (module._low(b"123456789"), module._high(b"123456789")) == (0xE3069283, 0xCBF43926)


def test_forgetting_all_segments_leaves_an_empty_index(tmp_path):
    """After every segment was pruned no id is known; ids of new segments are."""
    dedupe = Dedupe(10**9, 100)
    paths = [tmp_path / f"{i}.parquet" for i in range(2)]
    for i, path in enumerate(paths):
        dedupe.seal(i, SealedIds.of(path, 0, [f"m{i}"]))
    dedupe.forget(set(paths))
    assert (len(dedupe), dedupe.find(["m0", "m1"], 0)) == (0, {})
    dedupe.add(2, [("x", 2)], 2, 0)
    assert dedupe.find(["x", "m0"], 0) == {"x": 2}


STEPS = st.lists(
    st.one_of(
        st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5),
        st.sampled_from(["seal", "reopen"]),
        st.integers(1, 45),
    ),
    max_size=16,
)


@settings(max_examples=40)
@given(steps=STEPS)
def test_a_log_answers_as_a_dict_with_a_window(steps):
    """Appends, sealing, reopening and time in any order: statuses and seqs are those of a dict of id -> (seq, time)."""

    async def run(directory):
        clock, model, stored, last = ManualClock(), {}, [], 0
        index = iter([*steps, "reopen"])
        done = False
        while not done:
            async with opened(directory, clock=clock, promotions=(), dedupe_window_s=60) as log:
                assert held(log) == list(enumerate(stored))
                done = True
                for step in index:
                    if step == "reopen":
                        done = False
                        break
                    if step == "seal":
                        await log.seal()
                    elif isinstance(step, int):
                        clock.advance(step)
                    else:
                        last = max(clock.now_us(), last + 1)
                        expected = []
                        for message_id in step:
                            seq, at = model.get(message_id, (None, None))
                            if seq is None or at < last - 60_000_000:
                                model[message_id] = (len(stored), last)
                                expected.append(("stored", len(stored)))
                                stored.append(message_id)
                            else:
                                expected.append(("duplicate", seq))
                        assert await statuses(log, *step) == expected

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(Path(directory)))
