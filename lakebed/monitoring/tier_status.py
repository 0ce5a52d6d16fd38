"""TierStatus: the contents of each tier, and the position of each consumer of the log.

Monitoring reads the parts of one open object, and changes none of them.
"""

from __future__ import annotations

import asyncio
import shutil
from datetime import date, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from lakebed.clock import from_us
from lakebed.concurrency import run_in_thread
from lakebed.errors import LakebedError
from lakebed.identity.identity import CONSUMER
from lakebed.monitoring.parts import MonitoredParts
from lakebed.rollups.fold import consumer_of
from lakebed.tiers.archive.models import DataFile, Snapshot

__all__ = ["LogStatus", "SnapshotInfo", "TierStatus", "tier_status"]


_SNAPSHOTS = 20
_DAILY = "daily_metrics"


class CounterStatus(msgspec.Struct, frozen=True):
    """L0. Attributes: live keys, the maximum, and the keys that were evicted early."""

    keys: int
    max_keys: int
    evicted: int


class LogStatus(msgspec.Struct, frozen=True):
    """L1.

    Attributes:
        first_seq: the first position in the log; `next_seq` is the one after the last. Events and the operator's
            documents have positions.
        segments: number of sealed files; `sealed_bytes` is their size on disk.
        tail_events: events in memory that are not sealed yet (they are on disk too, in a log file).
        tail_bytes: their size in memory.
        pending: events that wait for a commit.
    """

    first_seq: int
    next_seq: int
    segments: int
    sealed_bytes: int
    tail_events: int
    tail_bytes: int
    pending: int


class Consumer(msgspec.Struct, frozen=True):
    """A consumer of the log: a rollup, the archive and others.

    Attributes:
        next_seq: events before it are in its durable state.
        lag: events of the log that are not in it yet.
    """

    name: str
    next_seq: int
    lag: int


class SnapshotInfo(msgspec.Struct, frozen=True):
    """A snapshot of the archive, as `Snapshot`. `id` is text: JavaScript's numbers cannot hold it."""

    id: str
    committed_at: datetime
    watermark: int | None
    operation: str
    rows: int
    tags: tuple[str, ...]


class ArchiveStatus(msgspec.Struct, frozen=True):
    """L3.

    Attributes:
        watermark: every event with a lower `seq` is in it, as last seen by this object.
        files, rows, bytes: of the newest snapshot, the operator's documents included; None if there is `trouble`.
        snapshots: the newest 20, newest first; None likewise.
        snapshots_kept: number of snapshots.
        trouble: "" or "busy" (a run that takes long) or "unavailable" (catalog or warehouse do not answer).
    """

    watermark: int
    files: int | None = None
    rows: int | None = None
    bytes: int | None = None
    snapshots: list[SnapshotInfo] | None = None
    snapshots_kept: int | None = None
    trouble: str = ""


class DiskStatus(msgspec.Struct, frozen=True):
    """The file system of the object's directory, in bytes. Under `headroom` free, events are refused."""

    free: int
    total: int
    headroom: int


class TierStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of each tier. Of one moment, except for the archive, which is read last.

    Attributes:
        counters: L0.
        log: L1.
        storage_bytes: L2: the SQLite file with its write-ahead log.
        consumers: of the log, by descending `lag`; 0 is up to date. Reading an answer brings its consumer up to date,
            the hourly job all of them.
        archive: L3.
        disk: the file system of all of them.
        first_day, last_day: of events' timestamps (UTC), as far as `daily_metrics` is up to date; None if it is empty.
    """

    counters: CounterStatus
    log: LogStatus
    storage_bytes: int
    consumers: list[Consumer]
    archive: ArchiveStatus
    disk: DiskStatus
    first_day: date | None
    last_day: date | None


class _OnDisk(NamedTuple):
    free: int
    total: int
    storage: int


async def tier_status(parts: MonitoredParts, *, archive_timeout_s: float = 2.0) -> TierStatus:
    """Read the status of every tier, without changing any and without waiting long for one.

    Args:
        parts: the open object's.
        archive_timeout_s: seconds after which an archive that does not answer is "busy".

    Raises:
        StorageUnavailable: SQLite cannot be read.
        ObjectUnavailable: the directory cannot be read.
    """
    statistics = parts.counters.statistics()
    checkpoints = {consumer_of(rollup.name): 0 for rollup in parts.rollups.rollups} | await parts.storage.checkpoints()
    days = (await parts.rollups.table(_DAILY))["date"].to_pylist()
    disk = await run_in_thread("tier-status", lambda: _on_disk(parts.directory))
    log = _log(parts)
    # Events that identity has read since its last checkpoint changed nothing, so its state includes them.
    checkpoints |= {"archive": parts.maintenance.watermark, CONSUMER: parts.identity.position}
    consumers = [Consumer(name, seq, max(0, log.next_seq - seq)) for name, seq in checkpoints.items()]
    return TierStatus(
        counters=CounterStatus(statistics.keys, statistics.max_keys, statistics.evicted),
        log=log,
        storage_bytes=disk.storage,
        consumers=sorted(consumers, key=lambda consumer: (-consumer.lag, consumer.name)),
        archive=await _archive(parts, archive_timeout_s),
        disk=DiskStatus(disk.free, disk.total, parts.settings.headroom_bytes),
        first_day=min(days, default=None),
        last_day=max(days, default=None),
    )


def _log(parts: MonitoredParts) -> LogStatus:
    pipeline = parts.pipeline
    with pipeline.view() as view:
        return LogStatus(
            first_seq=view.start_seq,
            next_seq=view.end_seq,
            segments=len(view.files),
            sealed_bytes=pipeline.sealed_bytes,
            tail_events=view.tail.num_rows,
            tail_bytes=pipeline.tail_bytes,
            pending=pipeline.pending_events,
        )


def _on_disk(directory: Path) -> _OnDisk:
    usage = shutil.disk_usage(directory)
    storage = sum(path.stat().st_size for path in directory.glob("storage.db*") if path.is_file())
    return _OnDisk(usage.free, usage.total, storage)


async def _archive(parts: MonitoredParts, timeout_s: float) -> ArchiveStatus:
    watermark = parts.maintenance.watermark
    try:
        async with asyncio.timeout(timeout_s):
            async with parts.archive.pin() as view:
                files: tuple[DataFile, ...] = view.files
            snapshots = await parts.archive.snapshots()
    except TimeoutError:  # its one thread is compacting, or a catalog is slow; the other tiers do not wait for it
        return ArchiveStatus(watermark, trouble="busy")
    except LakebedError:  # check() reports it; here the other tiers matter too
        return ArchiveStatus(watermark, trouble="unavailable")
    return ArchiveStatus(
        watermark=watermark,
        files=len(files),
        rows=sum(file.rows for file in files),
        bytes=sum(file.bytes for file in files),
        snapshots=[_snapshot_info(snapshot) for snapshot in reversed(snapshots[-_SNAPSHOTS:])],
        snapshots_kept=len(snapshots),
    )


def _snapshot_info(snapshot: Snapshot) -> SnapshotInfo:
    return SnapshotInfo(
        str(snapshot.id),
        from_us(snapshot.committed_us),
        snapshot.watermark,
        snapshot.operation,
        snapshot.rows,
        snapshot.tags,
    )
