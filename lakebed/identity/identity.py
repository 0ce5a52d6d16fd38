"""The identity graph of one object: a consumer of its log, and what it says of who is who."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Any, Literal, TypeVar, cast

import msgspec
import pyarrow as pa

from lakebed.clock import from_us
from lakebed.errors import ObjectClosed
from lakebed.identity.evidence import Evidence, Found, evidence
from lakebed.identity.mapping import Mapping
from lakebed.identity.resolve import EFFECTS, MERGE, UNMERGE, Edges, resolve
from lakebed.identity.rules import Rules
from lakebed.tiers.graph import EdgeRow, Graph
from lakebed.tiers.storage import Storage
from lakebed.tiers.transaction import Transaction

__all__ = ["CONSUMER", "Identity", "Merge"]

T = TypeVar("T")
Reader = Callable[[int, int, frozenset[str]], AsyncIterator[pa.Table]]

CONSUMER = "identity"
_FINGERPRINT = "identity"  # key of Storage's meta
_PIECE = 10_000  # events of one commit, so that neither the loop nor storage is held for long by many links
_REMEMBERED = 4  # mappings of other moments than now
_IN_MEMORY = 250_000  # user ids and pairs that are known without asking, about 150 bytes each


class Merge(msgspec.Struct, frozen=True, kw_only=True):
    """One edge of the graph: what was said to link two identities, and what came of it.

    Attributes:
        id: of this merge, for `unmerge`.
        kind: "identify", "alias", "merge", "unmerge", "email", "phone" or "device".
        into: the identity that was to take the other in; of a match, who showed the value.
        other: the other identity, or the value.
        effect: "merged"; "refused", by a rule; or "undone", by an operator.
        person_id: the person of `into` now.
        timestamp: when it happened, ISO 8601.
        seq: of the event that said it.
        confidence: of 1; below 1 only for devices.
        why: what an operator gave as the reason.
    """

    id: str
    kind: str
    into: str
    other: str
    effect: Literal["merged", "refused", "undone"]
    person_id: str
    timestamp: str
    seq: int
    confidence: float
    why: str | None


class _Change(msgspec.Struct, frozen=True):
    """What one batch changed: these identities are mapped anew, as `rows` say."""

    nodes: Sequence[int]
    rows: Sequence[tuple[int, int, str, str]]


class Identity:
    """Who is who in one object.

    Graph, people and checkpoint are in one transaction. The same events give the same people, in whatever order and
    batches they come.

    Args:
        storage: open for as long as this is.
        read: gives the events of [start, end) in order of seq, all of them.
        rules: of matching. With other rules than before, the graph is computed again from the whole history.

    Memory: a `Mapping` of the present, up to four of other moments while these are asked about, and 80 MB at most of
    texts that are known.
    """

    def __init__(self, storage: Storage, read: Reader, rules: Rules) -> None:
        self._storage = storage
        self._read = read
        self._rules = rules
        self._open = False
        self._marked = False  # the fingerprint is stored
        self._durable = 0  # the checkpoint in storage …
        self._at = 0  # … and what was looked at since: without it, nothing there would change
        self._changed = 0  # events from here on have changed nothing
        self._known = True  # `_at` and `_durable` are
        self._mapping: Mapping | None = None
        self._version = 0
        self._past: dict[int, Mapping] = {}
        self._seen: set[Any] = set()  # users and pairs that are committed
        self._lock = asyncio.Lock()  # one catch-up at a time
        self._tasks: set[asyncio.Task[Any]] = set()
        self._executor: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """Compare the rules with those of the stored graph; a graph of other ones is forgotten.

        Raises:
            StorageUnavailable: nothing was changed.
        """
        stored = await self._storage.get(_FINGERPRINT)
        if stored not in (None, self._rules.fingerprint):

            async def reset(tx: Transaction) -> None:
                await Graph(tx).reset()
                await tx.drop_checkpoint(CONSUMER)
                await tx.put(_FINGERPRINT, self._rules.fingerprint)

            await self._storage.transact(reset)
        self._marked = stored is not None
        await self._find_position()
        self._open = True

    async def close(self) -> None:
        """Stop after the table under way; its transaction ends. No thread is left. May be called twice."""
        self._open = False
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._mapping, self._past = None, {}
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None

    # Keeping up

    async def catch_up(self, end: int) -> None:
        """Take in all events with `seq < end`. Calls at the same time share the work, which outlives its callers.

        Raises:
            StorageUnavailable: what was committed stays; calling again goes on from there.
        """
        if self._known and end <= self._at:
            return
        await self._whole(self._catch_up(end))

    @property
    def position(self) -> int:
        """What all events before it say is in the state, as far as is known."""
        return self._at

    async def save(self) -> None:
        """Make the checkpoint durable, so that the log may let go."""
        await self._whole(self._save())

    async def checkpoint(self) -> int:
        """Durable: what events before it say is stored."""
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
            async with aclosing(cast("AsyncGenerator[pa.Table, None]", self._read(self._at, end, frozenset()))) as all_:
                async for table in all_:
                    for first in range(0, table.num_rows, _PIECE):
                        await self._take_in(table.slice(first, _PIECE))
            self._at = end  # the last ones may have been erased

    async def _find_position(self) -> None:
        """Ask the file: after a commit whose answer was lost, only it knows."""
        self._at = self._durable = self._changed = await self.checkpoint()
        self._mapping = None
        self._seen.clear()
        self._known = True

    async def _take_in(self, table: pa.Table) -> None:
        self._assert_open()
        end = table["seq"][-1].as_py() + 1
        found = await self._in_thread(evidence, table, self._rules)
        users = {text: seq for text, seq in found.users.items() if text not in self._seen}
        edges = [one for one in found.edges if (one.pair, one.at) not in self._seen]
        if users or edges:
            await self._commit(Evidence(users, edges), end)
        self._at = end

    async def _commit(self, found: Evidence, end: int) -> None:
        self._known = False
        stored, change = await self._storage.transact(lambda tx: self._merge(tx, found, end))
        self._known = True
        if stored:
            self._durable, self._marked = end, True
        if change is not None:
            self._changed = end
            self._version += 1
            if self._mapping is not None:
                identities = [node for node in change.nodes if node > 0]
                self._mapping = await self._in_thread(self._mapping.replaced, identities, change.rows, self._version)
        if len(self._seen) + len(found.users) + len(found.edges) > _IN_MEMORY:
            self._seen.clear()
        if len(found.users) + len(found.edges) <= _IN_MEMORY:
            self._seen.update(found.users)
            self._seen.update((one.pair, one.at) for one in found.edges)

    async def _merge(self, tx: Transaction, found: Evidence, end: int) -> tuple[bool, _Change | None]:
        """Whether anything was stored, and what it changed."""
        graph = Graph(tx)
        users = await graph.unknown_users(list(found.users))
        rows = await self._numbered(tx, graph, found.edges)
        if not users and not rows:
            return False, None
        numbers = await tx.identify(users)
        await graph.add_users([(number, found.users[text]) for number, text in zip(numbers, users, strict=True)])
        await graph.add_edges(rows)
        await tx.advance(CONSUMER, self._durable, end)
        if not self._marked:
            await tx.put(_FINGERPRINT, self._rules.fingerprint)
        touched = {node for row in rows for node in (row[2], row[3])} | set(await graph.linked(numbers))
        return True, await self._settled(graph, sorted(touched)) if touched else None

    async def _settled(self, graph: Graph, touched: Sequence[int]) -> _Change:
        """Resolve again what hangs together with these nodes, and store it."""
        nodes = await graph.reached(touched)
        rows, users = await graph.edges_of(nodes), await graph.users_among(nodes)
        resolution = await self._in_thread(lambda: resolve(Edges.of(rows), users, self._rules))
        moved = list(zip(resolution.numbers.tolist(), resolution.people.tolist(), strict=True))
        await graph.put_people(nodes, moved)
        texts = await graph.texts([number for pair in moved for number in pair])
        return _Change(nodes, [(one, person, texts[one], texts[person]) for one, person in moved])

    async def _numbered(self, tx: Transaction, graph: Graph, edges: Sequence[Found]) -> list[EdgeRow]:
        """The edges that say something new, as rows."""
        texts = list({text for one in edges for text in (one.a, *(() if one.value else (one.b,)))})
        numbers = dict(zip(texts, await tx.identify(texts), strict=True)) if texts else {}
        values = {
            (one.value, one.b): await graph.value_number(one.value, one.b) for one in edges if one.value is not None
        }
        ends = [(numbers[one.a], values[one.value, one.b] if one.value else numbers[one.b]) for one in edges]
        earliest = await graph.earliest([(one.kind, a, b) for one, (a, b) in zip(edges, ends, strict=True)])
        rows = []
        for one, (a, b) in zip(edges, ends, strict=True):
            word = one.kind in (MERGE, UNMERGE)
            if word or one.at < earliest.get((one.kind, a, b), (one.time_us + 1, "")):
                rows.append((one.seq, one.kind, a, b, one.time_us, one.message_id, one.confidence, one.why))
        return rows

    async def _save(self) -> None:
        async with self._lock:
            if self._known and self._at > self._durable:
                at, durable = self._at, self._durable
                self._known = False
                await self._storage.transact(lambda tx: tx.advance(CONSUMER, durable, at))
                self._durable, self._known = at, True

    # Answers

    async def mapping(self) -> Mapping:
        """Who is who, as far as it was taken in."""
        self._assert_open()
        if self._mapping is None:
            async with self._lock:
                if self._mapping is None:
                    self._version += 1
                    version = self._version

                    async def load(tx: Transaction) -> Mapping:
                        return Mapping.of([rows async for rows in Graph(tx).people()], version)

                    self._mapping = await self._storage.transact(load)
        return self._mapping

    async def mapping_at(self, end: int) -> Mapping:
        """Who was who by what events with `seq < end` say, all of which are taken in first."""
        await self.catch_up(end)
        if end >= self._changed:
            return await self.mapping()
        known = self._past.get(end)
        if known is None:
            known = await self._storage.transact(lambda tx: self._mapping_before(tx, end))
            if len(self._past) >= _REMEMBERED:
                self._past.pop(next(iter(self._past)))
            self._past[end] = known
        return known

    async def _mapping_before(self, tx: Transaction, end: int) -> Mapping:
        graph = Graph(tx)
        pieces = [await self._in_thread(Edges.columns, rows) async for rows in graph.edges_before(end)]
        users = await graph.users_before(end) if pieces else []
        resolution = await self._in_thread(lambda: resolve(Edges.joined(pieces), users, self._rules))
        self._version += 1
        pairs = list(zip(resolution.numbers.tolist(), resolution.people.tolist(), strict=True))
        texts = await graph.texts(list({number for pair in pairs for number in pair}))
        rows = [(one, person, texts[one], texts[person]) for one, person in pairs]
        return await self._in_thread(Mapping.of, [rows], self._version)

    async def merges(self, identity: str | None, limit: int) -> list[Merge]:
        """What was said of who is who, newest first: of one person, or of all."""
        mapping = await self.mapping()
        return await self._storage.transact(lambda tx: self._merges(tx, mapping, identity, limit))

    async def _merges(self, tx: Transaction, mapping: Mapping, identity: str | None, limit: int) -> list[Merge]:
        graph = Graph(tx)
        if identity is None:
            newest = await graph.newest_edges(limit)
            seeds = [row[2] for row in newest]
        else:
            number = await graph.number(identity)
            seeds = [] if number is None else [number]
        nodes = await graph.reached(seeds)
        rows, users = await graph.edges_of(nodes), await graph.users_among(nodes)
        resolution = await self._in_thread(lambda: resolve(Edges.of(rows), users, self._rules))
        effects = {(row[0], row[1]): effect for row, effect in zip(rows, resolution.effects.tolist(), strict=True)}
        texts = await graph.texts(nodes)
        people = dict(zip(resolution.numbers.tolist(), resolution.people.tolist(), strict=True))
        if identity is not None:
            person = mapping.person_of(identity)
            rows = [row for row in rows if person in {mapping.person_of(texts[end]) for end in row[2:4] if end > 0}]
        chosen = sorted(rows if identity is not None else newest, reverse=True)[:limit]
        return [
            Merge(
                id=f"{kind}:{message_id}",
                kind=kind,
                into=texts[a],
                other=texts[b],
                effect=EFFECTS[effects[seq, kind]],  # type: ignore[arg-type]  # a literal of that tuple
                person_id=texts[people.get(a, a)],
                timestamp=from_us(time_us).isoformat(),
                seq=seq,
                confidence=confidence,
                why=why,
            )
            for seq, kind, a, b, time_us, message_id, confidence, why in chosen
        ]

    async def ends_of(self, merge_id: str) -> tuple[str, str, str | None] | None:
        """The two sides of a merge, and the kind of value that the second is; None where there is no such merge."""
        kind, _, message_id = merge_id.partition(":")

        async def find(tx: Transaction) -> tuple[str, str, str | None] | None:
            graph = Graph(tx)
            edge = None if kind == UNMERGE else await graph.edge(kind, message_id)
            if edge is None:
                return None
            texts = await graph.texts(edge[2:4])
            return texts[edge[2]], texts[edge[3]], kind if edge[3] < 0 else None

        return await self._storage.transact(find)

    async def check(self, end: int) -> list[str]:
        """Problems, as sentences: whether the stored people are those of the stored edges.

        Args:
            end: the log's `next_seq`, up to which it was caught up.
        """
        problems = []
        if self._at != end:
            problems.append(f"identity has taken in {self._at} events, the log ends at {end}")

        async def both(tx: Transaction) -> tuple[Mapping, Mapping]:
            stored = Mapping.of([rows async for rows in Graph(tx).people()], 0)
            return stored, await self._mapping_before(tx, end)

        stored, computed = await self._storage.transact(both)
        if not stored.table.equals(computed.table):
            problems.append(f"identity has {len(stored)} merged ids; its edges give {len(computed)}, or other ones")
        return problems

    # The parts

    def _assert_open(self) -> None:
        if not self._open:
            raise ObjectClosed("identity is not open")

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        if self._executor is None:
            name = self._storage.path.parent.name
            self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"lakebed-identity-{name}")
        return await asyncio.get_running_loop().run_in_executor(self._executor, functools.partial(function, *args))
