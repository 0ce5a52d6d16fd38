"""The ids of texts that rollups count: all are stored, those of the last batches are in memory too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from lakebed.rollups.fold import PIECE, PartialState, look_up
from lakebed.tiers.storage.transaction import Transaction

__all__ = ["TextIds"]

# About 150 bytes each. Above this limit only the ids of the last batch stay in memory; the others are looked up again.
_IDS_IN_MEMORY = 250_000


class TextIds:
    """Ids of texts. Only committed ids stay in memory: a rolled back id may be assigned to another text.

    Args:
        in_thread: runs a function with arguments beside the loop.
    """

    def __init__(self, in_thread: Callable[..., Awaitable[Any]]) -> None:
        self._in_thread = in_thread
        self._ids: dict[str, int] = {}

    async def of(self, tx: Transaction, partials: Iterable[PartialState]) -> tuple[dict[str, int], list[str]]:
        """The ids of all texts of this batch, and the texts that were looked up in storage."""
        ids, missing = await self._in_thread(look_up, self._ids, partials)
        for start in range(0, len(missing), PIECE):
            piece = missing[start : start + PIECE]
            ids.update(zip(piece, await tx.identify(piece), strict=True))
        return ids, missing

    async def committed(self, ids: dict[str, int], new: Sequence[str]) -> None:
        """Keep the ids of a committed batch in memory. `new` are the texts that were looked up in storage."""
        await self._in_thread(self._keep, ids, new)

    def _keep(self, ids: dict[str, int], new: Sequence[str]) -> None:
        if len(self._ids) + len(new) > _IDS_IN_MEMORY:
            self._ids = ids
            return
        for start in range(0, len(new), PIECE):
            self._ids.update({text: ids[text] for text in new[start : start + PIECE]})
