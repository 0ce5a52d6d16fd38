"""TierStatus: the contents of each tier, and the position of each consumer of the log."""

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

__all__ = [
    "ArchiveStatus",
    "Consumer",
    "CounterStatus",
    "DiskStatus",
    "LogStatus",
    "SnapshotInfo",
    "TierStatus",
    "tier_status",
]

_SNAPSHOTS = 20
_DAILY = "daily_metrics"


class CounterStatus(msgspec.Struct, frozen=True):
    """L0. Attributes: keys alive, how many may be, how many had to go before their time."""

    keys: int
    max_keys: int
    evicted: int


class LogStatus(msgspec.Struct, frozen=True):
    """L1.

    Attributes:
        first_seq: the first event that the log still holds; `next_seq` is the one after its last.
        segments: sealed files, and `sealed_bytes` their size on disk.
        tail_events: events in memory that are not sealed yet (they are on disk too, in a log file).
        tail_bytes: what these take in memory.
        pending: events that wait for their commit.
    """

    first_seq: int
    next_seq: int
    segments: int
    sealed_bytes: int
    tail_events: int
    tail_bytes: int
    pending: int


class Consumer(msgspec.Struct, frozen=True):
    """Who reads the log: a rollup, the archive and others.

    Attributes:
        next_seq: events before it are in its durable state.
        lag: events of the log that are not.
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
        watermark: every event with a lower `seq` is in it, as far as this object has seen.
        files, rows, bytes: of the newest snapshot; None where `trouble` says why.
        snapshots: the newest, at most 20, newest first; None likewise.
        snapshots_kept: how many there are.
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
    """What lies in each tier. Of one moment but for the archive, which is asked last.

    Attributes:
        counters: L0.
        log: L1.
        storage_bytes: L2: the SQLite file with its write-ahead log.
        consumers: of the log, those furthest behind first; `lag` 0 is up to date. Reading an answer catches its
            consumer up, the hourly job all of them.
        archive: L3.
        disk: under all of them.
        first_day, last_day: of events' timestamps (UTC), as far as `daily_metrics` is folded; None while it is empty.
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
    """Look at every tier, without changing any and without waiting long for one.

    Args:
        parts: the open object's.
        archive_timeout_s: seconds after which an archive that does not answer is "busy".

    Raises:
        StorageUnavailable: SQLite cannot be read.
        ObjectUnavailable: the directory cannot be read.
    """
    statistics = parts.counters.statistics()
    marks = {consumer_of(one.name): 0 for one in parts.rollups.rollups} | await parts.storage.checkpoints()
    days = (await parts.rollups.table(_DAILY))["date"].to_pylist()
    disk = await run_in_thread("tier-status", lambda: _on_disk(parts.directory))
    log = _log(parts)
    # What identity has looked at since its last checkpoint changed nothing, so its state is that of all of it.
    marks |= {"archive": parts.maintenance.watermark, CONSUMER: parts.identity.position}
    consumers = [Consumer(name, seq, max(0, log.next_seq - seq)) for name, seq in marks.items()]
    return TierStatus(
        counters=CounterStatus(statistics.keys, statistics.max_keys, statistics.evicted),
        log=log,
        storage_bytes=disk.storage,
        consumers=sorted(consumers, key=lambda one: (-one.lag, one.name)),
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
    except TimeoutError:  # its one thread is compacting, or a catalog is slow; the other tiers need not wait for it
        return ArchiveStatus(watermark, trouble="busy")
    except LakebedError:  # check() says what it is; here the other tiers matter too
        return ArchiveStatus(watermark, trouble="unavailable")
    return ArchiveStatus(
        watermark=watermark,
        files=len(files),
        rows=sum(file.rows for file in files),
        bytes=sum(file.bytes for file in files),
        snapshots=[_snapshot_info(one) for one in reversed(snapshots[-_SNAPSHOTS:])],
        snapshots_kept=len(snapshots),
    )


def _snapshot_info(one: Snapshot) -> SnapshotInfo:
    return SnapshotInfo(str(one.id), from_us(one.committed_us), one.watermark, one.operation, one.rows, one.tags)
