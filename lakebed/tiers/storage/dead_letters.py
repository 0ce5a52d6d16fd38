"""Dead letters: what was refused, as it was sent, in `storage.db`. All of their SQL is here."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from lakebed.clock import from_us
from lakebed.events.event import MAX_EVENT_BYTES, MAX_MESSAGE_ID
from lakebed.tiers.storage.storage import Storage
from lakebed.tiers.storage.transaction import Transaction

__all__ = ["MAX_LETTER_BYTES", "MOST_AT_ONCE", "DeadLetter", "DeadLetters", "Refused"]

MAX_LETTER_BYTES = 4 * MAX_EVENT_BYTES  # more than any event that could be mended has
MOST_AT_ONCE = 2_500  # of one request
_PIECE = 500
_REPLAYING = "replaying"  # key of Storage's meta
_COLUMNS = "id, at_us, reason, source, key, message_id, replay_id, tries, tried_us, size, shared, raw"
_BOOKS = "waiting, bytes, kept, dropped, replayed, purged"


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be kept of one refusal.

    Attributes:
        reason: why.
        raw: what was sent.
        shared: what its batch said once for all events (`sentAt`, `context`), a JSON object; empty if nothing.
        message_id: if it could be read.
        source, key: who sent it, and the id of the key.
    """

    reason: str
    raw: bytes
    shared: bytes = b""
    message_id: str | None = None
    source: str | None = None
    key: str | None = None


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was refused, and waits to be mended and replayed, or purged.

    Attributes:
        id: its number in this object; never given twice.
        received_at: when it was refused. A replay takes it for the time at which the event was received.
        reason: why it was refused, the last time.
        source: what sent it: "http", "python" …
        key: the id of the key with which it was sent, if any.
        message_id: the client's, if it could be read.
        replay_id: the message id with which it is stored if it has none.
        tries: how often its replay was refused, and `tried_at`, when last.
        size: bytes that were sent; more than `raw` has where it was cut.
        raw: what was sent, byte for byte. An event, or a whole body that could not be taken apart.
        shared: what its batch said once for all its events, a JSON object; empty if nothing.
    """

    id: int
    received_at: datetime
    reason: str
    source: str | None
    key: str | None
    message_id: str | None
    replay_id: str
    tries: int
    tried_at: datetime | None
    size: int
    raw: bytes
    shared: bytes = b""

    @property
    def is_cut(self) -> bool:
        """Whether more was sent than is kept: then only a mended text can be replayed."""
        return self.size > len(self.raw)


class Books(msgspec.Struct):
    """Letters and their bytes that wait now; and since the file was made, how many were kept, and what became of them.

    `kept = waiting + dropped + replayed + purged`.
    """

    waiting: int = 0
    bytes: int = 0
    kept: int = 0
    dropped: int = 0
    replayed: int = 0
    purged: int = 0


class Replaying(msgspec.Struct):
    """A replay that was begun: events with these message ids, by letter, may lie in the log from `seq` on."""

    seq: int
    letters: dict[int, list[str]]


class DeadLetters:
    """The letters of one object, bounded in number and bytes: when there are too many the oldest are dropped.

    Args:
        storage: open.
        most: letters at the most.
        most_bytes: bytes of their texts at the most.

    Attributes:
        books: as of the last transaction.
        dropped: letters that were dropped since this opening.

    Raises:
        StorageUnavailable: from any method. Nothing was changed.
    """

    def __init__(self, storage: Storage, most: int, most_bytes: int) -> None:
        self._storage = storage
        self._most = most
        self._most_bytes = most_bytes
        self.books = Books()
        self.dropped = 0

    async def open(self) -> None:
        """Read the books."""
        self.books = await self._storage.transact(_read_books)

    async def keep(self, refused: Sequence[Refused], now_us: int) -> None:
        """Keep what was refused, durably, in one transaction.

        Of one request the first ones are kept: at most `MOST_AT_ONCE`, and a quarter of the bytes that there may be.

        The same text with the same message id is kept once: a client has sent it again.
        """
        sizes = itertools.accumulate(min(len(one.raw), MAX_LETTER_BYTES) + len(one.shared) for one in refused)
        fitting = sum(1 for _ in itertools.takewhile(lambda size: size <= self._most_bytes // 4, sizes))
        most = min(max(fitting, 1), MOST_AT_ONCE, len(refused))

        async def work(tx: Transaction) -> tuple[Books, int]:
            books = await _read_books(tx)
            before = books.dropped
            await self._add(tx, refused[:most], now_us, books)
            books.kept, books.dropped = books.kept + len(refused) - most, books.dropped + len(refused) - most
            await self._make_room(tx, books)
            await _write_books(tx, books)
            return books, books.dropped - before

        self.books, dropped = await self._storage.transact(work)
        self.dropped += dropped

    async def _add(self, tx: Transaction, refused: Sequence[Refused], now_us: int, books: Books) -> None:
        given = msgspec.json.encode([one.message_id for one in refused if one.message_id]).decode()
        known = set(
            await tx.fetch(
                """SELECT message_id, size, raw FROM dead_letters
                WHERE message_id IN (SELECT value FROM json_each(?))""",
                (given,),
            )
        )
        rows = []
        for one in refused:
            raw, size, message_id = one.raw[:MAX_LETTER_BYTES], len(one.raw), one.message_id
            if message_id is not None and not 0 < len(message_id) <= MAX_MESSAGE_ID:
                message_id = None
            elif message_id is not None:
                if (message_id, size, raw) in known:
                    continue
                known.add((message_id, size, raw))
            replay_id = f"dl-{uuid.uuid4().hex}"
            rows.append((now_us, one.reason, one.source, one.key, message_id, replay_id, size, one.shared, raw))
            books.bytes += len(raw) + len(one.shared)
        await tx.many(
            """INSERT INTO dead_letters (at_us, reason, source, key, message_id, replay_id, size, shared, raw)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            rows,
        )
        books.kept, books.waiting = books.kept + len(rows), books.waiting + len(rows)

    async def _make_room(self, tx: Transaction, books: Books) -> None:
        while books.waiting > self._most or books.bytes > self._most_bytes:
            rows = await tx.fetch(
                "SELECT id, length(raw) + length(shared) FROM dead_letters ORDER BY id LIMIT ?", (_PIECE,)
            )
            dropped = []
            for letter, size in rows:
                if books.waiting <= self._most and books.bytes <= self._most_bytes:
                    break
                dropped.append(letter)
                books.waiting, books.bytes, books.dropped = books.waiting - 1, books.bytes - size, books.dropped + 1
            await _delete(tx, dropped)

    async def newest(self, limit: int, before: int | None, reason: str | None) -> list[DeadLetter]:
        """Letters, newest first: those with an id below `before`, whose reason has the text `reason` in it."""

        async def work(tx: Transaction) -> list[DeadLetter]:
            rows = await tx.fetch(
                f"""SELECT {_COLUMNS} FROM dead_letters WHERE (?1 IS NULL OR id < ?1)
                AND (?2 IS NULL OR instr(reason, ?2)) ORDER BY id DESC LIMIT ?3""",
                (before, reason, limit),
            )
            return [_letter(row) for row in rows]

        return await self._storage.transact(work)

    async def get(self, ids: Iterable[int]) -> list[DeadLetter]:
        """Those of these letters that are there, oldest first."""

        async def work(tx: Transaction) -> list[DeadLetter]:
            chosen = msgspec.json.encode(sorted(ids)).decode()
            rows = await tx.fetch(
                f"SELECT {_COLUMNS} FROM dead_letters WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
                (chosen,),
            )
            return [_letter(row) for row in rows]

        return await self._storage.transact(work)

    async def ids(self) -> list[int]:
        """The numbers of all letters, oldest first."""

        async def work(tx: Transaction) -> list[int]:
            return [letter for (letter,) in await tx.fetch("SELECT id FROM dead_letters ORDER BY id")]

        return await self._storage.transact(work)

    async def purge(self, ids: Sequence[int] | None, before_us: int | None) -> int:
        """Delete the letters with these ids, or those that were refused before a moment. Gives how many there were."""

        async def work(tx: Transaction) -> tuple[Books, int]:
            books = await _read_books(tx)
            chosen: list[int] = []
            if ids is not None:
                chosen += ids
            if before_us is not None:
                chosen += [
                    one for (one,) in await tx.fetch("SELECT id FROM dead_letters WHERE at_us < ?", (before_us,))
                ]
            count = await _remove(tx, books, chosen)
            books.purged += count
            await _write_books(tx, books)
            return books, count

        self.books, count = await self._storage.transact(work)
        return count

    # Replays

    async def begin(self, replaying: Replaying) -> None:
        """Note durably that events of these letters go to the log now."""
        await self._storage.put(_REPLAYING, replaying)

    async def begun(self) -> Replaying | None:
        """The replay that was begun and did not end."""
        found: Replaying | None = await self._storage.get(_REPLAYING, None, Replaying | None)
        return found

    async def end(
        self, replayed: Sequence[int], refused: Mapping[int, str], now_us: int, still: Replaying | None
    ) -> None:
        """The replay is over: letters whose events are durable go, those that were refused have a new reason.

        Args:
            still: what may be in the log although it was not acknowledged.
        """

        async def work(tx: Transaction) -> Books:
            books = await _read_books(tx)
            books.replayed += await _remove(tx, books, replayed)
            await tx.many(
                "UPDATE dead_letters SET reason = ?, tries = tries + 1, tried_us = ? WHERE id = ?",
                [(reason, now_us, letter) for letter, reason in refused.items()],
            )
            await _write_books(tx, books)
            await tx.put(_REPLAYING, still)
            return books

        self.books = await self._storage.transact(work)

    # Health

    async def check(self) -> list[str]:
        """Problems, as sentences; empty when the books are right and nothing was dropped since this opening."""

        async def work(tx: Transaction) -> tuple[Books, Any]:
            counted = "SELECT count(*), coalesce(sum(length(raw) + length(shared)), 0) FROM dead_letters"
            return await _read_books(tx), (await tx.fetch(counted))[0]

        books, (count, size) = await self._storage.transact(work)
        problems = []
        if (books.waiting, books.bytes) != (count, size):
            problems.append(f"{count} letters of {size} bytes wait, the books say {books.waiting} of {books.bytes}")
        if books.kept != books.waiting + books.dropped + books.replayed + books.purged:
            problems.append(f"the books do not add up: {books}")
        if self.dropped:
            limits = f"{self._most} letters (dead_letters_max), {self._most_bytes} bytes (dead_letters_max_bytes)"
            problems.append(
                f"{self.dropped} were dropped for want of room; at the most {limits} and {MOST_AT_ONCE} of one request "
                "are kept: replay or purge them, or raise the limit"
            )
        return problems


async def _read_books(tx: Transaction) -> Books:
    ((*counts,),) = await tx.fetch(f"SELECT {_BOOKS} FROM dead_letter_books")
    return Books(*counts)


async def _write_books(tx: Transaction, books: Books) -> None:
    await tx.fetch(
        f"UPDATE dead_letter_books SET ({_BOOKS}) = (?, ?, ?, ?, ?, ?)", tuple(msgspec.structs.asdict(books).values())
    )


async def _remove(tx: Transaction, books: Books, ids: Sequence[int]) -> int:
    """Delete those of these letters that are there, and take them off the books. Gives how many there were."""
    chosen = msgspec.json.encode(list(ids)).decode()
    ((count, size),) = await tx.fetch(
        """SELECT count(*), coalesce(sum(length(raw) + length(shared)), 0) FROM dead_letters
        WHERE id IN (SELECT value FROM json_each(?))""",
        (chosen,),
    )
    await _delete(tx, ids)
    books.waiting, books.bytes = books.waiting - count, books.bytes - size
    return int(count)


async def _delete(tx: Transaction, ids: Sequence[int]) -> None:
    chosen = msgspec.json.encode(list(ids)).decode()
    await tx.fetch("DELETE FROM dead_letters WHERE id IN (SELECT value FROM json_each(?))", (chosen,))


def _letter(row: tuple[Any, ...]) -> DeadLetter:
    fields = dict(zip(_COLUMNS.split(", "), row, strict=True))
    tried_us = fields.pop("tried_us")
    return DeadLetter(
        received_at=from_us(fields.pop("at_us")), tried_at=None if tried_us is None else from_us(tried_us), **fields
    )
