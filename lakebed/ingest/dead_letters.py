"""DeadLetterQueue: rejected events that were kept. They can be listed, mended, replayed and purged."""

from __future__ import annotations

from collections.abc import Sequence

from lakebed.errors import UnknownDeadLetter
from lakebed.ingest.replay import Edit, Replayed, Replayer
from lakebed.moments import Moment, parse_moment
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
            limit: at the most, up to 1,000.
            before: only those with a smaller id: the last one of a page gives the next page.
            reason: only those whose reason has this text in it.

        Raises:
            ValueError: a limit that is not from 1 to 1,000.
        """
        if not 1 <= limit <= MAX_LISTED:
            raise ValueError(f"limit must be from 1 to {MAX_LISTED}, not {limit}")
        return await self._store.newest(limit, before, reason)

    async def dead_letter(self, id: int) -> DeadLetter:  # noqa: A002 - what it is called in a letter
        """One dead letter. Raises UnknownDeadLetter when it was never there, replayed, purged or dropped."""
        found = await self._store.get([id])
        if not found:
            raise UnknownDeadLetter(f"There is no dead letter {id}", hint="dead_letters() gives those that wait", id=id)
        return found[0]

    async def replay(self, ids: Sequence[int] | None = None, edit: Edit = None) -> list[Replayed]:
        """Store dead letters as they are, or mended; by default all that wait. Gives what became of each.

        Each is stored exactly once, however often this is called, and wherever the process is killed. An event
        without a `message_id` or `timestamp` gets the letter's `replay_id` and `received_at`. A letter goes when its
        event is durable; one that is refused again stays as it was, with its new reason.

        Args:
            ids: which ones.
            edit: a mapping is merged into each event (RFC 7396: None removes a field; names are Segment's); text or
                bytes take the place of the one letter that `ids` names.

        Raises:
            ValueError: text for several letters.
            DiskFull, LogUnavailable, Backpressure, StorageUnavailable: what was not stored still waits. Call it again.
        """
        return await self._replayer.replay(ids, edit)

    async def purge(self, ids: Sequence[int] | None = None, *, before: Moment | None = None) -> int:
        """Delete dead letters for ever: those with these ids, or all that were refused before a moment. Gives how many.

        Raises:
            ValueError: `ids` and `before` are both missing or both set, or `before` is not a moment or is naive.
        """
        if (ids is None) == (before is None):
            raise ValueError("say which letters: ids, or before a moment")
        return await self._replayer.purge(ids, None if before is None else parse_moment(before))
