"""DeadLetterQueue: rejected events that were kept. They can be listed, corrected, replayed and purged."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time

from lakebed.clock import to_us
from lakebed.errors import UnknownDeadLetter
from lakebed.ingest.replay import Edit, Replayed, Replayer
from lakebed.moments import Moment
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
            limit: the maximum number, from 1 to 1,000.
            before: only those with a smaller id; the last id of a page gives the next page.
            reason: only those whose reason contains this text.

        Raises:
            ValueError: `limit` is not from 1 to 1,000.
        """
        if not 1 <= limit <= MAX_LISTED:
            raise ValueError(f"limit must be from 1 to {MAX_LISTED}, not {limit}")
        return await self._store.newest(limit, before, reason)

    async def dead_letter(self, id: int) -> DeadLetter:  # noqa: A002 - the name of the field
        """One dead letter. Raises UnknownDeadLetter: it never existed, or was replayed, purged or dropped."""
        letters = await self._store.get([id])
        if not letters:
            raise UnknownDeadLetter(
                f"There is no dead letter {id}", hint="dead_letters() lists the existing ones", id=id
            )
        return letters[0]

    async def replay(self, ids: Sequence[int] | None = None, edit: Edit = None) -> list[Replayed]:
        """Store dead letters as they are, or corrected; by default all. Returns the outcome of each.

        Each is stored exactly once, however often this is called, also when the process is killed. An event without a
        `message_id` or `timestamp` gets the `replay_id` and `received_at` of its dead letter. A dead letter is deleted
        when its event is durable; if it is rejected again it stays, with its new reason.

        Args:
            ids: the ids of the dead letters; None means all.
            edit: a mapping is merged into each event (RFC 7396: None removes a field; names are Segment's); text or
                bytes replace the one dead letter that `ids` names.

        Raises:
            ValueError: `edit` is a text, but there are several dead letters.
            DiskFull, LogUnavailable, Backpressure, StorageUnavailable: the rest is still stored. Call it again.
        """
        return await self._replayer.replay(ids, edit)

    async def purge(self, ids: Sequence[int] | None = None, *, before: Moment | None = None) -> int:
        """Delete dead letters for ever: those with these ids, or all rejected before a moment; returns how many.

        Raises:
            ValueError: neither `ids` nor `before` is given, or both are.
        """
        if (ids is None) == (before is None):
            raise ValueError("give either ids or before, and not both")
        return await self._replayer.purge(ids, None if before is None else _us(before))


def _us(moment: Moment) -> int:
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    if not isinstance(moment, datetime):
        moment = datetime.combine(moment, time(), UTC)
    return to_us(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
