"""DeadLetterQueue: rejected events that were kept. They can be listed, mended, replayed and purged."""

from __future__ import annotations

from collections.abc import Sequence

from lakebed.clock import Moment, parse_moment
from lakebed.errors import UnknownDeadLetter
from lakebed.ingest.replay import Edit, Replayed, Replayer
from lakebed.tiers.storage.dead_letters import DeadLetter, DeadLetters

__all__ = ["DeadLetterQueue"]

MAX_LISTED = 1_000


class DeadLetterQueue:
    """The dead letters of one object. Over HTTP every rejected event is kept; of `batch`, those with `keep_refused`."""

    def __init__(self, store: DeadLetters, replayer: Replayer) -> None:
        self._store = store
        self._replayer = replayer

    async def dead_letters(
        self, *, limit: int = 100, before: int | None = None, reason: str | None = None
    ) -> list[DeadLetter]:
        """Dead letters, newest first.

        Args:
            limit: maximum number, from 1 to 1,000.
            before: only dead letters with a smaller id: the last id of a page gives the next page.
            reason: only dead letters whose reason contains this text.

        Raises:
            ValueError: `limit` is not from 1 to 1,000.
        """
        if not 1 <= limit <= MAX_LISTED:
            raise ValueError(f"limit must be from 1 to {MAX_LISTED}, not {limit}")
        return await self._store.newest(limit, before, reason)

    async def dead_letter(self, id: int) -> DeadLetter:  # noqa: A002 - the name of the field
        """One dead letter. Raises UnknownDeadLetter if it never existed, or was replayed, purged or dropped."""
        rows = await self._store.get([id])
        if not rows:
            raise UnknownDeadLetter(f"There is no dead letter {id}", hint="dead_letters() lists them", id=id)
        return rows[0]

    async def replay(self, ids: Sequence[int] | None = None, edit: Edit = None) -> list[Replayed]:
        """Store dead letters unchanged or mended; by default all of them. Returns the outcome of each.

        Each is stored exactly once, however often this is called, and wherever the process is killed. An event without
        a `message_id` or `timestamp` gets the dead letter's `replay_id` and `received_at`. A dead letter is deleted
        when its event is durable; one that is rejected again stays, with the new reason.

        Args:
            ids: of the dead letters to replay.
            edit: a mapping is merged into each event (RFC 7396: None removes a field; names are Segment's); text or
                bytes replace the event of the one dead letter in `ids`.

        Raises:
            ValueError: `edit` is text and there are several dead letters.
            DiskFull, LogUnavailable, Backpressure, StorageUnavailable: events that were not stored are still dead
                letters. Call it again.
        """
        return await self._replayer.replay(ids, edit)

    async def purge(self, ids: Sequence[int] | None = None, *, before: Moment | None = None) -> int:
        """Delete dead letters: those with these ids, or all that were rejected before a moment. Returns their number.

        Raises:
            ValueError: neither `ids` nor `before` is given, or both, or `before` is a naive datetime.
        """
        if (ids is None) == (before is None):
            raise ValueError("purge takes either ids or before")
        return await self._replayer.purge(ids, None if before is None else parse_moment(before))
