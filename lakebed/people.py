"""People: the verbs about who is who."""

from __future__ import annotations

from lakebed.assembled import Assembled, Moment
from lakebed.identity.merge import Merge
from lakebed.identity.person import Person

__all__ = ["People"]


class People(Assembled):
    """Who the people of an Analytics object are. `docs/identity.md` has the rules."""

    async def person(self, id: str, *, as_of: Moment | None = None) -> Person | None:  # noqa: A002 - as it is asked
        """The person who has this id, user id or anonymous id; None where nothing was ever heard of it.

        `as_of` is exact at any instant, merges included.
        """
        return await self._up.roster.person(id, as_of)

    async def merge(self, a: str, b: str, *, why: str | None = None) -> Merge:
        """Make one person of those of two ids, durably, as an event of the log.

        Raises:
            InvalidMerge: they are one already.
        """
        return await self._up.roster.merge(a, b, why)

    async def unmerge(self, merge_id: str, *, why: str | None = None) -> Merge:
        """Take one merge of `merges` back, whoever said it. Nothing is rescanned; `merge` may join them again.

        Raises:
            InvalidMerge: there is no such merge.
        """
        return await self._up.roster.unmerge(merge_id, why)

    async def merges(self, id: str | None = None, *, limit: int = 100) -> list[Merge]:  # noqa: A002 - the same
        """The audit: who was merged when, by what, and why, or why not; newest first, of one person or of all."""
        return await self._up.roster.merges(id, limit)
