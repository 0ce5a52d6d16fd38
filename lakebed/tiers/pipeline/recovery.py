"""Opens a log, also after a crash at any moment."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import msgspec
import pyarrow as pa

from lakebed.disk import Disk
from lakebed.errors import LogCorrupted
from lakebed.tiers.pipeline.sealing import SealedFile, sealed_path
from lakebed.tiers.pipeline.segment import Frame, Segment, SegmentScan, check_tail, scan

__all__ = ["RecoveredLog", "UnsealedSegment", "recover"]


class UnsealedSegment(msgspec.Struct):
    """The groups, in memory, of a log file that waits for sealing or that is the active segment."""

    path: Path
    first_seq: int
    frames: list[Frame]

    @property
    def batches(self) -> list[pa.RecordBatch]:
        """The events of the segment."""
        return [frame.batch for frame in self.frames]


class RecoveredLog(msgspec.Struct, frozen=True):
    """The contents of a log directory: sealed files, then unsealed segments. The last unsealed segment is `active`."""

    files: list[SealedFile]
    unsealed: list[UnsealedSegment]
    active: Segment | None
    next_seq: int
    last_received: int
    cut_bytes: int


def recover(disk: Disk, directory: Path) -> RecoveredLog:
    """Read a log directory, cut a torn tail, finish interrupted sealing. Blocks.

    Raises:
        LogCorrupted: acknowledged events are missing or damaged. Only leftover files were removed.
        FormatTooNew: a newer Lakebed wrote a file.
    """
    _remove_leftovers(disk, directory)
    files = [SealedFile.read(path) for path in sorted(directory.glob("*.parquet"))]
    logs = sorted(directory.glob("*.log"))
    scans = [scan(path) for path in logs]
    for segment in scans:
        if segment.first_seq != int(segment.path.stem):
            message = f"the header says that a segment starts at seq {segment.first_seq}, not {int(segment.path.stem)}"
            raise LogCorrupted(message, path=segment.path, offset=0)
    first_seqs = [file.first_seq for file in files] + [segment.first_seq for segment in scans]
    next_seq = first_seqs[0] if first_seqs else 0
    last_received = 0
    for file in files:
        _check_follows(file.path, file.first_seq, next_seq)
        next_seq, last_received = file.end_seq, file.last_received
    unsealed = []
    for segment, following in zip_longest(scans, scans[1:]):
        _check_follows(segment.path, segment.first_seq, next_seq)
        frames = _acknowledged(segment, None if following is None else following.first_seq)
        unsealed.append(UnsealedSegment(segment.path, segment.first_seq, frames))
        last_received = max(last_received, segment.received_floor, *(frame.received_at for frame in frames[-1:]))
        next_seq = frames[-1].first_seq + frames[-1].count if frames else segment.first_seq
    active = Segment.reopen(disk, scans[-1]) if scans else None
    return RecoveredLog(
        files, unsealed, active, next_seq, last_received, scans[-1].size - scans[-1].end if scans else 0
    )


def _check_follows(path: Path, first_seq: int, expected: int) -> None:
    if first_seq != expected:
        raise LogCorrupted(f"the log has no segment from seq {expected} to {first_seq}", path=path, offset=0)


def _acknowledged(segment: SegmentScan, next_first_seq: int | None) -> list[Frame]:
    """The frames with acknowledged events: all frames before the next segment's first seq, or all if there is none."""
    if next_first_seq is None:
        check_tail(segment)
        return segment.frames
    # After a failed write, a segment is left as it is; a new segment starts where the acknowledged events end.
    frames = [frame for frame in segment.frames if frame.first_seq < next_first_seq]
    end = frames[-1].first_seq + frames[-1].count if frames else segment.first_seq
    if end != next_first_seq:
        message = f"a segment ends at seq {end}, the next one starts at {next_first_seq}"
        raise LogCorrupted(message, path=segment.path, offset=segment.end)
    return frames


def _remove_leftovers(disk: Disk, directory: Path) -> None:
    """Remove unfinished temporary files, and log files whose Parquet file is complete."""
    leftovers = sorted(directory.glob("*.tmp"))
    for path in sorted(directory.glob("*.log")):
        sealed = sealed_path(directory, int(path.stem)) if path.stem.isdigit() else None
        if sealed is not None and sealed.exists():
            SealedFile.read(sealed)  # raises if the file is damaged, before the log file is removed
            leftovers.append(path)
    for path in leftovers:
        disk.remove(path)
    if leftovers:
        disk.sync_directory(directory)
