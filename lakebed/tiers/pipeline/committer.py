"""The thread that makes events durable: one group after another, into the open segment."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec
import pyarrow as pa

from lakebed.clock import Clock
from lakebed.disk import Disk
from lakebed.errors import DiskFull, LakebedError, LogUnavailable
from lakebed.events.batch import EventBatch
from lakebed.events.event import Event, Receipt
from lakebed.histogram import COUNTS, SECONDS, Histogram
from lakebed.settings import Settings
from lakebed.tiers.pipeline.dedupe import Dedupe, SealedIds
from lakebed.tiers.pipeline.recovery import Recovered, recover
from lakebed.tiers.pipeline.sealing import LogFile
from lakebed.tiers.pipeline.segment import Segment

__all__ = ["Committer", "Outcome"]

_US = 1_000_000
_RETRY = "These events were not acknowledged: retry them; the next attempt begins a new segment"


class Outcome(msgspec.Struct):
    """What a commit did. `fresh` are the events that the log did not have yet, `batch` is what it stored of them."""

    receipts: list[Receipt]
    fresh: EventBatch | None
    batch: pa.RecordBatch | None
    segment: int  # first seq of the log file that took the batch


class Committer:
    """Owns the open segment, the dedupe index and the next seq. Every method blocks, in the one commit thread.

    Attributes:
        groups: events of each group that was committed.
        syncs: seconds of each sync that made one durable.
    """

    def __init__(self, directory: Path, settings: Settings, disk: Disk, clock: Clock) -> None:
        self.groups = Histogram(COUNTS)
        self.syncs = Histogram(SECONDS)
        self._clock = clock
        self._directory = directory
        self._settings = settings
        self._disk = disk
        self._segment: Segment | None = None
        self._segment_received = 0  # received_at of its first event
        self._next_seq = 0
        self._doubtful: set[int] = set()  # first seqs of segments that hold acknowledged events and may not be durable
        self._dedupe = Dedupe(int(settings.dedupe_window_s * _US), settings.dedupe_max_ids)
        token = os.urandom(8).hex()
        self._ids = (f"{token}-{i}" for i in itertools.count())  # for events that have none; never given twice

    def recover(self, now_us: int) -> Recovered:
        """Read what the directory holds and be ready for the next group.

        Raises:
            LogCorrupted: see `recover`.
            DiskFull, LogUnavailable: the disk failed on the way. Nothing was lost, and it may be tried again.
        """
        try:
            if not self._directory.exists():
                self._directory.mkdir(parents=True)
                self._disk.sync_directory(self._directory.parent)
            found = recover(self._disk, self._directory)
        except LakebedError:
            raise
        except OSError as error:
            hint = "Mend the disk, then open the object again: no event was lost by this"
            raise _unavailable(error, self._directory, hint) from error
        self._segment, self._next_seq = found.active, found.next_seq
        # The clock may be ahead, and be set back while the object is open.
        since = min(now_us, found.last_received) - int(self._settings.dedupe_window_s * _US)
        for file in found.files:
            if file.last_received >= since:
                self._dedupe.seal(file.first_seq, SealedIds.load(file.path, file.last_received))
        for closed in found.unsealed[:-1]:
            self._doubt(closed.first_seq)
        for unsealed in found.unsealed:
            self._segment_received = unsealed.frames[0].received_at if unsealed.frames else 0
            for frame in unsealed.frames:
                ids = frame.batch.column("message_id")
                self._dedupe.restore(unsealed.first_seq, ids, frame.first_seq, frame.received_at)
        return found

    def commit(self, group: Sequence[Sequence[Event] | EventBatch], received: int, full: bool) -> Outcome:
        """Make a group durable, leaving out what the log already has. `full` asks for a new segment.

        Raises:
            DiskFull, LogUnavailable: nothing of the group was acknowledged; the next one begins a new segment.
        """
        if not group:
            return Outcome([], None, None, 0)
        block = EventBatch.joined(group)
        receipts, rows, ids = self._deduplicated(block.message_ids, received)
        if not ids:
            return Outcome(receipts, None, None, 0)
        self._check_headroom()
        fresh = block if len(ids) == len(block) else block.take(rows)
        batch = fresh.to_record_batch(ids, self._next_seq, received)
        try:
            if full or self._is_full(received):
                self._close_segment()
            segment = self._ensure_segment(received)
            segment.append(batch, self._next_seq, received)
            if self._settings.durability == "disk":
                began = self._clock.monotonic()
                segment.sync()
                self.syncs.observe(self._clock.monotonic() - began)
        except OSError as error:
            self._abandon_segment()
            raise _unavailable(error, self._directory) from error
        self.groups.observe(len(ids))
        end = self._next_seq + len(ids)
        self._dedupe.add(segment.first_seq, zip(ids, range(self._next_seq, end), strict=True), self._next_seq, received)
        self._next_seq = end
        return Outcome(receipts, fresh, batch, segment.first_seq)

    def end_segment(self, old_at: int | None = None) -> int:
        """Close the open segment, or only if it is full or old at `old_at` microseconds. Raises LogUnavailable.

        Returns:
            The seq before which every event is in a closed segment.
        """
        if old_at is not None and self._segment is not None and not self._is_full(old_at):
            return self._segment.first_seq
        try:
            self._close_segment()
        except OSError as error:
            self._abandon_segment()
            raise _unavailable(error, self._directory) from error
        return self._next_seq

    def sync(self) -> bool:
        """Make the open segment durable. False when others hold events of which nobody knows. Raises LogUnavailable."""
        if self._segment is not None:
            try:
                self._segment.sync()
            except OSError as error:
                self._abandon_segment()
                raise _unavailable(error, self._directory) from error
        return not self._doubtful

    def forget(self, files: Sequence[LogFile], last_received: int) -> None:
        """Make sure that some file says where the log goes on, then let go of what `files` were needed for."""
        try:
            self._ensure_segment(last_received + 1)
        except OSError as error:
            raise _unavailable(error, self._directory) from error
        self._dedupe.forget({file.path for file in files})

    def sealed(self, segment: int, ids: SealedIds) -> None:
        """The segment that starts at seq `segment` is sealed."""
        self._dedupe.seal(segment, ids)
        self._doubtful.discard(segment)

    def close(self) -> None:
        """Make the marker durable: from now on every bad byte is known to be rot, not a torn tail."""
        segment, self._segment = self._segment, None
        if segment is not None:
            try:
                segment.sync()
                segment.sync()
            except OSError as error:
                raise _unavailable(error, self._directory) from error
            finally:
                segment.close()

    def _deduplicated(
        self, message_ids: Sequence[str | None], received: int
    ) -> tuple[list[Receipt], Sequence[int], Sequence[str]]:
        """A receipt for each, the positions of those that are new, and their ids: given ones and ours."""
        count = len(message_ids)
        given = [message_id for message_id in message_ids if message_id is not None]
        known = self._dedupe.find(given, received) if given else {}
        if not known and len(set(given)) == count:
            return self._stored(given), range(count), given
        receipts: list[Receipt] = []
        rows: list[int] = []
        ids: list[str] = []
        for row, message_id in enumerate(message_ids):
            seq = self._next_seq + len(ids)
            one = next(self._ids) if message_id is None else message_id
            first = known.setdefault(one, seq)
            if first == seq:
                rows.append(row)
                ids.append(one)
            receipts.append(Receipt(first, one, "stored" if first == seq else "duplicate"))
        return receipts, rows, ids

    def _stored(self, ids: Sequence[str]) -> list[Receipt]:
        seqs = range(self._next_seq, self._next_seq + len(ids))
        stored: Literal["stored"] = "stored"
        return [Receipt(seq, message_id, stored) for seq, message_id in zip(seqs, ids, strict=True)]

    def _check_headroom(self) -> None:
        try:
            free, limit = self._disk.free_bytes(self._directory), self._settings.headroom_bytes
        except OSError as error:
            raise _unavailable(error, self._directory) from error
        if free < limit:
            hint = "Free disk space, or shorten retention_s; recovery needs this headroom"
            raise DiskFull(f"{free} bytes are free, the headroom is {limit}", hint=hint, free=free, limit=limit)

    def _is_full(self, received: int) -> bool:
        segment, settings = self._segment, self._settings
        if segment is None or segment.first_seq == self._next_seq:
            return False
        return (
            segment.offset >= settings.segment_bytes
            or self._next_seq - segment.first_seq >= settings.segment_events
            or received - self._segment_received >= settings.segment_age_s * _US
        )

    def _close_segment(self) -> None:
        """Finish the open segment, if it holds events; the next event begins a new one."""
        segment = self._segment
        if segment is not None and segment.first_seq < self._next_seq:
            segment.sync()
            self._segment = None  # before the close: one that fails must not be tried again, the number may be reused
            segment.close()

    def _ensure_segment(self, received: int) -> Segment:
        if self._segment is None:
            self._segment = Segment.create(self._disk, self._directory, self._next_seq, received - 1)
        if self._segment.first_seq == self._next_seq:
            self._segment_received = received
        return self._segment

    def _abandon_segment(self) -> None:
        """After a failed write or sync nobody knows what the file's last bytes hold: it is never written again.

        What was acknowledged of it is in the tail, and is sealed from there once a new segment took an event.
        """
        segment, self._segment = self._segment, None
        if segment is not None:
            self._doubt(segment.first_seq)
            with contextlib.suppress(OSError):  # the failure that matters is on its way to the caller
                segment.close()

    def _doubt(self, segment: int) -> None:
        """With durability "os" events were acknowledged that no sync has made durable, and none ever will in this file.

        A sync that succeeds after one that failed says nothing.
        """
        if self._settings.durability == "os" and segment < self._next_seq:
            self._doubtful.add(segment)


def _unavailable(error: OSError, path: Path, hint: str = _RETRY) -> DiskFull | LogUnavailable:
    if error.errno == errno.ENOSPC:
        return DiskFull(f"no space is left for {path}", hint="Free disk space", path=path)
    return LogUnavailable(f"{path} cannot be written: {error}", hint=hint, path=path)
