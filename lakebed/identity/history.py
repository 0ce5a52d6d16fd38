"""IdentityHistory: mappings of past moments, computed from the stored edges. Past mappings are not stored."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lakebed.identity.mapping import Mapping
from lakebed.identity.resolve import Edges, resolve
from lakebed.identity.rules import Rules
from lakebed.tiers.storage.identity_graph import IdentityGraph

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

__all__ = ["IdentityHistory"]

_NEAR = 200_000  # ends of newer edges up to which the present mapping is changed back: about 40 MB
_PIECE = 10_000  # texts that are read at a time


class IdentityHistory:
    """Computes mappings of identities to people at past moments.

    Args:
        rules: rules of matching.
        in_thread: function that runs blocking work outside the event loop.
    """

    def __init__(self, rules: Rules, in_thread: Callable[..., Awaitable[Any]]) -> None:
        self._rules = rules
        self._in_thread = in_thread

    async def mapping(self, graph: IdentityGraph, end: int, version: int, present: Mapping) -> Mapping:
        """The mapping by the events with `seq < end`.

        Args:
            present: the mapping by all edges that are stored, or that were stored a moment ago.
        """
        since = await graph.touched_since(end, _NEAR + 1)
        if len(since) > _NEAR:
            return await self.computed(graph, end, version, present)
        # An identity that no newer edge reaches had the same person then as now.
        nodes = await graph.reached(list(set(since)))
        edges = [row for row in await graph.edges_of(nodes) if row[0] < end]
        users = await graph.users_among(nodes, end)
        resolution = await self._in_thread(lambda: resolve(Edges.of(edges), users, self._rules))
        moved = list(zip(resolution.numbers.tolist(), resolution.people.tolist(), strict=True))
        texts = await graph.texts(list({number for pair in moved for number in pair}))
        rows = [(number, person, texts[number], texts[person]) for number, person in moved]
        identities = [node for node in nodes if node > 0]
        mapping: Mapping = await self._in_thread(present.replaced, identities, rows, version)
        return mapping

    async def computed(self, graph: IdentityGraph, end: int, version: int, present: Mapping | None = None) -> Mapping:
        """The mapping by the events with `seq < end`, from all edges. Texts that `present` lacks are read."""
        pieces = [await self._in_thread(Edges.columns, rows) async for rows in graph.edges_before(end)]
        users = await graph.users_before(end) if pieces else []
        resolution = await self._in_thread(lambda: resolve(Edges.joined(pieces), users, self._rules))
        known = await self._in_thread(_texts_of, present)
        missing = await self._in_thread(_missing, known, resolution.numbers, resolution.people)
        for start in range(0, len(missing), _PIECE):
            texts = await graph.texts(missing[start : start + _PIECE])
            known.append(
                pa.table({"number": pa.array(texts, pa.int64()), "text": pa.array(texts.values(), pa.string())})
            )
        mapping: Mapping = await self._in_thread(_named, known, resolution.numbers, resolution.people, version)
        return mapping


def _texts_of(present: Mapping | None) -> list[pa.Table]:
    """The numbers of identities in a mapping with their texts, as tables."""
    tables = [pa.table({"number": pa.array([], pa.int64()), "text": pa.array([], pa.string())})]
    if present is not None:
        for number, text in (("number", "identity"), ("person", "person_id")):
            numbers = present.table[number].cast(pa.int64())
            tables.append(pa.table([numbers, present.table[text]], names=["number", "text"]))
    return tables


def _missing(known: list[pa.Table], numbers: Numbers, people: Numbers) -> list[int]:
    """Select the elements of `numbers` and `people` whose text is not in `known`. The result ascends."""
    import numpy as np  # only objects that answer questions pay for it

    wanted = np.sort(np.concatenate([numbers, people]))
    wanted = wanted[np.diff(wanted, prepend=-1) > 0]
    ready = np.append(np.sort(pa.concat_tables(known)["number"].to_numpy()), np.int64(-1))  # for a search past the end
    missing: list[int] = wanted[ready[np.searchsorted(ready[:-1], wanted)] != wanted].tolist()
    return missing


def _named(known: list[pa.Table], numbers: Numbers, people: Numbers, version: int) -> Mapping:
    """The mapping from `numbers` to `people`, with the texts of both from `known`."""
    import numpy as np  # see _missing

    texts = pa.concat_tables(known)
    ready, first = np.unique(texts["number"].to_numpy(), return_index=True)
    named = [texts["text"].take(pa.array(first[np.searchsorted(ready, wanted)])) for wanted in (numbers, people)]
    return Mapping.of_columns([numbers, people, *named], version)
