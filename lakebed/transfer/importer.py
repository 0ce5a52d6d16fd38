"""Import: the rows of one input into an object's log, each once, however often it is interrupted or run again."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from lakebed.concurrency import Worker
from lakebed.errors import Backpressure
from lakebed.events.event import Receipt
from lakebed.transfer.chunk import ROWS, Chain, Chunk
from lakebed.transfer.mapping import RowMapping
from lakebed.transfer.packing import Packer, Parcel
from lakebed.transfer.positions import Position, Positions
from lakebed.transfer.rejects import Rejects
from lakebed.transfer.source import Source

__all__ = ["Loading", "Tally"]

_T = TypeVar("_T")
_IN_FLIGHT = 3
_NOTED_EVERY = 4 * ROWS
_AHEAD = _NOTED_EVERY + (_IN_FLIGHT + 1) * ROWS
_PATIENCE = 10
_MOST_KEPT = 1_000  # of rows that are no events: each costs a transaction, and a file of another kind has nothing else
_KNOWN = "SELECT message_id FROM events WHERE seq >= $since AND list_contains($ids, message_id)"
_REASONS = 20


class Tally(msgspec.Struct):
    """What became of rows. `received` is always `stored + duplicate + rejected`.

    Attributes:
        skipped: of those, how many an earlier run had taken already; they were not sent again.
        reasons: why rows were refused, and how many for that; the first twenty reasons.
    """

    received: int = 0
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    skipped: int = 0
    reasons: dict[str, int] = {}

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.received + other.received,
            self.stored + other.stored,
            self.duplicate + other.duplicate,
            self.rejected + other.rejected,
            self.skipped + other.skipped,
            dict((Counter(self.reasons) + Counter(other.reasons)).most_common(_REASONS)),
        )

    def refuse(self, reason: str) -> None:
        """Count a refused row."""
        self.rejected += 1
        if reason in self.reasons or len(self.reasons) < _REASONS:
            self.reasons[reason] = self.reasons.get(reason, 0) + 1


class _Sent(msgspec.Struct):
    """A chunk on its way to the log. `seq` is where the log stood before; `at` has the row of each receipt."""

    ack: Any
    body: bytes
    at: Any
    chunk: Chunk
    parcel: Parcel
    seq: int


class Loading:
    """The import of one source.

    At most three chunks are on their way to the log at once. After each, how far the import came is made durable, so
    that a rerun need not send it again. What a run that was killed had sent behind that is looked for in the log: the
    log remembers message ids for a while only, and this must hold for ever.

    Args:
        analytics: the open object.
        source: freshly opened.
        mapping: what a row is, and `mapping_id`, a hash of the options that say so.
        positions: of this object; used in `worker` only, as the source is.
        worker: one thread, for what blocks.
        moved: told after each chunk.
    """

    def __init__(
        self,
        analytics: Any,
        source: Source,
        mapping: RowMapping,
        mapping_id: str,
        *,
        positions: Positions,
        worker: Worker,
        rejects: Rejects,
        moved: Callable[[Source, Tally], None],
    ) -> None:
        self._analytics = analytics
        self._source = source
        self._mapping = mapping
        self._positions = positions
        self._worker = worker
        self._rejects = rejects
        self._moved = moved
        self._chain = Chain()
        self._position = Position(
            head=source.head,
            mapping=mapping_id,
            path=str(source.path.absolute()),
            size=source.size,
            modified=source.modified,
        )
        self._since = self._unsure_until = 0  # from which seq, and up to which row, an interrupted run may have stored
        self._sent_rows = self._noted = 0
        self._letters: list[Any] = []
        self._kept = 0
        self._sent: deque[_Sent] = deque()
        self._digests: deque[str] = deque()
        self.tally = Tally()

    async def run(self) -> Tally:
        """Import what is not imported yet.

        Cancelled, it waits for what is on its way and notes how far it came. Raises what `batch` raises, and Failure.
        """
        found = None if self._source.is_stdin else await self._off_loop(self._resume)
        if found is not None:
            self._take_as_known(found)
            if found.complete and self._is_same(found):
                return self.tally
            self._since, self._unsure_until = found.next_seq, found.received + found.ahead
            self._sent_rows = found.received
            self._position = msgspec.structs.replace(found, **self._identity)
        await self._note()
        packer = Packer(self._source, self._mapping, self._chain)
        chunks = self._source.chunks(self._position.rows, self._position.offset)
        packing = self._off_loop(lambda: self._pack(chunks, packer))
        try:
            while (packed := await packing) is not None:
                packing = self._off_loop(lambda: self._pack(chunks, packer))  # while these rows go to the log
                await self._send(*packed)
                while len(self._sent) >= _IN_FLIGHT:
                    await self._settle()
        finally:
            packing.cancel()
            self._source.stop()
            await self._drain()
        await self._note(complete=True)
        return self.tally

    async def _drain(self) -> None:
        """Wait for what is on its way. Behind one that failed nothing counts: a rerun looks for it in the log."""
        try:
            while self._sent:
                await self._settle()
        finally:
            await asyncio.gather(*(self._outcome(sent) for sent in self._sent), return_exceptions=True)
            self._sent.clear()
        await self._note()

    @staticmethod
    async def _outcome(sent: _Sent) -> None:
        if sent.ack is not None:
            await sent.ack

    def _is_same(self, position: Position) -> bool:
        """Whether the file was not touched since; wherever it lay then."""
        own = self._position
        return (position.head, position.size, position.modified) == (own.head, own.size, own.modified)

    @property
    def _identity(self) -> dict[str, Any]:
        own = self._position
        return {"head": own.head, "path": own.path, "size": own.size, "modified": own.modified}

    def _resume(self) -> Position | None:
        """How far an earlier run came, if what it read is still there, and so is what it stored."""
        for found in self._positions.find(self._source, self._position.mapping):
            if found.next_seq > self._analytics.stats().next_seq:
                continue  # the object's directory was put back to an earlier state
            if found.complete and self._is_same(found):
                return found
            if self._source.skip(found.offset, self._chain) and self._chain.digest() == found.digest:
                return found
            self._source.rewind()
            self._chain = Chain()
        return None

    def _take_as_known(self, position: Position) -> None:
        taken = position.received - position.rejected
        self.tally = Tally(position.received, 0, taken, position.rejected, position.received)
        self._moved(self._source, self.tally)

    def _pack(self, chunks: Iterator[Chunk], packer: Packer) -> tuple[Chunk, Parcel] | None:
        chunk = next(chunks, None)
        if chunk is None:
            return None
        parcel = packer.pack(chunk)
        self._digests.append(self._chain.digest())
        return chunk, parcel

    async def _send(self, chunk: Chunk, parcel: Parcel) -> None:
        known = await self._known(parcel) if self._sent_rows < self._unsure_until else frozenset[str]()
        self._sent_rows += parcel.rows
        body, at = parcel.sent(known)
        seq = self._analytics.stats().next_seq
        ack = self._batch(body) if len(at) else None
        self._sent.append(_Sent(ack, body, at, chunk, parcel, seq))

    async def _known(self, parcel: Parcel) -> frozenset[str]:
        """Which events of `parcel` a run that was interrupted had stored."""
        if not parcel.ids or self._since >= self._analytics.stats().next_seq:
            return frozenset()
        found = await self._analytics.query(_KNOWN, {"since": self._since, "ids": list(parcel.ids)})
        return frozenset(row.message_id for row in found)

    async def _settle(self) -> None:
        """Wait for the oldest chunk on its way, count what became of it, and note that it is durable."""
        sent = self._sent[0]
        receipts = () if sent.ack is None else await self._acknowledged(sent)
        self._sent.popleft()  # only now: a wait that is cancelled is done again
        self._count(sent, receipts)
        self._position = msgspec.structs.replace(
            self._position,
            offset=self._position.offset + self._source.offset_of(sent.chunk),
            rows=sent.chunk.number + len(sent.chunk),
            received=self.tally.received,
            rejected=self.tally.rejected,
            digest=self._digests.popleft(),
        )
        if self._position.received - self._noted >= _NOTED_EVERY:
            await self._note()
        self._moved(self._source, self.tally)

    def _batch(self, body: bytes) -> Any:
        return self._analytics.batch(body, source="import", keep_refused=not self._rejects.is_open)

    def _count(self, sent: _Sent, receipts: Sequence[Receipt]) -> None:
        """Count what became of a chunk's rows, and keep those that are no events."""
        self.tally.received += sent.parcel.rows
        self.tally.duplicate += len(sent.parcel.ids) - len(sent.at)
        for n, reason in sent.parcel.refused.items():
            self._refuse(sent, n, reason)
            if not self._rejects.is_open and self._kept < _MOST_KEPT:
                self._kept += 1
                self._letters.append(self._analytics.refuse(sent.chunk.raws[n], reason, source="import"))
        for n, receipt in zip(sent.at, receipts, strict=True):
            if receipt.status == "rejected":
                self._refuse(sent, n, receipt.reason or "")
            elif receipt.status == "stored":
                self.tally.stored += 1
            else:
                self.tally.duplicate += 1

    async def _acknowledged(self, sent: _Sent) -> list[Receipt]:
        """The receipts. A log that is busy is waited for: the ids make a second sending harmless."""
        for _ in range(_PATIENCE):
            try:
                return list(await sent.ack)
            except Backpressure:
                await self._analytics.flush()
                sent.ack = self._batch(sent.body)
        return list(await sent.ack)

    def _refuse(self, sent: _Sent, n: int, reason: str) -> None:
        self.tally.refuse(reason)
        self._rejects.add(str(self._source.path), sent.chunk.number + n + 1, reason, sent.chunk.raws[n])

    async def _note(self, *, complete: bool = False) -> None:
        """Make durable how far this came."""
        letters, self._letters = self._letters, []
        for letter in letters:
            await letter
        self._noted = self._position.received
        if self._source.is_stdin:
            return
        next_seq = self._sent[0].seq if self._sent else self._analytics.stats().next_seq
        if self._position.received < self._unsure_until:
            next_seq = self._since  # what the interrupted run stored lies from there on, still
        digest = self._position.digest or Chain().digest()
        self._position = msgspec.structs.replace(
            self._position, digest=digest, next_seq=next_seq, ahead=_AHEAD, complete=complete
        )
        await self._off_loop(self._keep)

    def _keep(self) -> None:
        self._rejects.sync()
        self._positions.put(self._position)

    def _off_loop(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        return self._worker.run(work)
