"""Opening a log that may have been left in the middle of anything."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow as pa

from lakebed.disk import Disk
from lakebed.errors import LogCorrupted
from lakebed.tiers.pipeline.sealing import LogFile, sealed_path
from lakebed.tiers.pipeline.segment import Frame, Scan, Segment, check_tail, scan

__all__ = ["Recovered", "Unsealed", "recover"]


class Unsealed(msgspec.Struct):
    """A log file that takes no more events and waits for sealing, or the active one: its groups in memory."""

    path: Path
    first_seq: int
    frames: list[Frame]

    @property
    def batches(self) -> list[pa.RecordBatch]:
        """Its events."""
        return [frame.batch for frame in self.frames]


class Recovered(msgspec.Struct, frozen=True):
    """What a directory holds: sealed files, then unsealed log files, the last of which is the active segment."""

    files: list[LogFile]
    unsealed: list[Unsealed]
    active: Segment | None
    next_seq: int
    last_received: int
    cut_bytes: int


def recover(disk: Disk, directory: Path) -> Recovered:
    """Read a log directory, cut a torn tail, finish interrupted sealing. Blocks.

    Raises:
        LogCorrupted: when acknowledged events are missing or do not read back; nothing was changed but leftovers.
        FormatTooNew: when a newer Lakebed wrote a file.
    """
    _remove_leftovers(disk, directory)
    files = [LogFile.read(path) for path in sorted(directory.glob("*.parquet"))]
    logs = sorted(directory.glob("*.log"))
    scans = [scan(path) for path in logs]
    for found in scans:
        if found.first_seq != int(found.path.stem):
            raise LogCorrupted(f"a segment says it starts at seq {found.first_seq}", path=found.path, offset=0)
    starts = [one.first_seq for one in files] + [one.first_seq for one in scans]
    next_seq = starts[0] if starts else 0
    last_received = 0
    for file in files:
        _check_follows(file.path, file.first_seq, next_seq)
        next_seq, last_received = file.end_seq, file.last_received
    unsealed = []
    bounds: list[int | None] = [one.first_seq for one in scans]
    for found, bound in zip(scans, [*bounds[1:], None][: len(scans)], strict=True):
        _check_follows(found.path, found.first_seq, next_seq)
        frames = _acknowledged(found, bound)
        unsealed.append(Unsealed(found.path, found.first_seq, frames))
        last_received = max(last_received, found.received_floor, *(frame.received_at for frame in frames[-1:]))
        next_seq = frames[-1].first_seq + frames[-1].count if frames else found.first_seq
    active = Segment.reopen(disk, scans[-1]) if scans else None
    return Recovered(files, unsealed, active, next_seq, last_received, scans[-1].size - scans[-1].end if scans else 0)


def _check_follows(path: Path, first_seq: int, expected: int) -> None:
    if first_seq != expected:
        raise LogCorrupted(f"the log has no segment from seq {expected} to {first_seq}", path=path, offset=0)


def _acknowledged(found: Scan, bound: int | None) -> list[Frame]:
    """The frames of a log file that count: up to the next segment's start, or all of the last one's."""
    if bound is None:
        check_tail(found)
        return found.frames
    # A segment that failed was left as it was, and a new one begun where its acknowledged events end.
    frames = [frame for frame in found.frames if frame.first_seq < bound]
    end = frames[-1].first_seq + frames[-1].count if frames else found.first_seq
    if end != bound:
        raise LogCorrupted(
            f"a segment ends at seq {end}, the next one starts at {bound}", path=found.path, offset=found.end
        )
    return frames


def _remove_leftovers(disk: Disk, directory: Path) -> None:
    """Unfinished temporary files, and log files whose Parquet file is complete."""
    leftovers = sorted(directory.glob("*.tmp"))
    for path in sorted(directory.glob("*.log")):
        sealed = sealed_path(directory, int(path.stem)) if path.stem.isdigit() else None
        if sealed is not None and sealed.exists():
            LogFile.read(sealed)  # loud, before its source goes
            leftovers.append(path)
    for path in leftovers:
        disk.remove(path)
    if leftovers:
        disk.sync_directory(directory)
