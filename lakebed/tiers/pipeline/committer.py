"""The work of the commit thread, which makes events durable, group by group, in the open segment."""

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

from lakebed.clock import SECOND_US, Clock
from lakebed.disk import Disk
from lakebed.errors import DiskFull, LakebedError, LogUnavailable
from lakebed.events.batch import EventBatch
from lakebed.events.event import Event, Receipt
from lakebed.histogram import COUNTS, SECONDS, Histogram
from lakebed.settings import Settings
from lakebed.tiers.pipeline.dedupe import Dedupe, SealedIds
from lakebed.tiers.pipeline.recovery import RecoveredLog, recover
from lakebed.tiers.pipeline.sealing import SealedFile
from lakebed.tiers.pipeline.segment import Segment

__all__ = ["Commit", "Committer"]

_RETRY = "These events were not acknowledged: retry them; the next attempt starts a new segment"


class Commit(msgspec.Struct):
    """The outcome of a commit.

    Attributes:
        receipts: one receipt for each event of the group.
        stored: the events without duplicates; None if all events were duplicates.
        batch: the rows of `stored` as the log stores them; None if all events were duplicates.
        segment: the first seq of the log file that holds the batch.
    """

    receipts: list[Receipt]
    stored: EventBatch | None = None
    batch: pa.RecordBatch | None = None
    segment: int = 0


class Committer:
    """Owns the open segment, the dedupe index and the next seq. Every method blocks, and runs in the commit thread.

    Attributes:
        groups: the number of events of each committed group.
        syncs: the seconds of each sync that made a group durable.
    """

    def __init__(self, directory: Path, settings: Settings, disk: Disk, clock: Clock) -> None:
        self.groups = Histogram(COUNTS)
        self.syncs = Histogram(SECONDS)
        self._clock = clock
        self._directory = directory
        self._settings = settings
        self._disk = disk
        self._segment: Segment | None = None
        self._segment_received = 0  # received_at of the first event of the open segment
        self._next_seq = 0
        self._doubtful: set[int] = set()  # first seqs of segments whose acknowledged events may not be durable
        self._dedupe = Dedupe(int(settings.dedupe_window_s * SECOND_US), settings.dedupe_max_ids)
        token = os.urandom(8).hex()
        self._ids = (f"{token}-{i}" for i in itertools.count())  # for events without a message id; never repeated

    def recover(self, now_us: int) -> RecoveredLog:
        """Read the log directory (created if missing) and prepare for the next commit.

        Raises:
            LogCorrupted, FormatTooNew: as the function `recovery.recover`.
            DiskFull, LogUnavailable: the disk failed during the call. No event was lost; the call may be repeated.
        """
        try:
            if not self._directory.exists():
                self._directory.mkdir(parents=True)
                self._disk.sync_directory(self._directory.parent)
            log = recover(self._disk, self._directory)
        except LakebedError:
            raise
        except OSError as error:
            hint = "Repair the disk, then open the object again: no event was lost by this"
            raise _unavailable(error, self._directory, hint) from error
        self._segment, self._next_seq = log.active, log.next_seq
        # The clock may be ahead now, and may be set back while the object is open.
        since = min(now_us, log.last_received) - int(self._settings.dedupe_window_s * SECOND_US)
        for file in log.files:
            if file.last_received >= since:
                self._dedupe.seal(file.first_seq, SealedIds.load(file.path, file.last_received))
        for closed in log.unsealed[:-1]:
            self._mark_doubtful(closed.first_seq)
        for segment in log.unsealed:
            self._segment_received = segment.frames[0].received_at if segment.frames else 0
            for frame in segment.frames:
                ids = frame.batch.column("message_id")
                self._dedupe.restore(segment.first_seq, ids, frame.first_seq, frame.received_at)
        return log

    def commit(self, group: Sequence[Sequence[Event] | EventBatch], received: int, new_segment: bool) -> Commit:
        """Make a group durable (with durability "disk"), without the events that the log already has.

        Args:
            group: the events of each call of `append`.
            received: the `received_at` of all events, microseconds.
            new_segment: whether to close the open segment first, even if it is not full.

        Raises:
            DiskFull, LogUnavailable: no event of the group was acknowledged; the next commit starts a new segment.
        """
        if not group:
            return Commit([])
        events = EventBatch.joined(group)
        receipts, rows, ids = self._deduplicated(events.message_ids, received)
        if not ids:
            return Commit(receipts)
        self._check_headroom()
        stored = events if len(ids) == len(events) else events.take(rows)
        batch = stored.to_record_batch(ids, self._next_seq, received)
        try:
            if new_segment or self._is_full(received):
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
        return Commit(receipts, stored, batch, segment.first_seq)

    def end_segment(self, old_at: int | None = None) -> int:
        """Close the open segment, if it holds events. Raises DiskFull or LogUnavailable if the disk fails.

        Args:
            old_at: microseconds; if given, close the segment only if it is full or `segment_age_s` old at this time.

        Returns:
            A seq: every event before this seq is in a closed segment.
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
        """Make the open segment durable. False if another segment may not be durable. Raises LogUnavailable."""
        if self._segment is not None:
            try:
                self._segment.sync()
            except OSError as error:
                self._abandon_segment()
                raise _unavailable(error, self._directory) from error
        return not self._doubtful

    def forget(self, files: Sequence[SealedFile], last_received: int) -> None:
        """Prepare to delete `files`: record the next seq in an open segment, and forget the ids of their events."""
        try:
            self._ensure_segment(last_received + 1)
        except OSError as error:
            raise _unavailable(error, self._directory) from error
        self._dedupe.forget({file.path for file in files})

    def sealed(self, segment: int, ids: SealedIds) -> None:
        """Record that the segment from seq `segment` on is sealed: `ids` replaces the ids of its events in memory."""
        self._dedupe.seal(segment, ids)
        self._doubtful.discard(segment)

    def close(self) -> None:
        """Close the open segment with a durable marker: from now on a bad byte is corruption, not a torn tail."""
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
        """A receipt for each event; the positions of the new events; the ids (given or generated) of the new events."""
        count = len(message_ids)
        client_ids = [message_id for message_id in message_ids if message_id is not None]
        known = self._dedupe.find(client_ids, received) if client_ids else {}
        if not known and len(set(client_ids)) == count:
            return self._receipts(client_ids), range(count), client_ids
        receipts: list[Receipt] = []
        rows: list[int] = []
        ids: list[str] = []
        for row, client_id in enumerate(message_ids):
            seq = self._next_seq + len(ids)
            message_id = next(self._ids) if client_id is None else client_id
            first = known.setdefault(message_id, seq)
            if first == seq:
                rows.append(row)
                ids.append(message_id)
            receipts.append(Receipt(first, message_id, "stored" if first == seq else "duplicate"))
        return receipts, rows, ids

    def _receipts(self, ids: Sequence[str]) -> list[Receipt]:
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
            or received - self._segment_received >= settings.segment_age_s * SECOND_US
        )

    def _close_segment(self) -> None:
        """Sync and close the open segment, if it holds events; the next event starts a new segment."""
        segment = self._segment
        if segment is not None and segment.first_seq < self._next_seq:
            segment.sync()
            self._segment = None  # before the close: a failed close must not be retried, the descriptor may be reused
            segment.close()

    def _ensure_segment(self, received: int) -> Segment:
        if self._segment is None:
            self._segment = Segment.create(self._disk, self._directory, self._next_seq, received - 1)
        if self._segment.first_seq == self._next_seq:
            self._segment_received = received
        return self._segment

    def _abandon_segment(self) -> None:
        """Never write the open segment again: after a failed write or sync, the last bytes of the file are unknown.

        Its acknowledged events are in the tail, and are sealed from the tail once a new segment holds an event.
        """
        segment, self._segment = self._segment, None
        if segment is not None:
            self._mark_doubtful(segment.first_seq)
            with contextlib.suppress(OSError):  # the caller raises the failure that matters
                segment.close()

    def _mark_doubtful(self, segment: int) -> None:
        """With durability "os", record that acknowledged events of the file from seq `segment` on may not be durable.

        No later sync clears the doubt: a sync that succeeds after a failed sync proves nothing.
        """
        if self._settings.durability == "os" and segment < self._next_seq:
            self._doubtful.add(segment)


def _unavailable(error: OSError, path: Path, hint: str = _RETRY) -> DiskFull | LogUnavailable:
    if error.errno == errno.ENOSPC:
        return DiskFull(f"no space is left for {path}", hint="Free disk space", path=path)
    return LogUnavailable(f"{path} cannot be written: {error}", hint=hint, path=path)
