"""L1: the durable log, with group commit, sealing, views and retention.

One commit is in flight at a time. During its sync the next group gathers: batching without a timer. The commit thread
owns the open segment, the dedupe index and the next seq; the loop owns everything that readers see.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from lakebed.clock import SECOND_US, Clock
from lakebed.disk import Disk
from lakebed.errors import Backpressure, LogUnavailable, ObjectClosed
from lakebed.events.batch import EventBatch, memory_bytes
from lakebed.events.event import Event, Receipt
from lakebed.events.promotions import Promotion
from lakebed.settings import Settings
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.pipeline.committer import Commit, Committer
from lakebed.tiers.pipeline.dedupe import SealedIds
from lakebed.tiers.pipeline.log_view import LogView, SealedFiles, Tail
from lakebed.tiers.pipeline.sealer import Sealer

__all__ = ["Pipeline"]

_GROUP_EVENTS = 10_000  # the limit of events in one frame; at 32 KB each that is 320 MB
_T = TypeVar("_T")


class Pipeline:
    """The log of one object.

    Args:
        directory: the directory of the log's files; created if missing.
        on_commit: called on the loop with the events of each commit and their `received_at`, before acknowledgement.
        settled_us: the newest instant ever passed to `keep_settled`, or 0.
        keep_settled: makes an instant durable; without `keep_settled`, a promise of `settle` ends at a restart.

    Attributes:
        on_full: called on the loop after each commit while the sealed files exceed `log_bytes`.

    Promised: the events of an `append` that returned receipts are on disk (with durability "disk"), once, at the seqs
    of the receipts, in the order of the calls. Not promised: that a failed `append` stored nothing. After a crash its
    events may be in the log; a retry with the same message ids then gives duplicates.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        settings: Settings,
        *,
        clock: Clock,
        disk: Disk,
        promotions: Sequence[Promotion],
        engine: SqlEngine,
        on_commit: Callable[[EventBatch, int], None],
        settled_us: int = 0,
        keep_settled: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self.on_full: Callable[[], None] | None = None
        self.next_seq = 0
        self.duplicates = 0  # since this opening
        self.failed = 0  # events that could not be stored, since this opening; their callers got the error
        self.cut_bytes = 0  # of a torn tail, at this opening
        self.problems: dict[str, str] = {}  # the failures since the last success, by kind
        self._directory = directory
        self._settings = settings
        self._clock = clock
        self._on_commit = on_commit
        self._keep_settled = keep_settled
        # Not a Worker: every track() waits for a commit, so commits go to the executor directly.
        self._commit_thread = ThreadPoolExecutor(1, thread_name_prefix=f"lakebed-log-{name}")
        self._committer = Committer(directory, settings, disk, clock)  # belongs to the commit thread
        self.groups = self._committer.groups
        self.syncs = self._committer.syncs
        # All below belongs to the loop.
        self._closed = True
        self._released = False
        self._queue = _AppendQueue(settings.pending_events, settings.pending_bytes)
        self._waiting = False  # the next commit waits until sealing has freed memory
        self._idle = asyncio.Event()  # not set from the first append until nothing is pending
        self._idle.set()
        self._commit_done: asyncio.Future[Commit] | None = None  # the commit in flight, or the last one …
        self._received = 0  # … and its received_at
        self._last_received = 0  # of the last finished commit
        self._settled = settled_us
        self._held_us = settled_us  # no later event is received at or before this instant, even after a crash
        self._tail = Tail()
        self._files = SealedFiles()
        self._sealer = Sealer(
            directory,
            name,
            disk=disk,
            promotions=promotions,
            engine=engine,
            tail=self._tail,
            files=self._files,
            problems=self.problems,
            on_sealed=self._note_sealed,
            on_stop=self._resume,
        )

    async def open(self) -> None:
        """Recover the log, then accept events. Raises LogCorrupted and the other errors of `Committer.recover`."""
        log = await self._run(self._committer.recover, self._clock.now_us())
        for file in log.files:
            self._files.add(file)
        self.next_seq = log.next_seq
        self.cut_bytes = log.cut_bytes
        self._last_received = log.last_received
        self._held_us = max(self._held_us, log.last_received)
        for segment in log.unsealed:
            for frame in segment.frames:
                self._tail.append(segment.first_seq, frame.batch)
        self._closed = False
        self._sealer.start()

    @property
    def start_seq(self) -> int:
        """The first seq that the log still holds."""
        first_seqs = (self._files.start_seq, self._tail.first_seq, self.next_seq)
        return next(seq for seq in first_seqs if seq is not None)

    @property
    def sealed_bytes(self) -> int:
        """Bytes of the sealed files."""
        return self._files.bytes

    def sealed_bytes_from(self, seq: int) -> int:
        """Bytes of the sealed files that hold events from `seq` on."""
        return self._files.bytes_from(seq)

    @property
    def tail_bytes(self) -> int:
        """Bytes of the events in memory."""
        return self._tail.bytes

    @property
    def pending_events(self) -> int:
        """Events that wait for their receipt."""
        return self._queue.events + self._queue.in_flight

    def append(self, events: Sequence[Event] | EventBatch) -> asyncio.Future[list[Receipt]]:
        """Store validated events as a group or a part of a group; the future resolves when the events are durable.

        If the future fails with DiskFull, LogUnavailable or Backpressure, nothing was acknowledged, and a retry is safe
        for events that carry a message id. Cancelling the future does not cancel the commit.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Receipt]] = loop.create_future()
        entry = _Append(events, done)
        if self._closed:
            self._fail([entry], ObjectClosed("the log is closed", hint="Open the object first"))
        elif (error := self._queue.over_limit(entry)) is not None:
            self._fail([entry], error)
        else:
            self._queue.put(entry)
            if self._idle.is_set():
                self._idle.clear()
                # Not called directly: appends made in one turn of the loop share one sync.
                loop.call_soon(self._commit_next)
        return done

    def _commit_next(self) -> None:
        full = self._tail.bytes > self._settings.tail_bytes
        self._waiting = full and self._sealer.is_running
        if self._waiting:
            return  # _resume calls this again
        group = self._queue.take()
        if not group:
            self._idle.set()
        elif full and self._tail.closed_part() is not None:
            self._refuse_group(group)
        else:
            received = max(self._clock.now_us(), self._last_received + 1, self._settled + 1)
            self._received = received
            events = [entry.events for entry in group if entry.events]
            self._commit_done = self._run(self._committer.commit, events, received, full)
            self._commit_done.add_done_callback(lambda done: self._finish_commit(group, received, done))

    def _resume(self) -> None:
        """Start the commit that waited for sealing, if any. Called when sealing has stopped."""
        if self._waiting:
            self._commit_next()

    def _refuse_group(self, group: list[_Append]) -> None:
        """Fail a group because the memory limit is reached and sealing, which frees memory, failed. Restart sealing."""
        message = f"{self._tail.bytes} bytes of events wait for sealing, the limit is {self._settings.tail_bytes}"
        hint = f"Sealing failed: {self.problems.get('seal')}"
        self._queue.in_flight = 0
        self._fail(group, Backpressure(message, hint=hint, limit=self._settings.tail_bytes))
        self._sealer.start()
        self._commit_next()

    def _finish_commit(self, group: list[_Append], received: int, done: asyncio.Future[Commit]) -> None:
        self._last_received = received
        self._queue.in_flight = 0
        error = done.exception()
        try:
            if error is None:
                self.problems.pop("append", None)
                self._acknowledge(group, received, done.result())
            else:
                self.problems["append"] = str(error)
                self._fail(group, error)
        finally:
            self._commit_next()

    def _fail(self, group: Sequence[_Append], error: BaseException) -> None:
        for entry in group:
            self.failed += len(entry.events)
            if not entry.done.done():
                entry.done.set_exception(error)

    def _acknowledge(self, group: list[_Append], received: int, commit: Commit) -> None:
        stored = 0 if commit.batch is None else commit.batch.num_rows
        self.duplicates += len(commit.receipts) - stored
        try:
            if commit.batch is not None and commit.stored is not None:
                self._tail.append(commit.segment, commit.batch)
                self.next_seq += stored
                self._held_us = max(self._held_us, received)
                if self._tail.closed_part() is not None:
                    self._sealer.start()
                self._on_commit(commit.stored, received)
                if self.on_full is not None and self._files.bytes > self._settings.log_bytes:
                    self.on_full()
        finally:
            receipts = iter(commit.receipts)
            for entry in group:
                own = list(itertools.islice(receipts, len(entry.events)))
                if not entry.done.done():  # the caller of `append` may have been cancelled
                    entry.done.set_result(own)

    def view(self) -> LogView:
        """A view of the log as it is now. The caller closes the view."""
        return self._files.view(self._tail.table(), self.start_seq, self.next_seq)

    async def settle(self, as_of_us: int) -> None:
        """Return when no later event can have a `received_at` up to `as_of_us`, even if the clock is set back."""
        self._settled = max(self._settled, as_of_us)
        if not self._idle.is_set() and self._commit_done is not None and self._received <= as_of_us:
            await asyncio.wait([self._commit_done])
        if as_of_us > self._held_us and self._keep_settled is not None:
            newest = self._settled  # never less than in an earlier call, so the last write is the newest
            await self._keep_settled(newest)
            self._held_us = max(self._held_us, newest)

    async def flush(self) -> None:
        """Return when every append so far has receipts or an error. Only the callers of `append` get the errors."""
        if not self._idle.is_set():
            # A separate entry: a caller may have cancelled the future of the last append.
            last = _Append((), asyncio.get_running_loop().create_future())
            last.done.add_done_callback(asyncio.Future.exception)
            self._queue.put(last)
            await asyncio.wait([last.done])

    async def sync(self) -> None:
        """With durability "os": make all acknowledged events durable. Raises LogUnavailable."""
        if not await self._run(self._committer.sync):
            await self.seal()  # events of doubtful segments are in memory too, and become durable by sealing

    async def seal(self) -> int:
        """Seal all events so far; returns the seq after the last sealed event.

        Raises:
            LogUnavailable: a Parquet file could not be written; the log file still holds the events.
        """
        await self.flush()
        self._tail.close(await self._run(self._committer.end_segment))
        self._sealer.start()
        await self._sealer.wait()
        if "seal" in self.problems:
            raise LogUnavailable(
                self.problems["seal"], hint="The log file still holds the events", path=self._directory
            )
        end_seq = self._files.end_seq
        return self.start_seq if end_seq is None else end_seq

    async def seal_old(self) -> None:
        """Start to seal the open segment if it is older than `segment_age_s`: without events no commit closes it."""
        self._tail.close(await self._run(self._committer.end_segment, self._clock.now_us()))
        self._sealer.start()

    async def _note_sealed(self, segment: int, ids: SealedIds) -> None:
        await self._run(self._committer.sealed, segment, ids)

    async def prune(self, passed_seq: int) -> int:
        """Delete sealed files that every consumer has durably passed and whose retention is over; returns their number.

        Args:
            passed_seq: the smallest durable checkpoint of all consumers; the archive's commit must be verified.

        Files within the dedupe window, and files that an open view reads, are not deleted.

        Raises:
            LogUnavailable: a file could not be deleted. The file stays readable, and the next call tries again.
        """
        keep_us = int(max(self._settings.retention_s, self._settings.dedupe_window_s) * SECOND_US)
        files = self._files.take_oldest(passed_seq, self._clock.now_us() - keep_us)
        if files:
            try:
                # Without a segment that holds the next seq, an emptied directory would start again at seq 0.
                await self._run(self._committer.forget, files, self._last_received)
                await self._sealer.remove(files)
            except OSError as error:
                message = f"files of {self._directory} that are no longer needed cannot be deleted: {error}"
                raise LogUnavailable(message, hint="The next run tries again", path=self._directory) from error
            finally:
                self._files.put_back([file for file in files if file.path.exists()])
        return len(files)

    async def close(self) -> None:
        """Refuse new events, finish the pending ones, release the threads. Idempotent. Does not seal."""
        self._closed = True
        await self._idle.wait()
        await self._sealer.wait()
        if self._released:
            return
        self._released = True
        try:
            await self._run(self._committer.close)
        finally:
            self._commit_thread.shutdown()
            self._sealer.close()

    def _run(self, function: Callable[..., _T], *args: Any) -> asyncio.Future[_T]:
        """Run a method of the committer on its thread."""
        return asyncio.get_running_loop().run_in_executor(self._commit_thread, function, *args)


class _Append(msgspec.Struct):
    """A call of `append` that waits for its commit."""

    events: Sequence[Event] | EventBatch
    done: asyncio.Future[list[Receipt]]
    bytes: int = 0


class _AppendQueue:
    """A first-in-first-out queue of appends, bounded in events and bytes. A single append may exceed the bounds."""

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.events = 0  # without the events in flight
        self.in_flight = 0  # the events of the commit under way
        self._bytes = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._entries: deque[_Append] = deque()

    def over_limit(self, entry: _Append) -> Backpressure | None:
        """Returns the error for an append that would exceed a bound, or None if the append fits."""
        hint = "Await earlier calls first"
        if self.events and self.events + len(entry.events) > self._max_events:
            message = f"{self.events} events wait for the disk, the limit is {self._max_events}"
            return Backpressure(message, hint=hint, limit=self._max_events)
        entry.bytes = memory_bytes(entry.events)
        if self.events and self._bytes + entry.bytes > self._max_bytes:
            message = f"{self._bytes} bytes of events wait for the disk, the limit is {self._max_bytes}"
            return Backpressure(message, hint=hint, limit=self._max_bytes)
        return None

    def put(self, entry: _Append) -> None:
        """Add an append. Does not check the bounds."""
        self._entries.append(entry)
        self.events += len(entry.events)
        self._bytes += entry.bytes

    def take(self) -> list[_Append]:
        """Remove and return the next group, which is in flight from now on. The group is empty if nothing waits."""
        group: list[_Append] = []
        count = 0
        while self._entries and (not group or count + len(self._entries[0].events) <= _GROUP_EVENTS):
            entry = self._entries.popleft()
            count += len(entry.events)
            self._bytes -= entry.bytes
            group.append(entry)
        self.events -= count
        self.in_flight = count
        return group
