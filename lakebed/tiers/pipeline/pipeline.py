"""L1: the durable log. Group commit, sealing, views, retention.

One commit is in flight at a time; while it syncs, the next group gathers: batching without a timer. The commit thread
owns the open segment, the dedupe index and the next seq; the loop owns everything that readers see.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from lakebed.clock import Clock
from lakebed.concurrency import Worker
from lakebed.disk import Disk
from lakebed.errors import Backpressure, LogUnavailable, ObjectClosed
from lakebed.events.batch import EventBatch
from lakebed.events.event import Event, Receipt
from lakebed.events.promotions import Promotion
from lakebed.histogram import Histogram
from lakebed.settings import Settings
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.pipeline.committer import Committer, Outcome
from lakebed.tiers.pipeline.dedupe import SLICE, SealedIds
from lakebed.tiers.pipeline.log_view import LogView
from lakebed.tiers.pipeline.pending import Entry, Pending
from lakebed.tiers.pipeline.sealing import LogFile, seal
from lakebed.tiers.pipeline.segment import log_path
from lakebed.tiers.pipeline.tail import Part, Tail

__all__ = ["Pipeline"]

_US = 1_000_000


class Pipeline:
    """The log of one object.

    Args:
        directory: where its files lie; made if missing.
        on_commit: called on the loop with the events of each commit and their `received_at`, before they are
            acknowledged.
        settled_us: the newest instant that `keep_settled` was ever given, 0 if none.
        keep_settled: makes an instant durable; without it `settle` does not hold beyond a restart.

    Promised: an `append` that returned receipts is on disk (with durability "disk"), once, at the seqs it says, in the
    order of the calls. Not promised: that an `append` which failed stored nothing: a crash may surface it, and a retry
    with the same message ids is then a duplicate.
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
        self.next_seq = 0
        self.duplicates = 0  # since this opening
        self.failed = 0  # events that could not be taken, since this opening; their callers know
        self.sealed_bytes = 0  # of the sealed files
        self.cut_bytes = 0  # of a torn tail, at this opening
        self.problems: dict[str, str] = {}  # what failed and has not succeeded since
        self._directory = directory
        self._settings = settings
        self._clock = clock
        self._disk = disk
        self._promotions = promotions
        self._engine = engine
        self._on_commit = on_commit
        self._keep_settled = keep_settled
        self._committer = Worker(f"log-{name}")
        self._sealer = Worker(f"seal-{name}")
        # The loop's.
        self._closed = True
        self._released = False
        self._pending = Pending(settings.pending_events, settings.pending_bytes)
        self._busy = False  # from the first append until nothing is pending
        self._waiting = False  # busy, and the next commit waits for sealing to make room
        self._idle = asyncio.Event()
        self._idle.set()
        self._commit_done: asyncio.Future[Outcome] | None = None  # the commit in flight, or the last one …
        self._received = 0  # … and its received_at
        self._last_received = 0  # of the last commit that is over
        self._settled = settled_us
        self._held_us = settled_us  # no event comes at or before it even after a crash
        self._files: list[LogFile] = []
        self._tail = Tail()
        self._sealing: asyncio.Task[None] | None = None
        self._pins: Counter[Path] = Counter()
        self._commits = Committer(directory, settings, disk, clock)  # the commit thread's

    async def open(self) -> None:
        """Recover the log and start taking events.

        Raises:
            LogCorrupted: see `recover`.
        """
        found = await self._committer.run(self._commits.recover, self._clock.now_us())
        self._files = found.files
        self.sealed_bytes = sum(file.bytes for file in found.files)
        self.next_seq = found.next_seq
        self.cut_bytes = found.cut_bytes
        self._last_received = found.last_received
        self._held_us = max(self._held_us, found.last_received)
        for unsealed in found.unsealed:
            for frame in unsealed.frames:
                self._tail.append(unsealed.first_seq, frame.batch)
        self._closed = False
        self._start_sealing()

    @property
    def groups(self) -> Histogram:
        """Events of each group that was committed."""
        return self._commits.groups

    @property
    def syncs(self) -> Histogram:
        """Seconds that making each group durable took."""
        return self._commits.syncs

    @property
    def start_seq(self) -> int:
        """The first seq that the log still holds."""
        if self._files:
            return self._files[0].first_seq
        return self.next_seq if self._tail.first_seq is None else self._tail.first_seq

    def sealed_bytes_from(self, seq: int) -> int:
        """Bytes of the sealed files that hold events from `seq` on."""
        return sum(file.bytes for file in self._files if file.end_seq > seq)

    @property
    def tail_bytes(self) -> int:
        """Bytes of the events in memory."""
        return self._tail.bytes

    @property
    def pending_events(self) -> int:
        """Events that wait for their answer."""
        return self._pending.events + self._pending.in_flight

    def append(self, events: Sequence[Event] | EventBatch) -> asyncio.Future[list[Receipt]]:
        """Store admitted events as one group or part of one; the future resolves when they are durable.

        The future fails with DiskFull, LogUnavailable or Backpressure: then nothing was acknowledged, and a retry is
        safe for events that carry a message id. Cancelling it cancels nothing that was handed over.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[Receipt]] = loop.create_future()
        entry = Entry(events, done)
        if self._closed:
            self._fail([entry], ObjectClosed("the log is closed", hint="Open the object first"))
        elif (refusal := self._pending.refusal(entry)) is not None:
            self._fail([entry], refusal)
        else:
            self._pending.put(entry)
            if not self._busy:
                self._set_busy(True)
                # Not at once: calls made in the same turn of the loop share one sync.
                loop.call_soon(self._commit_next)
        return done

    def _set_busy(self, busy: bool) -> None:
        self._busy = busy
        if busy:
            self._idle.clear()
        else:
            self._idle.set()

    def _commit_next(self) -> None:
        full = self._tail.bytes > self._settings.tail_bytes
        self._waiting = full and self._sealing is not None
        if self._waiting:
            return  # _seal_closed comes back here
        group = self._pending.take()
        if not group:
            self._set_busy(False)
        elif full and self._tail.closed_part() is not None:
            self._refuse_full(group)
        else:
            received = max(self._clock.now_us(), self._last_received + 1, self._settled + 1)
            self._received = received
            events = [entry.events for entry in group if entry.events]
            self._commit_done = self._committer.run(self._commits.commit, events, received, full)
            self._commit_done.add_done_callback(lambda done: self._committed(group, received, done))

    def _refuse_full(self, group: list[Entry]) -> None:
        """The memory bound is reached and sealing, which would make room, has failed: try it again, take nothing."""
        message = f"{self._tail.bytes} bytes of events wait for sealing, the limit is {self._settings.tail_bytes}"
        error = Backpressure(
            message, hint=f"Sealing failed: {self.problems.get('seal')}", limit=self._settings.tail_bytes
        )
        self._pending.in_flight = 0
        self._fail(group, error)
        self._start_sealing()
        self._commit_next()

    def _committed(self, group: list[Entry], received: int, done: asyncio.Future[Outcome]) -> None:
        self._last_received = received
        self._pending.in_flight = 0
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

    def _fail(self, group: Sequence[Entry], error: BaseException) -> None:
        for entry in group:
            self.failed += len(entry.events)
            if not entry.done.done():
                entry.done.set_exception(error)

    def _acknowledge(self, group: list[Entry], received: int, outcome: Outcome) -> None:
        fresh = 0 if outcome.batch is None else outcome.batch.num_rows
        self.duplicates += len(outcome.receipts) - fresh
        try:
            if outcome.batch is not None and outcome.fresh is not None:
                self._tail.append(outcome.segment, outcome.batch)
                self.next_seq += fresh
                self._held_us = max(self._held_us, received)
                self._start_sealing()
                self._on_commit(outcome.fresh, received)
        finally:
            receipts = iter(outcome.receipts)
            for entry in group:
                own = list(itertools.islice(receipts, len(entry.events)))
                if not entry.done.done():  # its caller may have been cancelled
                    entry.done.set_result(own)

    def view(self) -> LogView:
        """The log as it is now. The caller closes it."""
        return LogView(tuple(self._files), self._tail.table(), self.start_seq, self.next_seq, self._pins)

    async def settle(self, as_of_us: int) -> None:
        """Return when no event can come that was received at or before `as_of_us`, whatever the clock does."""
        self._settled = max(self._settled, as_of_us)
        if self._busy and self._commit_done is not None and self._received <= as_of_us:
            await asyncio.wait([self._commit_done])
        if as_of_us > self._held_us and self._keep_settled is not None:
            newest = self._settled  # never less than in a call before this one, so the last write is the newest
            await self._keep_settled(newest)
            self._held_us = max(self._held_us, newest)

    async def flush(self) -> None:
        """Return when every append made so far has been answered. Their failures reach their callers, not this one."""
        if self._busy:
            # An entry of our own: that of the last append may have been cancelled by its caller.
            last = Entry((), asyncio.get_running_loop().create_future())
            last.done.add_done_callback(asyncio.Future.exception)
            self._pending.put(last)
            await asyncio.wait([last.done])

    async def sync(self) -> None:
        """With durability "os": make all that was acknowledged so far durable. Raises LogUnavailable."""
        if not await self._committer.run(self._commits.sync):
            await self.seal()  # what is in doubt is in memory too, and becomes durable from there

    async def seal(self) -> int:
        """Seal all events so far; returns the seq up to which the log is sealed.

        Raises:
            LogUnavailable: when a Parquet file could not be written; the log file still holds the events.
        """
        await self.flush()
        self._tail.close(await self._committer.run(self._commits.end_segment))
        self._start_sealing()
        if self._sealing is not None:
            await asyncio.shield(self._sealing)
        if "seal" in self.problems:
            raise LogUnavailable(
                self.problems["seal"], hint="The log file still holds the events", path=self._directory
            )
        return self._files[-1].end_seq if self._files else self.start_seq

    async def seal_old(self) -> None:
        """Begin to seal what `segment_age_s` says is old, for a log to which no event comes that would do it."""
        self._tail.close(await self._committer.run(self._commits.end_segment, self._clock.now_us()))
        self._start_sealing()

    def _start_sealing(self) -> None:
        if self._sealing is None and self._tail.closed_part() is not None:
            self._sealing = asyncio.get_running_loop().create_task(self._seal_closed())

    async def _seal_closed(self) -> None:
        """Seal the closed parts, oldest first. A failure is kept for `check` and tried again with the next part."""
        try:
            while (part := self._tail.closed_part()) is not None:
                file, ids = await self._sealer.run(self._seal, part)
                await self._committer.run(self._commits.sealed, part.first_seq, ids)
                self._files.append(file)
                self.sealed_bytes += file.bytes
                self._tail.drop(part)
            self.problems.pop("seal", None)
        except Exception as error:  # noqa: BLE001 - whatever it is (DuckDB's, Arrow's), `check` shows it
            self.problems["seal"] = f"{self._directory}: {error}"
        finally:
            self._sealing = None
            if self._waiting:
                self._commit_next()

    def _seal(self, part: Part) -> tuple[LogFile, SealedIds]:
        log = log_path(self._directory, part.first_seq)
        file = seal(self._disk, log, part.batches, self._promotions, self._engine)
        columns = [batch.column("message_id") for batch in part.batches]
        pieces = (column.slice(at, SLICE) for column in columns for at in range(0, len(column), SLICE))
        message_ids = itertools.chain.from_iterable(piece.to_pylist() for piece in pieces)
        ids = SealedIds.of(file.path, file.last_received, message_ids)
        ids.save()
        return file, ids

    async def prune(self, passed_seq: int) -> int:
        """Delete sealed files that every consumer has durably passed and whose retention is over; returns how many.

        Args:
            passed_seq: the smallest durable checkpoint of all consumers; the archive's commit must be verified.

        Files within the dedupe window, and files that an open view reads, stay.

        Raises:
            LogUnavailable: when one could not be deleted; what is left stays readable, and goes the next time.
        """
        keep_us = int(max(self._settings.retention_s, self._settings.dedupe_window_s) * _US)
        before = self._clock.now_us() - keep_us
        victims = []
        for file in self._files:
            if file.end_seq > passed_seq or file.last_received > before or self._pins[file.path] > 0:
                break
            victims.append(file)
        if victims:
            del self._files[: len(victims)]
            self.sealed_bytes -= sum(file.bytes for file in victims)
            # Without a segment that says where the log goes on, an emptied directory would start again at seq 0.
            try:
                await self._committer.run(self._commits.forget, victims, self._last_received)
                await self._sealer.run(self._remove, victims)
            except OSError as error:
                left = [file for file in victims if file.path.exists()]
                self._files[:0] = left
                self.sealed_bytes += sum(file.bytes for file in left)
                message = f"files of {self._directory} that are no longer needed cannot be deleted: {error}"
                raise LogUnavailable(message, hint="The next run tries again", path=self._directory) from error
        return len(victims)

    def _remove(self, files: Sequence[LogFile]) -> None:
        """Oldest first: a crash in between leaves no gap."""
        for file in files:
            self._disk.remove(file.path)
            file.path.with_suffix(".ids").unlink(missing_ok=True)
        self._disk.sync_directory(self._directory)

    async def close(self) -> None:
        """Refuse new events, answer those that wait, let threads go. Idempotent. Does not seal."""
        self._closed = True
        await self._idle.wait()
        if self._sealing is not None:
            await asyncio.shield(self._sealing)
        if self._released:
            return
        self._released = True
        try:
            await self._committer.run(self._commits.close)
        finally:
            self._committer.close()
            self._sealer.close()
