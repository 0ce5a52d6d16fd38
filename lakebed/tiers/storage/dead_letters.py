"""Dead letters: rejected events, as they were sent, in `storage.db`. This file has all SQL of dead letters."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from lakebed.clock import from_us
from lakebed.events.event import MAX_EVENT_BYTES, MAX_MESSAGE_ID
from lakebed.tiers.storage.storage import Storage, Transaction

__all__ = [
    "MAX_PER_REQUEST",
    "MAX_RAW_BYTES",
    "DeadLetter",
    "DeadLetterCounts",
    "DeadLetters",
    "RejectedItem",
    "UnfinishedReplay",
]

MAX_RAW_BYTES = 4 * MAX_EVENT_BYTES  # more than any event that could be corrected has
MAX_PER_REQUEST = 2_500
_CHUNK = 500  # the oldest dead letters that are read at a time, to drop some
_REPLAYING = "replaying"  # key of Storage's meta
_COLUMNS = "id, at_us, reason, source, key, message_id, replay_id, tries, tried_us, size, shared, raw"
_COUNTS = "waiting, bytes, kept, dropped, replayed, purged"


class RejectedItem(msgspec.Struct, frozen=True, kw_only=True):
    """A rejected item, to be stored as a dead letter.

    Attributes:
        reason: the reason of the rejection.
        raw: the bytes that were sent.
        shared: the fields of the batch that hold for all events (`sentAt`, `context`), a JSON object; empty if none.
        message_id: the client's message id; None if the id could not be read.
        source, key: the source of the item, and the id of the API key.
    """

    reason: str
    raw: bytes
    shared: bytes = b""
    message_id: str | None = None
    source: str | None = None
    key: str | None = None


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One rejected item, kept until it is corrected and replayed, or purged.

    Attributes:
        id: the number of the dead letter in this object; never reused.
        received_at: the time of the rejection. A replay uses this time as the time at which the event was received.
        reason: the reason of the last rejection.
        source: the source of the event: "http", "python" …
        key: the id of the API key with which the item was sent, if any.
        message_id: the client's message id; None if the id could not be read.
        replay_id: the message id with which a replay stores an event that has no message id.
        tries: the number of rejected replays; `tried_at`: the time of the last one.
        size: the number of bytes that were sent; more than in `raw` if the item was cut.
        raw: the bytes that were sent: an event, or a whole body that could not be split into events.
        shared: the fields of the batch that hold for all events, a JSON object; empty if none.
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
        """Whether only a part of the item is kept: then a replay needs a complete text."""
        return self.size > len(self.raw)


class DeadLetterCounts(msgspec.Struct):
    """Counts since the file was created; number and bytes of the dead letters stored now (`waiting`, `bytes`).

    `kept = waiting + dropped + replayed + purged`.
    """

    waiting: int = 0
    bytes: int = 0
    kept: int = 0
    dropped: int = 0
    replayed: int = 0
    purged: int = 0


class UnfinishedReplay(msgspec.Struct):
    """A replay that was not finished. `letters`: message ids by dead letter; the log may have them from `seq` on."""

    seq: int
    letters: dict[int, list[str]]


class DeadLetters:
    """The dead letters of one object, bounded in number and bytes: above a bound, the oldest ones are dropped.

    Args:
        storage: an open `Storage`.
        max_count: the limit of dead letters.
        max_bytes: the limit of the bytes of all dead letters.

    Attributes:
        counts: the counts as of the last transaction.
        dropped: dead letters dropped since this opening.

    Raises:
        StorageUnavailable: from any method. Nothing was changed.
    """

    def __init__(self, storage: Storage, max_count: int, max_bytes: int) -> None:
        self._storage = storage
        self._max_count = max_count
        self._max_bytes = max_bytes
        self.counts = DeadLetterCounts()
        self.dropped = 0

    async def open(self) -> None:
        """Read `counts` from the file."""
        self.counts = await self._storage.transact(_read_counts)

    async def keep(self, items: Sequence[RejectedItem], now_us: int) -> None:
        """Store the rejected items of one request, durably, in one transaction.

        Only the first items are stored: at most `MAX_PER_REQUEST`, and at most a quarter of `max_bytes` (but at least
        one item). The others count as dropped. Equal bytes with an equal message id, as of a retry, are stored once.
        """
        sizes = itertools.accumulate(min(len(item.raw), MAX_RAW_BYTES) + len(item.shared) for item in items)
        fitting = sum(1 for _ in itertools.takewhile(lambda size: size <= self._max_bytes // 4, sizes))
        stored = items[: min(max(fitting, 1), MAX_PER_REQUEST)]
        surplus = len(items) - len(stored)

        async def work(tx: Transaction) -> tuple[DeadLetterCounts, int]:
            counts = await _read_counts(tx)
            before = counts.dropped
            await self._add(tx, stored, now_us, counts)
            counts.kept, counts.dropped = counts.kept + surplus, counts.dropped + surplus
            await self._drop_oldest(tx, counts)
            await _write_counts(tx, counts)
            return counts, counts.dropped - before

        self.counts, dropped = await self._storage.transact(work)
        self.dropped += dropped

    async def _add(self, tx: Transaction, items: Sequence[RejectedItem], now_us: int, counts: DeadLetterCounts) -> None:
        message_ids = msgspec.json.encode([item.message_id for item in items if item.message_id]).decode()
        known = set(
            await tx.fetch(
                """SELECT message_id, size, raw FROM dead_letters
                WHERE message_id IN (SELECT value FROM json_each(?))""",
                (message_ids,),
            )
        )
        rows = []
        for item in items:
            raw, size, message_id = item.raw[:MAX_RAW_BYTES], len(item.raw), item.message_id
            if message_id is not None and not 0 < len(message_id) <= MAX_MESSAGE_ID:
                message_id = None
            elif message_id is not None:
                if (message_id, size, raw) in known:
                    continue
                known.add((message_id, size, raw))
            replay_id = f"dl-{uuid.uuid4().hex}"
            rows.append((now_us, item.reason, item.source, item.key, message_id, replay_id, size, item.shared, raw))
            counts.bytes += len(raw) + len(item.shared)
        await tx.many(
            """INSERT INTO dead_letters (at_us, reason, source, key, message_id, replay_id, size, shared, raw)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)""",
            rows,
        )
        counts.kept, counts.waiting = counts.kept + len(rows), counts.waiting + len(rows)

    async def _drop_oldest(self, tx: Transaction, counts: DeadLetterCounts) -> None:
        while counts.waiting > self._max_count or counts.bytes > self._max_bytes:
            rows = await tx.fetch(
                "SELECT id, length(raw) + length(shared) FROM dead_letters ORDER BY id LIMIT ?", (_CHUNK,)
            )
            dropped = []
            for number, size in rows:
                if counts.waiting <= self._max_count and counts.bytes <= self._max_bytes:
                    break
                dropped.append(number)
                counts.waiting, counts.bytes = counts.waiting - 1, counts.bytes - size
                counts.dropped += 1
            await _delete(tx, dropped)

    async def newest(self, limit: int, before: int | None, reason: str | None) -> list[DeadLetter]:
        """At most `limit` dead letters, newest first, with an id below `before` and `reason` within their reason."""

        async def work(tx: Transaction) -> list[DeadLetter]:
            rows = await tx.fetch(
                f"""SELECT {_COLUMNS} FROM dead_letters WHERE (?1 IS NULL OR id < ?1)
                AND (?2 IS NULL OR instr(reason, ?2)) ORDER BY id DESC LIMIT ?3""",
                (before, reason, limit),
            )
            return [_dead_letter(row) for row in rows]

        return await self._storage.transact(work)

    async def get(self, ids: Iterable[int]) -> list[DeadLetter]:
        """The existing dead letters among these ids, oldest first."""

        async def work(tx: Transaction) -> list[DeadLetter]:
            wanted = msgspec.json.encode(sorted(ids)).decode()
            rows = await tx.fetch(
                f"SELECT {_COLUMNS} FROM dead_letters WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
                (wanted,),
            )
            return [_dead_letter(row) for row in rows]

        return await self._storage.transact(work)

    async def ids(self) -> list[int]:
        """The ids of all dead letters, oldest first."""

        async def work(tx: Transaction) -> list[int]:
            return [number for (number,) in await tx.fetch("SELECT id FROM dead_letters ORDER BY id")]

        return await self._storage.transact(work)

    async def purge(self, ids: Sequence[int] | None, before_us: int | None) -> int:
        """Delete the dead letters with these ids, and those rejected before `before_us`. Returns the number deleted."""

        async def work(tx: Transaction) -> tuple[DeadLetterCounts, int]:
            counts = await _read_counts(tx)
            purged = list(ids or ())
            if before_us is not None:
                rows = await tx.fetch("SELECT id FROM dead_letters WHERE at_us < ?", (before_us,))
                purged += [number for (number,) in rows]
            count = await _remove(tx, counts, purged)
            counts.purged += count
            await _write_counts(tx, counts)
            return counts, count

        self.counts, count = await self._storage.transact(work)
        return count

    # Replays

    async def start_replay(self, replay: UnfinishedReplay) -> None:
        """Record durably that the events of `replay` go to the log now."""
        await self._storage.put(_REPLAYING, replay)

    async def unfinished_replay(self) -> UnfinishedReplay | None:
        """The replay that has started and has not finished; None if there is none."""
        replay: UnfinishedReplay | None = await self._storage.get(_REPLAYING, None, UnfinishedReplay | None)
        return replay

    async def finish_replay(
        self, replayed: Sequence[int], rejected: Mapping[int, str], now_us: int, remaining: UnfinishedReplay | None
    ) -> None:
        """Delete dead letters whose events are durable; update dead letters that were rejected again.

        Args:
            replayed: the ids of dead letters whose events are durable.
            rejected: the new reason by the id of each dead letter that was rejected.
            now_us: the time of the replay, microseconds.
            remaining: events that may be in the log although they were not acknowledged; None if there are none.
        """

        async def work(tx: Transaction) -> DeadLetterCounts:
            counts = await _read_counts(tx)
            counts.replayed += await _remove(tx, counts, replayed)
            await tx.many(
                "UPDATE dead_letters SET reason = ?, tries = tries + 1, tried_us = ? WHERE id = ?",
                [(reason, now_us, number) for number, reason in rejected.items()],
            )
            await _write_counts(tx, counts)
            await tx.put(_REPLAYING, remaining)
            return counts

        self.counts = await self._storage.transact(work)

    # Health

    async def check(self) -> list[str]:
        """The problems, one sentence each; none if the counts are right and nothing was dropped since this opening."""

        async def work(tx: Transaction) -> tuple[DeadLetterCounts, Any]:
            totals = "SELECT count(*), coalesce(sum(length(raw) + length(shared)), 0) FROM dead_letters"
            return await _read_counts(tx), (await tx.fetch(totals))[0]

        counts, (count, size) = await self._storage.transact(work)
        problems = []
        if (counts.waiting, counts.bytes) != (count, size):
            message = f"{count} dead letters of {size} bytes are stored"
            problems.append(f"{message}, the counts say {counts.waiting} of {counts.bytes}")
        if counts.kept != counts.waiting + counts.dropped + counts.replayed + counts.purged:
            problems.append(f"the counts of dead letters do not add up: {counts}")
        if self.dropped:
            limits = f"{self._max_count} (dead_letters_max), {self._max_bytes} bytes (dead_letters_max_bytes)"
            problems.append(
                f"{self.dropped} dead letters were dropped, the limits are {limits} and {MAX_PER_REQUEST} for each "
                "request: replay or purge some, or raise a limit"
            )
        return problems


async def _read_counts(tx: Transaction) -> DeadLetterCounts:
    (row,) = await tx.fetch(f"SELECT {_COUNTS} FROM dead_letter_books")
    return DeadLetterCounts(*row)


async def _write_counts(tx: Transaction, counts: DeadLetterCounts) -> None:
    await tx.fetch(
        f"UPDATE dead_letter_books SET ({_COUNTS}) = (?, ?, ?, ?, ?, ?)", tuple(msgspec.structs.asdict(counts).values())
    )


async def _remove(tx: Transaction, counts: DeadLetterCounts, ids: Sequence[int]) -> int:
    """Delete the dead letters with these ids, and update `counts`. Returns the number of deleted dead letters."""
    numbers = msgspec.json.encode(list(ids)).decode()
    ((count, size),) = await tx.fetch(
        """SELECT count(*), coalesce(sum(length(raw) + length(shared)), 0) FROM dead_letters
        WHERE id IN (SELECT value FROM json_each(?))""",
        (numbers,),
    )
    await _delete(tx, ids)
    counts.waiting, counts.bytes = counts.waiting - count, counts.bytes - size
    return int(count)


async def _delete(tx: Transaction, ids: Sequence[int]) -> None:
    numbers = msgspec.json.encode(list(ids)).decode()
    await tx.fetch("DELETE FROM dead_letters WHERE id IN (SELECT value FROM json_each(?))", (numbers,))


def _dead_letter(row: tuple[Any, ...]) -> DeadLetter:
    fields = dict(zip(_COLUMNS.split(", "), row, strict=True))
    tried_us = fields.pop("tried_us")
    return DeadLetter(
        received_at=from_us(fields.pop("at_us")), tried_at=None if tried_us is None else from_us(tried_us), **fields
    )
