import errno

import pytest

from lakebed.disk import Disk
from lakebed.errors import FormatTooNew, LogCorrupted
from lakebed.tiers.pipeline import segment as module
from lakebed.tiers.pipeline.segment import HEADER_BYTES, Segment, check_tail, log_path, scan
from tests.disks import FaultyDisk
from tests.tiers.pipeline.logs import MARKER, NOW, batch_of, column, events, marker, with_marker, write_segment

GROUPS = [["a", "b"], ["c"], ["d", "e", "f"]]


def batch(*ids, seq=0):
    return batch_of(events(*ids), seq, NOW)


def test_groups_read_back_as_written(tmp_path):
    """Reading a log file gives its groups: ids, seqs, times and offsets."""
    path, ends, _ = write_segment(tmp_path, GROUPS, first_seq=7)
    segment = scan(path)
    assert [column(frame.batch) for frame in segment.frames] == GROUPS
    assert [frame.first_seq for frame in segment.frames] == [7, 9, 10]
    assert [frame.received_at for frame in segment.frames] == [NOW, NOW + 1, NOW + 2]
    assert [frame.end for frame in segment.frames] == ends[1:]
    assert (segment.first_seq, segment.end_seq, segment.end, segment.bad) == (7, 13, path.stat().st_size, None)
    assert segment.received_floor == NOW - 1
    assert segment.durable == segment.end


def test_a_new_segment_is_durable_under_its_name(tmp_path):
    """Creating a segment syncs the file, renames it, and syncs the directory, in that order."""
    disk = FaultyDisk()
    Segment.create(disk, tmp_path, 3, 0).close()
    name = log_path(tmp_path, 3).name
    assert disk.calls == [
        ("create", name + ".tmp"),
        ("write header", name + ".tmp"),
        ("sync", name + ".tmp"),
        ("replace", name),
        ("sync_directory", tmp_path.name),
        ("close", name + ".tmp"),
    ]


@pytest.mark.parametrize("operation", ["create", "write header", "sync", "replace", "sync_directory"])
def test_a_segment_that_cannot_be_created_leaks_nothing_and_can_be_created_later(tmp_path, operation):
    """Each step of creation may fail, twice in a row: no descriptor is left, and the third attempt succeeds."""
    disk = FaultyDisk()
    disk.fail(operation, errno.ENOSPC, times=2)
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            Segment.create(disk, tmp_path, 0, 0)
        assert disk.open_descriptors == {}
    Segment.create(disk, tmp_path, 0, 0).close()
    assert [path.name for path in tmp_path.iterdir()] == [log_path(tmp_path, 0).name]


def test_the_marker_is_written_after_the_sync_it_speaks_of(tmp_path):
    """The marker never includes bytes that are not durable: it is old after the write, and new after the sync."""
    disk = FaultyDisk()
    segment = Segment.create(disk, tmp_path, 0, 0)
    before = marker(segment.path)
    segment.append(batch("a"), 0, NOW)
    assert marker(segment.path) == before
    disk.fail("sync")
    with pytest.raises(OSError, match="Input/output"):
        segment.sync()
    assert marker(segment.path) == before
    segment.sync()
    assert scan(segment.path).durable == segment.offset
    segment.close()


def test_a_failed_write_moves_nothing(tmp_path):
    """After a write that failed half-way the offset is the end of the last whole frame."""
    disk = FaultyDisk()
    segment = Segment.create(disk, tmp_path, 0, 0)
    segment.append(batch("a"), 0, NOW)
    end = segment.offset
    disk.fail("write", errno.ENOSPC, partial=100)
    with pytest.raises(OSError, match="No space"):
        segment.append(batch("b", seq=1), 1, NOW)
    assert segment.offset == end
    segment.close()
    assert scan(segment.path).bad == end


def test_short_writes_are_completed(tmp_path, monkeypatch):
    """When each call of the system writes only a part of the bytes, the frame is still complete."""
    original = module.os.pwrite
    monkeypatch.setattr("lakebed.disk.os.pwritev", lambda fd, buffers, at: original(fd, b"".join(buffers)[:7], at))
    monkeypatch.setattr("lakebed.disk.os.pwrite", lambda fd, data, at: original(fd, data[:301], at))
    path, _, _ = write_segment(tmp_path, GROUPS)
    assert [column(frame.batch) for frame in scan(path).frames] == GROUPS


def test_a_group_too_large_to_be_read_back_is_not_written(tmp_path, monkeypatch):
    """A frame too large for recovery to read is an error at writing, before a byte of it is on disk."""
    monkeypatch.setattr(module, "_MAX_PAYLOAD_BYTES", 2_000)
    segment = Segment.create(Disk(), tmp_path, 0, 0)
    with pytest.raises(OSError, match="larger than 2000"):
        segment.append(batch(*(f"m{i}" for i in range(500))), 0, NOW)
    segment.close()
    assert segment.path.stat().st_size == HEADER_BYTES


def test_every_bit_of_the_header_is_checked(tmp_path):
    """One flipped bit in the header is LogCorrupted. In the marker it invalidates that alone, elsewhere nothing."""
    path, _, _ = write_segment(tmp_path, GROUPS)
    good = path.read_bytes()
    for bit in range(HEADER_BYTES * 8):
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        if bit // 8 < 40:
            with pytest.raises(LogCorrupted, match="header"):
                scan(path)
        else:
            segment = scan(path)
            assert [column(frame.batch) for frame in segment.frames] == GROUPS
            assert (segment.durable is None) == (MARKER.start <= bit // 8 < MARKER.stop)


@pytest.mark.parametrize("size", [0, 1, 40, HEADER_BYTES - 1])
def test_a_file_shorter_than_its_header_is_corrupted(tmp_path, size):
    """A file is complete before it gets its name, so a short one is damage, and is named with path and offset."""
    path, _, _ = write_segment(tmp_path, GROUPS)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(LogCorrupted) as caught:
        scan(path)
    assert (caught.value.path, caught.value.offset) == (path, size)


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    """A file that a newer Lakebed wrote is FormatTooNew, not corrupted, and is left as it is."""
    monkeypatch.setattr(module, "FORMAT", 2)
    path, _, _ = write_segment(tmp_path, GROUPS)
    monkeypatch.setattr(module, "FORMAT", 1)
    before = path.read_bytes()
    with pytest.raises(FormatTooNew, match="format 2"):
        scan(path)
    assert path.read_bytes() == before


def test_a_text_that_looks_like_a_frame_is_not_one(tmp_path):
    """An event may contain the bytes of a frame, even a real one of another file: a torn tail is still only torn."""
    other, ends, _ = write_segment(tmp_path / "other", GROUPS)
    frame = other.read_bytes()[ends[0] : ends[1]]
    path, ends, markers = write_segment(tmp_path, GROUPS)
    torn = with_marker(path.read_bytes()[: ends[2]], markers[2]) + b"LBF1" * 10 + frame + b"LBF1"
    path.write_bytes(torn)
    segment = scan(path)
    check_tail(segment)
    assert (segment.bad, segment.end_seq) == (ends[2], 3)


def test_reopening_cuts_syncs_and_continues(tmp_path):
    """A reopened segment is cut after its last whole frame, is durable, and accepts the next group."""
    path, ends, markers = write_segment(tmp_path, GROUPS)
    path.write_bytes(with_marker(path.read_bytes()[:-5], markers[2]))
    disk = FaultyDisk()
    segment = Segment.reopen(disk, scan(path))
    assert disk.calls[:3] == [("open", path.name), ("truncate", path.name), ("sync", path.name)]
    assert path.stat().st_size == ends[2]
    segment.append(batch("x", seq=3), 3, NOW + 9)
    segment.sync()
    segment.close()
    assert [column(frame.batch) for frame in scan(path).frames] == [*GROUPS[:2], ["x"]]


@pytest.mark.parametrize("operation", ["open", "truncate", "sync"])
def test_reopening_that_fails_leaks_nothing(tmp_path, operation):
    """When the disk fails while a segment is reopened, the error is raised and no descriptor is left."""
    path, _, markers = write_segment(tmp_path, GROUPS)
    path.write_bytes(with_marker(path.read_bytes()[:-5], markers[2]))
    disk = FaultyDisk()
    disk.fail(operation)
    with pytest.raises(OSError, match="Input/output"):
        Segment.reopen(disk, scan(path))
    assert disk.open_descriptors == {}
