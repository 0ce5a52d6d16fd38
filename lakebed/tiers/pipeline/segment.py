"""One log file: a header, a durable marker and CRC-framed Arrow batches.

Layout, little endian. Header (128 bytes): magic 8, format u32, epoch u64, first seq u64, received floor i64, crc32c
u32; at byte 64 the marker: durable offset u64, crc32c u32 over epoch and offset. Frames: magic 4, payload length u32,
crc32c u32, first seq u64, count u32, received_at i64, then one Arrow IPC record batch. The CRC covers the epoch (so
bytes recycled from another file never pass), the frame's header and its payload.

The marker is written after each sync, and is not synced itself: after a crash of the process the marker is exact, after
a power loss it may be a frame behind. The marker tells corruption (a bad frame below the marker was acknowledged) from
a torn tail (above the marker).
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import msgspec
import pyarrow as pa

from lakebed.disk import Disk
from lakebed.errors import FormatTooNew, LogCorrupted
from lakebed.events.event import SCHEMA

__all__ = ["FORMAT", "HEADER_BYTES", "Frame", "Segment", "SegmentScan", "check_tail", "log_path", "scan"]

FORMAT = 1
HEADER_BYTES = 128
_MAX_PAYLOAD_BYTES = 1 << 30
_MAGIC = b"LAKEBED\n"
_FRAME_MAGIC = b"LBF1"
_MARKER_AT = 64
_HEADER = struct.Struct("<8sIQQq")
_MARKER = struct.Struct("<Q")
_EPOCH = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_FRAME = struct.Struct("<4sIIQIq")
_FRAME_REST = struct.Struct("<IQIq")  # the part of a frame's header that the CRC covers


class Frame(msgspec.Struct, frozen=True):
    """A commit as read from disk: `batch` has `count` rows from `first_seq` on; `end` is the offset after the frame."""

    first_seq: int
    count: int
    received_at: int
    batch: pa.RecordBatch
    end: int


class SegmentScan(msgspec.Struct, frozen=True):
    """The contents of a log file. `bad`: the end of the valid frames if file or marker go beyond it, else None."""

    path: Path
    epoch: int
    first_seq: int
    received_floor: int
    durable: int | None
    frames: list[Frame]
    size: int
    bad: int | None

    @property
    def end_seq(self) -> int:
        """The seq after the last whole frame."""
        return self.frames[-1].first_seq + self.frames[-1].count if self.frames else self.first_seq

    @property
    def end(self) -> int:
        """The offset after the last whole frame."""
        return self.frames[-1].end if self.frames else HEADER_BYTES


def log_path(directory: Path, first_seq: int) -> Path:
    """The path of the log file that starts at `first_seq`."""
    return directory / f"{first_seq:020d}.log"


def _frame_crc(epoch: int, rest: bytes, payload: bytes | memoryview | pa.Buffer) -> int:
    crc = google_crc32c.value(_EPOCH.pack(epoch) + rest)
    return int(google_crc32c.extend(crc, payload if isinstance(payload, bytes) else memoryview(payload).tobytes()))


class Segment:
    """The log file to which a log appends. Used by one thread; every method blocks, and may raise OSError.

    After an OSError the segment must be abandoned: the last bytes of the file are unknown.
    """

    def __init__(self, disk: Disk, path: Path, descriptor: int, epoch: int, first_seq: int, offset: int) -> None:
        self.path = path
        self.first_seq = first_seq
        self.offset = offset
        self._disk = disk
        self._descriptor = descriptor
        self._epoch = epoch

    @classmethod
    def create(cls, disk: Disk, directory: Path, first_seq: int, received_floor: int) -> Segment:
        """A new, durable, empty segment. Replaces a file with the same first seq, which has no acknowledged event."""
        path = log_path(directory, first_seq)
        temporary = path.with_suffix(".log.tmp")
        temporary.unlink(missing_ok=True)
        epoch = int.from_bytes(os.urandom(8))
        packed = _HEADER.pack(_MAGIC, FORMAT, epoch, first_seq, received_floor)
        header = bytearray(HEADER_BYTES)
        header[: len(packed)] = packed
        _CRC.pack_into(header, len(packed), google_crc32c.value(packed))
        header[_MARKER_AT : _MARKER_AT + 12] = _marker(epoch, HEADER_BYTES)
        descriptor = disk.create(temporary)
        try:
            disk.write(descriptor, [bytes(header)], 0)
            disk.sync(descriptor)
            disk.replace(temporary, path)
            disk.sync_directory(directory)
        except BaseException:
            disk.close(descriptor)
            raise
        return cls(disk, path, descriptor, epoch, first_seq, HEADER_BYTES)

    @classmethod
    def reopen(cls, disk: Disk, contents: SegmentScan) -> Segment:
        """The segment of a scan, cut after the last whole frame, ready for the next frame."""
        path, end = contents.path, contents.end
        descriptor = disk.open(path)
        segment = cls(disk, path, descriptor, contents.epoch, contents.first_seq, end)
        try:
            if contents.size > end:
                disk.truncate(descriptor, end)
            # Frames that a crash left unsynced are kept from now on, so they must be durable before they are read. They
            # are written again: after a failed sync the system regards such bytes as clean, and syncs nothing.
            if (start := contents.durable or HEADER_BYTES) < end:
                disk.write(descriptor, [path.read_bytes()[start:end]], start)
            disk.sync(descriptor)
            segment.mark_durable()
        except BaseException:
            disk.close(descriptor)
            raise
        return segment

    def append(self, batch: pa.RecordBatch, first_seq: int, received_at: int) -> None:
        """Write one frame. The frame is durable after the next `sync`."""
        payload = batch.serialize()
        if payload.size > _MAX_PAYLOAD_BYTES:  # a larger frame would be durable but unreadable
            raise OSError(errno.EFBIG, f"a group of {payload.size} bytes is larger than {_MAX_PAYLOAD_BYTES}")
        rest = _FRAME_REST.pack(payload.size, first_seq, batch.num_rows, received_at)
        crc = _frame_crc(self._epoch, rest, payload)
        header = _FRAME.pack(_FRAME_MAGIC, payload.size, crc, first_seq, batch.num_rows, received_at)
        self._disk.write(self._descriptor, [header, memoryview(payload)], self.offset)
        self.offset += len(header) + payload.size

    def sync(self) -> None:
        """Make all frames durable, then write their end to the marker."""
        self._disk.sync(self._descriptor)
        self.mark_durable()

    def mark_durable(self) -> None:
        """Write to the marker that all bytes so far are durable. The marker becomes durable with the next sync."""
        self._disk.write(self._descriptor, [_marker(self._epoch, self.offset)], _MARKER_AT)

    def close(self) -> None:
        """Close the descriptor. Does not sync."""
        self._disk.close(self._descriptor)


def _marker(epoch: int, offset: int) -> bytes:
    packed = _MARKER.pack(offset)
    return packed + _CRC.pack(google_crc32c.value(_EPOCH.pack(epoch) + packed))


def scan(path: Path) -> SegmentScan:
    """Read a log file up to its first bad byte. Blocks.

    Raises:
        LogCorrupted: the header of the file is damaged.
        FormatTooNew: a newer Lakebed wrote the file.
    """
    data = path.read_bytes()
    if len(data) < HEADER_BYTES:
        raise LogCorrupted("a segment is shorter than its header", path=path, offset=len(data))
    magic, version, epoch, first_seq, floor = _HEADER.unpack_from(data)
    (crc,) = _CRC.unpack_from(data, _HEADER.size)
    if magic != _MAGIC or crc != google_crc32c.value(data[: _HEADER.size]):
        raise LogCorrupted("a segment's header is damaged", path=path, offset=0)
    if version > FORMAT:
        raise FormatTooNew(
            f"{path} has format {version}, this Lakebed reads up to {FORMAT}", hint="Upgrade Lakebed", path=path
        )
    (durable,) = _MARKER.unpack_from(data, _MARKER_AT)
    marked = data[_MARKER_AT : _MARKER_AT + 12] == _marker(epoch, durable)
    buffer = pa.py_buffer(data)
    frames = list(_frames(buffer, data, epoch, first_seq))
    end = frames[-1].end if frames else HEADER_BYTES
    return SegmentScan(
        path=path,
        epoch=epoch,
        first_seq=first_seq,
        received_floor=floor,
        durable=durable if marked else None,
        frames=frames,
        size=len(data),
        bad=end if end < len(data) or (marked and end < durable) else None,
    )


def _frames(buffer: pa.Buffer, data: bytes, epoch: int, first_seq: int) -> Iterator[Frame]:
    offset, seq = HEADER_BYTES, first_seq
    while (frame := _frame_at(buffer, data, offset, epoch)) is not None and frame.first_seq == seq:
        yield frame
        offset, seq = frame.end, seq + frame.count


def _frame_at(buffer: pa.Buffer, data: bytes, offset: int, epoch: int) -> Frame | None:
    if offset + _FRAME.size > len(data):
        return None
    magic, length, crc, first_seq, count, received_at = _FRAME.unpack_from(data, offset)
    start = offset + _FRAME.size
    if magic != _FRAME_MAGIC or length > _MAX_PAYLOAD_BYTES or start + length > len(data):
        return None
    payload = buffer.slice(start, length)
    if crc != _frame_crc(epoch, _FRAME_REST.pack(length, first_seq, count, received_at), payload):
        return None
    return Frame(first_seq, count, received_at, pa.ipc.read_record_batch(payload, SCHEMA), start + length)


def check_tail(contents: SegmentScan) -> None:
    """Tell a torn tail, which may be cut, from corruption, which must not be cut.

    Raises:
        LogCorrupted: the bad bytes were acknowledged: they are below the marker, or a whole frame follows them (with
            one frame in flight at a time, a later frame proves that the earlier frame was synced).
    """
    path, bad = contents.path, contents.bad
    if bad is None:
        return
    if contents.durable is not None and bad < contents.durable:
        raise LogCorrupted("an acknowledged frame is damaged", path=path, offset=bad)
    data = path.read_bytes()
    buffer = pa.py_buffer(data)
    offset = data.find(_FRAME_MAGIC, bad + 1)
    while offset != -1:
        if _frame_at(buffer, data, offset, contents.epoch) is not None:
            raise LogCorrupted("a frame before the last one is damaged", path=path, offset=bad)
        offset = data.find(_FRAME_MAGIC, offset + 1)
