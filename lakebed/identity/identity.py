"""Identity: the identity graph of one object, which consumes its log and maps identities to people."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, TypeVar, cast

import msgspec
import pyarrow as pa

from lakebed.concurrency import Worker
from lakebed.errors import ObjectClosed
from lakebed.identity.extraction import USERS, Evidence, FoundEdge, cuts, evidence, links, unfiltered
from lakebed.identity.history import IdentityHistory
from lakebed.identity.mapping import Mapping
from lakebed.identity.merge import Merge, merges
from lakebed.identity.resolve import UNMERGE, Edges, resolve
from lakebed.identity.rules import Rules
from lakebed.tiers.storage.identifiers import identify
from lakebed.tiers.storage.identity_graph import EdgeRow, IdentityGraph
from lakebed.tiers.storage.storage import Storage, Transaction

__all__ = ["CONSUMER", "Identity"]

T = TypeVar("T")
Read = Callable[[int, int, frozenset[str]], AsyncIterator[pa.Table]]
Ask = Callable[[int, int, Sequence[str]], Awaitable[list[pa.Table]]]

CONSUMER = "identity"
_FINGERPRINT = "identity"  # key of Storage's meta
_FEW = 10_000  # events up to which all are read, not selected by SQL: DuckDB takes milliseconds to begin
_MANY = 2_000_000  # events whose user ids are queried at a time: most ids are repeated often …
_WINDOW = 500_000  # … events that are processed together …
_LINKING = 100_000  # … and maximum of those that may link identities, about a kilobyte each
# Users and edges of one commit, so that a large batch does not keep storage locked for long. New ids lie anywhere in
# the index of all ids: with pieces of half the size each page of it is written twice as often.
_PIECE = 25_000
_UNSAVED = 1_000_000  # maximum of events that are processed again after a crash
_REMEMBERED = 4  # mappings of past moments in memory
_NEVER = (1 << 63, "")  # order later than that of every event
_IN_MEMORY = 250_000  # user ids and pairs that are known without a query, about 150 bytes each


class _Change(msgspec.Struct, frozen=True):
    """The change of the mapping by one batch: `rows` replace the mapping's rows of the identities in `nodes`."""

    nodes: Sequence[int]
    rows: Sequence[tuple[int, int, str, str]]


class Identity:
    """Maps the identities of one object to people.

    Graph, people and checkpoint change in one transaction. The same events give the same people, whatever the order and
    the batches in which they arrive.

    Args:
        storage: L2. It must be open as long as this object is.
        read: function that gives all events of [start, end), in order of seq.
        ask: function that runs SELECTs over the table `events`, which has the events of [start, end).
        rules: rules of matching. If they changed, the graph is computed again from the whole history.

    Memory: a `Mapping` of the present, up to four of past moments, and at most 80 MB of known texts.
    """

    def __init__(self, storage: Storage, read: Read, ask: Ask, rules: Rules) -> None:
        self._storage = storage
        self._read = read
        self._ask = ask
        self._rules = rules
        self._open = False
        self._marked = False  # the fingerprint is stored
        self._durable = 0  # the checkpoint in storage …
        self._at = 0  # … and the end of the events processed since, which changed nothing
        self._changed = 0  # the end of the last events that changed the mapping
        self._known = True  # False while `_at` and `_durable` may be wrong
        self._mapping: Mapping | None = None
        self._version = 0
        self._past: dict[int, Mapping] = {}
        # Committed users, and committed pairs with their earliest order.
        self._users: set[str] = set()
        self._pairs: dict[tuple[str, str, str], tuple[int, str]] = {}
        self._lock = asyncio.Lock()  # one catch-up at a time
        self._tasks: set[asyncio.Task[Any]] = set()
        self._worker = Worker(f"identity-{storage.path.parent.name}")

    async def open(self) -> None:
        """Compare the rules with those of the stored graph. Drop the graph if it was made by other rules.

        Raises:
            StorageUnavailable: nothing was changed.
        """
        self._worker = Worker(f"identity-{self._storage.path.parent.name}")
        stored = await self._storage.get(_FINGERPRINT)
        if stored not in (None, self._rules.fingerprint):

            async def reset(tx: Transaction) -> None:
                await IdentityGraph(tx).reset()
                await tx.drop_checkpoint(CONSUMER)
                await tx.put(_FINGERPRINT, self._rules.fingerprint)

            await self._storage.transact(reset)
        self._marked = stored is not None
        await self._find_position()
        self._open = True

    async def close(self) -> None:
        """Complete the transaction of the current piece, stop, and end the thread. May be called twice.

        Also saves the checkpoint: events that changed nothing are then not read again after the next `open`.

        Raises:
            StorageUnavailable: the checkpoint could not be saved. The object is closed nevertheless.
        """
        self._open = False
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self._save()
        finally:
            self._mapping, self._past = None, {}
            self._worker.close()

    # Keeping up

    async def catch_up(self, end: int) -> None:
        """Process all events with `seq < end`. Concurrent calls share the work. It goes on if they are cancelled.

        Raises:
            StorageUnavailable: committed pieces stay; the next call continues after them.
        """
        if self._known and end <= self._at:
            return
        await self._whole(self._catch_up(end))

    @property
    def position(self) -> int:
        """The seq before which all events are processed."""
        return self._at

    async def save(self) -> None:
        """Make the checkpoint durable, so that the log may delete the events before it."""
        await self._whole(self._save())

    async def checkpoint(self) -> int:
        """The durable checkpoint: the facts of all events before it are stored."""
        return (await self._storage.checkpoints()).get(CONSUMER, 0)

    async def _whole(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.shield(task)

    async def _catch_up(self, end: int) -> None:
        async with self._lock:
            if not self._known:
                await self._find_position()
            if end <= self._at:
                return
            while self._at < end:
                await self._take_in(self._at, min(self._at + _MANY, end))

    async def _find_position(self) -> None:
        """Read the checkpoint from the file. After a commit with an unknown outcome, only the file is right."""
        self._at = self._durable = self._changed = await self.checkpoint()
        self._mapping = None
        self._users.clear()
        self._pairs.clear()
        self._known = True

    async def _take_in(self, start: int, end: int) -> None:
        async with aclosing(self._windows(start, end)) as windows:
            async for users, linking, last in windows:
                for piece, cut in await self._worker.run(self._pieces, users, linking, self._at, last):
                    self._assert_open()
                    await self._commit(piece, cut)
                    self._at = cut
                self._assert_open()
                self._at = last
                if self._at - self._durable >= _UNSAVED:
                    await self._advance()
        self._at = end  # the last events may have been erased

    async def _windows(self, start: int, end: int) -> AsyncGenerator[tuple[pa.Table, pa.Table, int], None]:
        """Yield for each window: the users, the events that may link identities, and the seq at the window's end."""
        if end - start <= _FEW:
            async with aclosing(cast("AsyncGenerator[pa.Table, None]", self._read(start, end, frozenset()))) as tables:
                async for table in tables:
                    if table.num_rows:
                        yield *await self._worker.run(unfiltered, table), table["seq"][-1].as_py() + 1
            return
        users, cut_seqs = await self._ask(start, end, (USERS, cuts(self._rules, _LINKING)))
        first = start
        for last in sorted({*range(start + _WINDOW, end, _WINDOW), *cut_seqs["seq"].to_pylist(), end}):
            (linking,) = await self._ask(first, last, (links(self._rules),))
            yield users, linking, last
            first = last

    def _pieces(self, users: pa.Table, linking: pa.Table, start: int, end: int) -> list[tuple[Evidence, int]]:
        """Find facts in `[start, end)` that may not be committed yet. Returns pieces, each with the seq at its end."""
        import pyarrow.compute as pc  # a quarter of the time that pyarrow takes to import

        users = users.filter(pc.and_(pc.greater_equal(users["seq"], start), pc.less(users["seq"], end)))
        facts = evidence(users, linking, self._rules)
        new = Evidence(
            {text: seq for text, seq in facts.users.items() if text not in self._users},
            [edge for edge in facts.edges if edge.by_operator or edge.order < self._pairs.get(edge.pair, _NEVER)],
        )
        return list(new.pieces(end, _PIECE)) if len(new) else []

    async def _commit(self, facts: Evidence, end: int) -> None:
        self._known = False
        stored, change = await self._storage.transact(lambda tx: self._merge(tx, facts, end))
        self._known = True
        if stored:
            self._durable, self._marked = end, True
        if change is not None:
            self._changed = end
            self._version += 1
            if self._mapping is not None:
                identities = [node for node in change.nodes if node > 0]
                self._mapping = await self._worker.run(self._mapping.replaced, identities, change.rows, self._version)
        if len(self._users) + len(self._pairs) + len(facts) > _IN_MEMORY:
            self._users.clear()
            self._pairs.clear()
        self._users.update(facts.users)
        self._pairs.update((edge.pair, edge.order) for edge in facts.edges)

    async def _merge(self, tx: Transaction, facts: Evidence, end: int) -> tuple[bool, _Change | None]:
        """Store new facts. Returns whether there were any, and the change of the mapping (None: no change)."""
        graph = IdentityGraph(tx)
        last = await graph.last_number()
        texts = {
            *facts.users,
            *(edge.a for edge in facts.edges),
            *(edge.b for edge in facts.edges if edge.value is None),
        }
        numbers = dict(zip(texts, await identify(tx, list(texts)), strict=True))
        known = set(await graph.users_among(_old([numbers[text] for text in facts.users], last)))
        users = {numbers[text]: seq for text, seq in facts.users.items() if numbers[text] not in known}
        rows = await self._numbered(graph, facts.edges, numbers, last)
        if not users and not rows:
            return False, None
        await graph.add_users(sorted(users.items()))
        await graph.add_edges(rows)
        await tx.advance(CONSUMER, self._durable, end)
        if not self._marked:
            await tx.put(_FINGERPRINT, self._rules.fingerprint)
        touched = {node for row in rows for node in (row[2], row[3])} | set(await graph.linked(_old(users, last)))
        if not touched:
            return True, None
        # New identities are in no stored edge, so the graph is not asked about them.
        old = await graph.reached(_old(touched, last))
        nodes = sorted(touched | set(old))
        rows = [*await graph.edges_of(old), *(row for row in rows if row[2] > last)]
        every = {*users, *await graph.users_among(old)}
        resolution = await self._worker.run(lambda: resolve(Edges.of(rows), every, self._rules))
        moved = list(zip(resolution.numbers.tolist(), resolution.people.tolist(), strict=True))
        await graph.put_people(old, moved)
        named = {number: text for text, number in numbers.items()}
        named |= await graph.texts(list({number for pair in moved for number in pair} - named.keys()))
        return True, _Change(nodes, [(node, person, named[node], named[person]) for node, person in moved])

    async def _numbered(
        self, graph: IdentityGraph, edges: Sequence[FoundEdge], numbers: dict[str, int], last: int
    ) -> list[EdgeRow]:
        """Select the edges that are not stored, or now have an earlier order, or are an operator's. Returns rows."""
        values = {
            (edge.value, edge.b): await graph.value_number(edge.value, edge.b)
            for edge in edges
            if edge.value is not None
        }
        ends = [(numbers[edge.a], values[edge.value, edge.b] if edge.value else numbers[edge.b]) for edge in edges]
        pairs = [(edge.kind, a, b) for edge, (a, b) in zip(edges, ends, strict=True) if a <= last and b <= last]
        earliest = await graph.earliest(pairs)
        rows = []
        for edge, (a, b) in zip(edges, ends, strict=True):
            if edge.by_operator or edge.order < earliest.get((edge.kind, a, b), _NEVER):
                rows.append((edge.seq, edge.kind, a, b, edge.time_us, edge.message_id, edge.confidence, edge.why))
        return rows

    async def _save(self) -> None:
        async with self._lock:
            if self._known and self._at > self._durable:
                await self._advance()

    async def _advance(self) -> None:
        position, durable = self._at, self._durable
        self._known = False
        await self._storage.transact(lambda tx: tx.advance(CONSUMER, durable, position))
        self._durable, self._known = position, True

    # Answers

    async def mapping(self) -> Mapping:
        """The present mapping, by all events that were processed so far."""
        self._assert_open()
        if self._mapping is None:
            async with self._lock:
                if self._mapping is None:
                    self._version += 1
                    version = self._version
                    self._mapping = await self._storage.transact(lambda tx: self._stored(tx, version))
        return self._mapping

    async def mapping_at(self, end: int) -> Mapping:
        """The mapping by the events with `seq < end`. Processes these events first."""
        await self.catch_up(end)
        past = self._past.get(end)
        if past is None:
            present = await self.mapping()
            if end >= self._changed:
                return present
            self._version += 1
            past = await self._storage.transact(partial(self._before, end=end, version=self._version, present=present))
            if len(self._past) >= _REMEMBERED:
                self._past.pop(next(iter(self._past)))
            self._past[end] = past
        return past

    async def _before(self, tx: Transaction, end: int, version: int, present: Mapping) -> Mapping:
        return await IdentityHistory(self._rules, self._worker.run).mapping(IdentityGraph(tx), end, version, present)

    async def _stored(self, tx: Transaction, version: int) -> Mapping:
        """Read the present mapping from storage."""
        tables = [await self._worker.run(Mapping.columns, rows) async for rows in IdentityGraph(tx).people()]
        return Mapping.of(tables, version)

    async def merges(self, identity: str | None, limit: int) -> list[Merge]:
        """The merges of one person, or of all people if `identity` is None, newest first."""
        mapping = await self.mapping()
        read = partial(merges, rules=self._rules, in_thread=self._worker.run)
        return await self._storage.transact(lambda tx: read(IdentityGraph(tx), mapping, identity, limit))

    async def ends_of(self, merge_id: str) -> tuple[str, str, str | None] | None:
        """The two sides of a merge, and the kind of the second if that is a value. Returns None for unknown merges."""
        kind, _, message_id = merge_id.partition(":")

        async def find(tx: Transaction) -> tuple[str, str, str | None] | None:
            graph = IdentityGraph(tx)
            edge = None if kind == UNMERGE else await graph.edge(kind, message_id)
            if edge is None:
                return None
            texts = await graph.texts(edge[2:4])
            return texts[edge[2]], texts[edge[3]], kind if edge[3] < 0 else None

        return await self._storage.transact(find)

    async def check(self, end: int) -> list[str]:
        """Compare the stored people with those computed from the stored edges. Returns problems, a sentence each.

        Args:
            end: the log's `next_seq`, up to which events were processed.
        """
        problems = []
        if self._at != end:
            problems.append(f"identity has processed {self._at} events, but the log ends at {end}")

        async def both(tx: Transaction) -> tuple[Mapping, Mapping]:
            computed = await IdentityHistory(self._rules, self._worker.run).computed(IdentityGraph(tx), end, 0)
            return await self._stored(tx, 0), computed

        stored, computed = await self._storage.transact(both)
        if not stored.table.equals(computed.table):
            problems.append(
                f"identity has {stored.size} merged ids, but its edges give {computed.size}, or different ones"
            )
        return problems

    # The parts

    def _assert_open(self) -> None:
        if not self._open:
            raise ObjectClosed("identity is not open", hint="Open the object first")


def _old(nodes: Iterable[int], last: int) -> list[int]:
    """Select the nodes that may have been stored before: those up to `last`, the highest number at that time."""
    return [node for node in nodes if node <= last]
