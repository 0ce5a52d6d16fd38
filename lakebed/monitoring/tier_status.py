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
    """Status of L0: number of live keys, its maximum, and number of keys that were evicted early."""

    keys: int
    max_keys: int
    evicted: int


class LogStatus(msgspec.Struct, frozen=True):
    """Status of L1.

    Attributes:
        first_seq: the first position in the log; `next_seq` is the position after the last. Events and the operator's
            documents have positions.
        segments: number of sealed files; `sealed_bytes` is their size on disk.
        tail_events: events in memory that are not sealed yet (they are on disk too, in a log file).
        tail_bytes: size in memory of the events that are not sealed yet.
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
    """A consumer of the log: a rollup, the archive or another.

    Attributes:
        next_seq: the consumer's durable state has all events before this position.
        lag: number of positions of the log that the consumer has not processed yet.
    """

    name: str
    next_seq: int
    lag: int


class SnapshotInfo(msgspec.Struct, frozen=True):
    """A snapshot of the archive, with the fields of `Snapshot`. `id` is text: JavaScript's numbers cannot hold it."""

    id: str
    committed_at: datetime
    watermark: int | None
    operation: str
    rows: int
    tags: tuple[str, ...]


class ArchiveStatus(msgspec.Struct, frozen=True):
    """Status of L3.

    Attributes:
        watermark: the archive has every event with a lower `seq`; the value that this object has last seen.
        files, rows, bytes: size of the newest snapshot, the operator's documents included; None if there is `trouble`.
        snapshots: the newest 20 snapshots, newest first; None if there is `trouble`.
        snapshots_kept: number of all snapshots; None if there is `trouble`.
        trouble: "" (none), "busy" (no answer in time, as in a long run) or "unavailable" (no catalog or warehouse).
    """

    watermark: int
    files: int | None = None
    rows: int | None = None
    bytes: int | None = None
    snapshots: list[SnapshotInfo] | None = None
    snapshots_kept: int | None = None
    trouble: str = ""


class DiskStatus(msgspec.Struct, frozen=True):
    """The file system of the object's directory, in bytes. If less than `headroom` is free, events are refused."""

    free: int
    total: int
    headroom: int


class TierStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of each tier at one moment, except that the archive is read last.

    Attributes:
        counters: status of L0.
        log: status of L1.
        storage_bytes: size of L2: the SQLite file with its write-ahead log.
        consumers: consumers of the log, by descending `lag`; a lag of 0 is up to date. An answer brings its consumer up
            to date, the hourly job brings all consumers.
        archive: status of L3.
        disk: file system of the object's directory.
        first_day, last_day: days (UTC) of the first and last timestamp in `daily_metrics`; None if that is empty.
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
        parts: parts of an open object.
        archive_timeout_s: seconds after which an archive that has not answered is "busy".

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
