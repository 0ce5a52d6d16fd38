"""Importer: stores each row of one input in an object's log once, however often it is interrupted or run again."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import msgspec

from lakebed.concurrency import Worker
from lakebed.errors import Backpressure
from lakebed.events.event import Receipt
from lakebed.transfer.mapping import RowMapping
from lakebed.transfer.packing import PackedRows, Packer
from lakebed.transfer.positions import Position, Positions, Rejects
from lakebed.transfer.source import ROWS, Chain, Chunk, Source

__all__ = ["Importer", "Tally"]

_T = TypeVar("_T")
_IN_FLIGHT = 3
_SAVED_EVERY = 4 * ROWS
_AHEAD = _SAVED_EVERY + (_IN_FLIGHT + 1) * ROWS
_ATTEMPTS = 10
_MAX_DEAD_LETTERS = 1_000  # limit for rows that are no events: each costs a transaction, and a wrong file has only such
_KNOWN = "SELECT message_id FROM events WHERE seq >= $since AND list_contains($ids, message_id)"
_REASONS = 20


class Tally(msgspec.Struct):
    """The number of rows by outcome. `received` is always `stored + duplicate + rejected`.

    Attributes:
        received: all rows.
        stored: rows that are new in the log.
        duplicate: rows that the log had already.
        rejected: rows that are not valid events.
        skipped: rows, included in `received`, that an earlier run had imported and that were not sent again.
        reasons: the number of rejected rows by reason, for the first twenty reasons.
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
    """A chunk on its way to the log. `seq` is the log's next seq before it; `positions` has each receipt's row."""

    ack: Any
    body: bytes
    positions: Any
    chunk: Chunk
    packed_rows: PackedRows
    seq: int


class Importer:
    """The import of one source.

    At most three chunks are on their way to the log at once. The position behind the acknowledged rows is stored from
    time to time, so that a rerun need not send them again. Rows behind it that a killed run may have sent are looked
    up in the log by their ids: the log's own deduplication forgets ids after a while, and no row may be stored twice.

    Args:
        analytics: the open object.
        source: the input, freshly opened.
        mapping: makes events of rows.
        mapping_id: a hash of the options that `mapping` was made of.
        positions: the positions of this object; used in `worker` only, like the source.
        worker: an executor with one thread, for calls that block.
        rejects: the file of refused rows.
        moved: called with the source and the tally after each chunk.

    Attributes:
        tally: the outcome so far.
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
        # An interrupted run may have stored rows from the seq `_since` on, up to the row `_unsure_until`.
        self._since = self._unsure_until = 0
        self._sent_rows = self._saved = 0
        self._dead_letters: list[Any] = []
        self._dead_lettered = 0
        self._sent: deque[_Sent] = deque()
        self._digests: deque[str] = deque()
        self.tally = Tally()

    async def run(self) -> Tally:
        """Import the rows that are not imported yet.

        If the call is cancelled, it waits for the chunks on their way and stores the position.

        Raises:
            InvalidImport: the input cannot be read.
            LakebedError: the errors of `batch`.
        """
        earlier = None if self._source.is_stdin else await self._off_loop(self._resume)
        if earlier is not None:
            self._take_as_known(earlier)
            if earlier.complete and self._is_same(earlier):
                return self.tally
            self._since, self._unsure_until = earlier.next_seq, earlier.received + earlier.ahead
            self._sent_rows = earlier.received
            self._position = msgspec.structs.replace(earlier, **self._identity)
        await self._save_position()
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
        await self._save_position(complete=True)
        return self.tally

    async def _drain(self) -> None:
        """Wait for the chunks on their way. No chunk after a failed one counts: a rerun looks its rows up."""
        try:
            while self._sent:
                await self._settle()
        finally:
            await asyncio.gather(*(self._outcome(sent) for sent in self._sent), return_exceptions=True)
            self._sent.clear()
        await self._save_position()

    @staticmethod
    async def _outcome(sent: _Sent) -> None:
        if sent.ack is not None:
            await sent.ack

    def _is_same(self, position: Position) -> bool:
        """Whether the file is unchanged since the run of `position`, at any path."""
        own = self._position
        return (position.head, position.size, position.modified) == (own.head, own.size, own.modified)

    @property
    def _identity(self) -> dict[str, Any]:
        own = self._position
        return {"head": own.head, "path": own.path, "size": own.size, "modified": own.modified}

    def _resume(self) -> Position | None:
        """The position of an earlier run, if the input still begins with its rows, and the log still has them."""
        for position in self._positions.find(self._source, self._position.mapping):
            if position.next_seq > self._analytics.stats().next_seq:
                continue  # the object's directory was restored to a state before that run
            if position.complete and self._is_same(position):
                return position
            if self._source.skip(position.offset, self._chain) and self._chain.digest() == position.digest:
                return position
            self._source.rewind()
            self._chain = Chain()
        return None

    def _take_as_known(self, position: Position) -> None:
        taken = position.received - position.rejected
        self.tally = Tally(position.received, 0, taken, position.rejected, position.received)
        self._moved(self._source, self.tally)

    def _pack(self, chunks: Iterator[Chunk], packer: Packer) -> tuple[Chunk, PackedRows] | None:
        chunk = next(chunks, None)
        if chunk is None:
            return None
        packed_rows = packer.pack(chunk)
        self._digests.append(self._chain.digest())
        return chunk, packed_rows

    async def _send(self, chunk: Chunk, packed_rows: PackedRows) -> None:
        known = await self._known(packed_rows) if self._sent_rows < self._unsure_until else frozenset[str]()
        self._sent_rows += packed_rows.rows
        body, positions = packed_rows.sent(known)
        seq = self._analytics.stats().next_seq
        ack = self._batch(body) if len(positions) else None
        self._sent.append(_Sent(ack, body, positions, chunk, packed_rows, seq))

    async def _known(self, packed_rows: PackedRows) -> frozenset[str]:
        """The ids of events in `packed_rows` that an interrupted run had stored."""
        if not packed_rows.ids or self._since >= self._analytics.stats().next_seq:
            return frozenset()
        rows = await self._analytics.query(_KNOWN, {"since": self._since, "ids": list(packed_rows.ids)})
        return frozenset(row.message_id for row in rows)

    async def _settle(self) -> None:
        """Wait for the oldest chunk on its way, count its rows, and advance the position behind it."""
        sent = self._sent[0]
        receipts = () if sent.ack is None else await self._acknowledged(sent)
        self._sent.popleft()  # not before: after a cancelled wait, `_drain` waits for this chunk again
        self._count(sent, receipts)
        self._position = msgspec.structs.replace(
            self._position,
            offset=self._position.offset + self._source.offset_of(sent.chunk),
            rows=sent.chunk.number + len(sent.chunk),
            received=self.tally.received,
            rejected=self.tally.rejected,
            digest=self._digests.popleft(),
        )
        if self._position.received - self._saved >= _SAVED_EVERY:
            await self._save_position()
        self._moved(self._source, self.tally)

    def _batch(self, body: bytes) -> Any:
        return self._analytics.batch(body, source="import", keep_refused=not self._rejects.is_open)

    def _count(self, sent: _Sent, receipts: Sequence[Receipt]) -> None:
        """Count the rows of a chunk by outcome, and store those that are not events as dead letters."""
        self.tally.received += sent.packed_rows.rows
        self.tally.duplicate += len(sent.packed_rows.ids) - len(sent.positions)
        for n, reason in sent.packed_rows.refused.items():
            self._refuse(sent, n, reason)
            if not self._rejects.is_open and self._dead_lettered < _MAX_DEAD_LETTERS:
                self._dead_lettered += 1
                self._dead_letters.append(self._analytics.refuse(sent.chunk.raws[n], reason, source="import"))
        for n, receipt in zip(sent.positions, receipts, strict=True):
            if receipt.status == "rejected":
                self._refuse(sent, n, receipt.reason or "")
            elif receipt.status == "stored":
                self.tally.stored += 1
            else:
                self.tally.duplicate += 1

    async def _acknowledged(self, sent: _Sent) -> list[Receipt]:
        """Wait for the receipts of a chunk. If the log is busy, send the chunk again: the ids make that harmless."""
        for _ in range(_ATTEMPTS):
            try:
                return list(await sent.ack)
            except Backpressure:
                await self._analytics.flush()
                sent.ack = self._batch(sent.body)
        return list(await sent.ack)

    def _refuse(self, sent: _Sent, n: int, reason: str) -> None:
        self.tally.refuse(reason)
        self._rejects.add(str(self._source.path), sent.chunk.number + n + 1, reason, sent.chunk.raws[n])

    async def _save_position(self, *, complete: bool = False) -> None:
        """Make the position, and the dead letters before it, durable."""
        dead_letters, self._dead_letters = self._dead_letters, []
        for dead_letter in dead_letters:
            await dead_letter
        self._saved = self._position.received
        if self._source.is_stdin:
            return
        next_seq = self._sent[0].seq if self._sent else self._analytics.stats().next_seq
        if self._position.received < self._unsure_until:
            next_seq = self._since  # a rerun must still look up rows from there on
        digest = self._position.digest or Chain().digest()
        self._position = msgspec.structs.replace(
            self._position, digest=digest, next_seq=next_seq, ahead=_AHEAD, complete=complete
        )
        await self._off_loop(self._write_position)

    def _write_position(self) -> None:
        self._rejects.sync()
        self._positions.put(self._position)

    def _off_loop(self, work: Callable[[], _T]) -> asyncio.Future[_T]:
        return self._worker.run(work)
