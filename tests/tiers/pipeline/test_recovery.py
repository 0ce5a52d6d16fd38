import errno
import os
import random
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakebed.clock import ManualClock
from lakebed.disk import Disk
from lakebed.errors import DiskFull, FormatTooNew, LakebedError, LogCorrupted, LogUnavailable
from lakebed.tiers.pipeline import segment as segment_module
from lakebed.tiers.pipeline.recovery import recover
from lakebed.tiers.pipeline.sealing import seal
from lakebed.tiers.pipeline.segment import HEADER_BYTES, Segment, check_tail, scan
from tests.disks import CrashDisk, FaultyDisk, put_back
from tests.tiers.pipeline.logs import (
    ENGINE,
    abandon,
    event,
    events,
    held,
    ids,
    make,
    opened,
    recovered_ids,
    with_marker,
    write_segment,
)

GROUPS = [["a", "b"], ["c"], ["d", "e", "f"]]
ALL = ["a", "b", "c", "d", "e", "f"]


def opened_ids(directory):
    """The message ids that recovery finds in a directory. Closes the segment that it opened."""
    recovered = recover(Disk(), directory)
    if recovered.active is not None:
        recovered.active.close()
    return recovered_ids(recovered)


def read_ids(path):
    segment = scan(path)
    check_tail(segment)
    return [message_id for frame in segment.frames for message_id in frame.batch.column("message_id").to_pylist()]


def sealed_log(directory, groups, first_seq):
    path, _, _ = write_segment(directory, groups, first_seq=first_seq)
    return seal(Disk(), path, [frame.batch for frame in scan(path).frames], (), ENGINE)


def test_an_empty_directory_is_an_empty_log(tmp_path):
    """A directory without files starts at seq 0."""
    recovered = recover(Disk(), tmp_path)
    assert (recovered.next_seq, recovered.files, recovered.unsealed, recovered.active) == (0, [], [], None)


@pytest.mark.integration
def test_the_last_frame_cut_at_every_byte_below_the_marker_is_corruption(tmp_path):
    """After a crash of the process the marker is exact: any missing byte below it was acknowledged."""
    path, ends, _ = write_segment(tmp_path, GROUPS)
    good = path.read_bytes()
    for cut in range(ends[-2], ends[-1]):
        path.write_bytes(good[:cut])
        with pytest.raises(LogCorrupted) as caught:
            recover(Disk(), tmp_path)
        assert (caught.value.path, caught.value.offset) == (path, ends[-2])
        assert path.stat().st_size == cut, "nothing was changed"


@pytest.mark.integration
def test_the_last_frame_cut_at_every_byte_above_the_marker_is_a_torn_tail(tmp_path):
    """After a power loss the marker may be a frame behind: a frame cut anywhere above it is dropped, others stay."""
    path, ends, markers = write_segment(tmp_path, GROUPS)
    good = with_marker(path.read_bytes(), markers[-2])
    for cut in range(ends[-2], ends[-1]):
        path.write_bytes(good[:cut])
        recovered = recover(Disk(), tmp_path)
        recovered.active.close()
        assert recovered_ids(recovered) == ALL[:3]
        assert (recovered.next_seq, recovered.cut_bytes) == (3, cut - ends[-2])
        assert path.stat().st_size == ends[-2]


def test_a_cut_below_an_earlier_marker_is_corruption(tmp_path):
    """A marker that is a frame behind still guards the frames before: cutting into them is LogCorrupted."""
    path, ends, markers = write_segment(tmp_path, GROUPS)
    good = with_marker(path.read_bytes(), markers[-2])
    for cut in range(HEADER_BYTES, ends[-2], 7):
        path.write_bytes(good[:cut])
        with pytest.raises(LogCorrupted):
            recover(Disk(), tmp_path)


def with_each_bit_flipped(path, start, end, step=1):
    """The results of reading the file with each bit between two offsets flipped: ids, or the offset of LogCorrupted."""
    good = path.read_bytes()
    with path.open("r+b", buffering=0) as file:
        for bit in range(start * 8, end * 8, step):
            at = bit // 8
            os.pwrite(file.fileno(), bytes([good[at] ^ 1 << bit % 8]), at)
            try:
                result = read_ids(path)
            except LogCorrupted as error:
                result = error.offset
            yield result
            os.pwrite(file.fileno(), good[at : at + 1], at)


@pytest.mark.integration
@pytest.mark.parametrize(("which", "step"), [(0, 7), (1, 7), (2, 1)], ids=["first", "middle", "last"])
def test_every_bit_of_a_frame_flipped_below_the_marker_is_corruption(tmp_path, which, step):
    """One flipped bit in any acknowledged frame is LogCorrupted at that frame: never a wrong event."""
    path, ends, _ = write_segment(tmp_path, [["a"], ["b"], ["c"]])
    for result in with_each_bit_flipped(path, ends[which], ends[which + 1], step):
        assert result == ends[which]


@pytest.mark.integration
def test_every_bit_of_the_last_frame_flipped_above_the_marker_cuts_it(tmp_path):
    """Above the marker a bad last frame is a torn tail: only it is dropped, and no wrong event is read."""
    path, ends, markers = write_segment(tmp_path, [["a"], ["b"]])
    path.write_bytes(with_marker(path.read_bytes(), markers[-2]))
    for result in with_each_bit_flipped(path, ends[1], ends[2]):
        assert result == ["a"]


def test_a_bad_frame_before_a_good_one_is_corruption_without_any_marker(tmp_path):
    """One frame is in flight at a time: a whole later frame proves that the bad one had been acknowledged."""
    path, ends, markers = write_segment(tmp_path, [["a"], ["b"], ["c"]])
    path.write_bytes(with_marker(path.read_bytes(), markers[0]))
    for result in with_each_bit_flipped(path, ends[1], ends[2], 3):
        assert result == ends[1]


@pytest.mark.parametrize(
    "tail",
    [
        b"\0",
        b"\0" * 5000,
        b"\xff" * 700,
        b"LBF1",
        b"LBF1" + b"\xff" * 40,
        b"LBF1" * 1000,
        random.Random(1).randbytes(3000),
    ],
    ids=["zero", "zeros", "ones", "magic", "huge length", "magics", "garbage"],
)
def test_garbage_behind_the_last_frame_is_cut(tmp_path, tail):
    """Preallocated zeros, garbage, or the start of a frame after the acknowledged bytes lose no event."""
    path, ends, _ = write_segment(tmp_path, GROUPS)
    path.write_bytes(path.read_bytes() + tail)
    recovered = recover(Disk(), tmp_path)
    recovered.active.close()
    assert (recovered_ids(recovered), recovered.cut_bytes) == (ALL, len(tail))
    assert path.stat().st_size == ends[-1]


def test_frames_recycled_from_another_file_are_not_read(tmp_path):
    """Blocks of a deleted log file that continue exactly at the end of this one have another epoch: they are cut."""
    old, ends, _ = write_segment(tmp_path / "old", GROUPS)
    recycled = old.read_bytes()[ends[1] :]  # its frames start at seq 2, as the next frame here would
    path, _, _ = write_segment(tmp_path / "new", GROUPS[:1])
    path.write_bytes(path.read_bytes() + recycled)
    assert opened_ids(tmp_path / "new") == ["a", "b"]


class WrittenDisk(FaultyDisk):
    """Records the writes."""

    def __init__(self):
        super().__init__()
        self.written = []

    def write(self, descriptor, buffers, offset):
        super().write(descriptor, buffers, offset)
        self.written.append((offset, b"".join(map(bytes, buffers))))


def test_frames_that_a_crash_left_unsynced_are_synced_before_they_are_read(tmp_path):
    """A whole frame above the marker is kept: a write may be durable though it was never acknowledged.

    It is written again first: after a failed sync the kernel marks its pages clean, and syncs none of them.
    """
    path, ends, markers = write_segment(tmp_path, GROUPS)
    sound = path.read_bytes()
    path.write_bytes(with_marker(sound, markers[-2]))
    disk = WrittenDisk()
    Segment.reopen(disk, scan(path)).close()
    assert [call for call, _ in disk.calls] == ["open", "write", "sync", "write", "close"]
    assert disk.written[0] == (ends[-2], sound[ends[-2] :])
    assert path.read_bytes() == sound
    assert opened_ids(tmp_path) == ALL
    assert scan(path).durable == ends[-1]


def test_a_missing_middle_segment_is_corruption(tmp_path):
    """A gap between two files is named with the seqs that are missing; it is never skipped."""
    write_segment(tmp_path, [["a"]])
    middle, _, _ = write_segment(tmp_path, [["b"]], first_seq=1)
    write_segment(tmp_path, [["c"]], first_seq=2)
    assert opened_ids(tmp_path) == ["a", "b", "c"]
    middle.unlink()
    with pytest.raises(LogCorrupted, match="ends at seq 1, the next one starts at 2"):
        recover(Disk(), tmp_path)


@pytest.mark.parametrize("missing", ["sealed", "log"])
def test_a_missing_segment_between_sealed_ones_is_corruption(tmp_path, missing):
    """The same between sealed files, and between the sealed ones and the log."""
    sealed_log(tmp_path, [["a"]], 0)
    if missing == "sealed":
        sealed_log(tmp_path, [["c"]], 2)
    else:
        write_segment(tmp_path, [["c"]], first_seq=2)
    with pytest.raises(LogCorrupted, match="no segment from seq 1 to 2"):
        recover(Disk(), tmp_path)


def test_a_closed_segment_that_lost_its_end_is_corruption(tmp_path):
    """Every event of a log file before the last file was acknowledged, wherever its marker is."""
    path, ends, markers = write_segment(tmp_path, GROUPS)
    write_segment(tmp_path, [["g"]], first_seq=6)
    path.write_bytes(with_marker(path.read_bytes(), markers[0])[: ends[-1] - 1])
    with pytest.raises(LogCorrupted, match="ends at seq 3, the next one starts at 6"):
        recover(Disk(), tmp_path)


def test_a_failed_frame_at_the_end_of_an_abandoned_segment_is_not_read(tmp_path):
    """A failed segment counts up to the start of the next one: its last frame, whole or torn, was not acknowledged."""
    path, ends, markers = write_segment(tmp_path, [["a"], ["b"], ["failed"]])
    path.write_bytes(with_marker(path.read_bytes(), markers[2]))
    write_segment(tmp_path, [["c"]], first_seq=2)
    assert opened_ids(tmp_path) == ["a", "b", "c"]
    path.write_bytes(path.read_bytes()[: ends[2] + 50])  # the same, torn
    assert opened_ids(tmp_path) == ["a", "b", "c"]


def test_a_file_under_a_wrong_name_is_corruption(tmp_path):
    """A segment whose header has another seq than its name was moved by hand: LogCorrupted."""
    path, _, _ = write_segment(tmp_path, GROUPS)
    path.rename(tmp_path / f"{7:020d}.log")
    with pytest.raises(LogCorrupted, match="says that a segment starts at seq 0, not "):
        recover(Disk(), tmp_path)


def test_a_log_file_whose_sealing_was_interrupted_counts_once(tmp_path):
    """With both a log file and its Parquet file, events are read once, from Parquet, and the log file is deleted."""
    path, _, _ = write_segment(tmp_path, GROUPS)
    shutil.copy(path, tmp_path / "copy")
    seal(Disk(), path, [frame.batch for frame in scan(path).frames], (), ENGINE)
    shutil.move(tmp_path / "copy", path)
    recovered = recover(Disk(), tmp_path)
    assert ([(file.first_seq, file.end_seq) for file in recovered.files], recovered.unsealed) == ([(0, 6)], [])
    assert recovered.next_seq == 6
    assert not path.exists()


def test_a_log_file_stays_when_its_parquet_file_is_bad(tmp_path):
    """A damaged Parquet file is LogCorrupted before the log file that could replace it is deleted."""
    path, _, _ = write_segment(tmp_path, GROUPS)
    path.with_suffix(".parquet").write_bytes(b"PAR1 no")
    with pytest.raises(LogCorrupted, match="is damaged"):
        recover(Disk(), tmp_path)
    assert path.exists()


def test_leftover_temporary_files_are_removed(tmp_path):
    """Leftovers of an interrupted creation or sealing are removed, and do not count."""
    write_segment(tmp_path, GROUPS)
    for name in (f"{6:020d}.log.tmp", f"{0:020d}.parquet.tmp"):
        (tmp_path / name).write_bytes(b"half")
    assert opened_ids(tmp_path) == ALL
    assert [path.suffix for path in tmp_path.iterdir()] == [".log"]


def test_a_newer_format_is_refused_and_untouched(tmp_path, monkeypatch):
    """A directory with one file of a newer Lakebed does not open, and nothing in it changes."""
    write_segment(tmp_path, GROUPS)
    monkeypatch.setattr(segment_module, "FORMAT", 2)
    write_segment(tmp_path, [["g"]], first_seq=6)
    monkeypatch.setattr(segment_module, "FORMAT", 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FormatTooNew):
        recover(Disk(), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.fixture(scope="module")
def whole_file(tmp_path_factory):
    path, _, _ = write_segment(tmp_path_factory.mktemp("fuzz"), [[f"m{i}", f"n{i}"] for i in range(12)])
    return path.read_bytes(), [f"{letter}{i}" for i in range(12) for letter in "mn"]


SLICES = st.tuples(st.integers(HEADER_BYTES, 20_000), st.integers(0, 3_000), st.binary(max_size=60))


@settings(max_examples=150)
@given(changes=st.lists(SLICES, min_size=1, max_size=3))
def test_damage_behind_the_header_is_never_silent(whole_file, tmp_path_factory, changes):
    """Parts cut out, overwritten or inserted, the marker intact: all acknowledged events are read, or it raises."""
    data, expected = whole_file
    for start, length, new in changes:
        data = data[:start] + new + data[start + length :]
    directory = tmp_path_factory.mktemp("damaged")
    (directory / f"{0:020d}.log").write_bytes(data)
    try:
        message_ids = opened_ids(directory)
    except LogCorrupted:
        return
    assert message_ids == expected


@settings(max_examples=100)
@given(
    files=st.dictionaries(
        st.sampled_from([f"{n:020d}.{end}" for n in (0, 2, 24) for end in ("log", "parquet", "ids", "log.tmp")]),
        st.one_of(st.binary(max_size=300), st.just(None)),
        max_size=4,
    )
)
def test_any_files_open_or_are_refused_with_a_typed_error(whole_file, tmp_path_factory, files):
    """With any bytes in the directory, opening finds written events or raises a LakebedError."""
    directory = tmp_path_factory.mktemp("any")
    put_back({name: whole_file[0] if data is None else data for name, data in files.items()}, directory)
    try:
        message_ids = opened_ids(directory)
    except LakebedError:
        return
    assert message_ids in ([], whole_file[1])


async def workload(directory, disk, acknowledged, handed_over):
    """Append groups, seal, prune and close; record each acknowledged event with its seq."""
    clock = ManualClock()
    log = make(directory, disk=disk, clock=clock, promotions=(), segment_events=5, retention_s=0, dedupe_window_s=50)
    await log.open()
    count = 0
    for size in (1, 3, 2, 1, 4, 1, 2, 3, 1):
        clock.advance(10)
        group = events(*(f"m{count + i}" for i in range(size)))
        handed_over.extend(item.message_id for item in group)
        count += size
        receipts = await log.append(group)
        acknowledged.extend((receipt.seq, receipt.message_id) for receipt in receipts)
        if size == 4:
            await log.seal()
    await log.seal()
    clock.advance(60)
    await log.append([event("late")])
    acknowledged.append((log.next_seq - 1, "late"))
    handed_over.append("late")
    await log.prune(9)  # consumers have passed seq 9: events before it may be deleted
    await log.close()


async def check_image(directory, acknowledged, handed_over):
    """Every acknowledged event from the log's start on is there once, at its seq; others were passed to append."""
    async with opened(directory, promotions=(), segment_events=5) as log:
        stored = held(log)
        start = log.start_seq
        assert start <= 9, "only what the consumers passed may go"
        assert [seq for seq, _ in stored] == list(range(start, log.next_seq))
        assert stored[: len(acknowledged) - start] == acknowledged[start:]
        names = [name for _, name in stored]
        assert names == handed_over[start : start + len(names)]
        (receipt,) = await log.append([event("next")])
        assert receipt.seq == start + len(stored)
        assert ids(log) == [*names, "next"]


@pytest.mark.integration
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
async def test_a_crash_at_every_file_operation_loses_nothing(tmp_path, seed):
    """Killed, or without power, before any file operation of appending, rolling, sealing, pruning or closing:

    acknowledged events are all there, once, in order, and the log goes on.
    """
    directory = tmp_path / "log"
    directory.mkdir()
    acknowledged, handed_over = [], []
    disk = CrashDisk(directory, acknowledged, random.Random(seed))
    await workload(directory, disk, acknowledged, handed_over)
    images = disk.distinct(*(["process", "power"] if seed == 0 else ["power"]))
    assert len(images) > 40
    for number, (known, image) in enumerate(images):
        target = tmp_path / str(number)
        put_back(image, target)
        await check_image(target, known, handed_over)


@pytest.mark.integration
async def test_a_crash_during_recovery_repeated_loses_nothing(tmp_path):
    """Recovery of a torn tail, of half-done sealing and of leftovers may itself be killed at every operation, twice."""
    directory = tmp_path / "log"
    acknowledged = [(i, name) for i, name in enumerate("abcdefg")]
    path, _, _ = write_segment(directory, GROUPS)
    shutil.copy(path, directory / "copy")
    seal(Disk(), path, [frame.batch for frame in scan(path).frames], (), ENGINE)
    (directory / "copy").rename(path)
    last, _, _ = write_segment(directory, [["g"]], first_seq=6)
    last.write_bytes(last.read_bytes() + b"torn")
    (directory / "left.log.tmp").write_bytes(b"half")
    rng = random.Random(3)
    generation = [{file.name: file.read_bytes() for file in directory.iterdir()}]
    checked = 0
    for depth in range(3):
        following = []
        for number, image in enumerate(generation):
            target = tmp_path / f"{depth}-{number}"
            put_back(image, target)
            disk = CrashDisk(target, acknowledged, rng)
            log = make(target, disk=disk, promotions=())
            await log.open()
            assert held(log) == acknowledged
            await abandon(log)
            following += [state for _, state in disk.distinct("process", "power")]
            checked += 1
        generation = following
    assert checked > 5


@pytest.mark.parametrize("operation", ["open", "truncate", "sync", "write", "sync_directory", "remove"])
@pytest.mark.parametrize(("code", "error"), [(errno.EIO, LogUnavailable), (errno.ENOSPC, DiskFull)])
async def test_a_disk_that_fails_while_a_log_opens_is_a_typed_error(tmp_path, operation, code, error):
    """LogUnavailable or DiskFull, not the bare OSError; no descriptor is left, and the next opening finds all."""
    path, _, _ = write_segment(tmp_path, GROUPS)
    path.write_bytes(with_marker(path.read_bytes(), b"\0" * 12) + b"torn")
    (tmp_path / "left.tmp").touch()
    disk = FaultyDisk()
    disk.fail(operation, code)
    log = make(tmp_path, disk=disk)
    with pytest.raises(error):
        await log.open()
    await log.close()
    assert not disk.open_descriptors
    async with opened(tmp_path) as log:
        assert ids(log) == ALL
