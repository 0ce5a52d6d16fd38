"""The identity graph in `storage.db`: users, edges and people. Everything runs within one `Transaction`.

An identity is a number: its id in `identifiers`, which the bitmaps of rollups use too. A value that identities share
(an email, a device) is a negative number: its negated id in `identity_values`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec

from lakebed.tiers.storage.identifiers import read_text, stored_text
from lakebed.tiers.storage.storage import Transaction

__all__ = ["EdgeRow", "IdentityGraph", "PersonRow"]

EdgeRow = tuple[int, str, int, int, int, str, float, str | None]  # seq, kind, a, b, time, message id, confidence, why
PersonRow = tuple[int, int, str, str]  # identity, person of the identity; then both as texts
_EDGE = "seq, kind, a, b, time_us, message_id, confidence, why"
_PAGE = 10_000  # rows that are read at a time

# The nodes `:nodes`, and all nodes that any edges connect with them.
_REACHED = """WITH RECURSIVE reached (id) AS (
    SELECT value FROM json_each(:nodes)
    UNION SELECT e.b FROM reached r JOIN identity_edges e ON e.a = r.id
    UNION SELECT e.a FROM reached r JOIN identity_edges e ON e.b = r.id
)"""


class IdentityGraph:
    """Reads and changes the graph within one transaction."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx

    async def reset(self) -> None:
        """Delete the whole graph. The caller has to drop the checkpoint."""
        for table in ("identity_users", "identity_values", "identity_edges", "identity_people"):
            await self._tx.fetch(f"DELETE FROM {table}")

    # Nodes

    async def last_number(self) -> int:
        """The number of the newest identity; 0 if there is no identity. The numbers of values are negative."""
        ((number,),) = await self._tx.fetch("SELECT coalesce(max(id), 0) FROM identifiers")
        return int(number)

    async def add_users(self, rows: Iterable[tuple[int, int]]) -> None:
        """Add new user ids, each with the seq of the first event that has this user id."""
        await self._tx.many("INSERT INTO identity_users (id, seq) VALUES (?, ?)", rows)

    async def users_among(self, nodes: Sequence[int], before: int | None = None) -> list[int]:
        """Those of `nodes` that are user ids of events, or of events before seq `before` if it is given."""
        sql = """SELECT u.id FROM json_each(:nodes) w CROSS JOIN identity_users u ON u.id = w.value
            WHERE :before IS NULL OR u.seq < :before"""
        return [number for (number,) in await self._tx.fetch(sql, {"nodes": _json(nodes), "before": before})]

    async def users_before(self, seq: int) -> list[int]:
        """The user ids that have an edge, and whose first event is before `seq`."""
        sql = """SELECT id FROM identity_users WHERE seq < :seq
            AND (id IN (SELECT a FROM identity_edges) OR id IN (SELECT b FROM identity_edges))"""
        return [number for (number,) in await self._tx.fetch(sql, {"seq": seq})]

    async def touched_since(self, seq: int, limit: int) -> list[int]:
        """The nodes that events from `seq` on affect: the ends of new edges, and new users that have edges.

        Returns at most `limit` nodes. A node may occur several times.
        """
        sql = """SELECT a FROM identity_edges WHERE seq >= :seq UNION ALL SELECT b FROM identity_edges WHERE seq >= :seq
            UNION ALL SELECT id FROM identity_users WHERE seq >= :seq AND (
                EXISTS (SELECT 1 FROM identity_edges WHERE a = id) OR EXISTS (SELECT 1 FROM identity_edges WHERE b = id)
            ) LIMIT :limit"""
        return [number for (number,) in await self._tx.fetch(sql, {"seq": seq, "limit": limit})]

    async def linked(self, numbers: Sequence[int]) -> list[int]:
        """Those of the nodes `numbers` that have an edge."""
        sql = """SELECT value FROM json_each(?) WHERE EXISTS (SELECT 1 FROM identity_edges WHERE a = value)
            OR EXISTS (SELECT 1 FROM identity_edges WHERE b = value)"""
        return [number for (number,) in await self._tx.fetch(sql, (_json(numbers),))]

    async def number(self, text: str) -> int | None:
        """The number of an identity; None if the identity is unknown."""
        rows = await self._tx.fetch("SELECT id FROM identifiers WHERE value = ?", (stored_text(text),))
        return rows[0][0] if rows else None

    async def texts(self, numbers: Sequence[int]) -> dict[int, str]:
        """The texts of identities and values, by number."""
        nodes = _json(numbers)
        rows = await self._tx.fetch(
            "SELECT i.id, i.value FROM json_each(?) w CROSS JOIN identifiers i ON i.id = w.value", (nodes,)
        )
        values = await self._tx.fetch(
            "SELECT -v.id, v.value FROM json_each(?) w CROSS JOIN identity_values v ON v.id = -w.value", (nodes,)
        )
        return {number: read_text(text) for number, text in rows} | dict(values)

    async def value_number(self, kind: str, value: str) -> int:
        """The number of a value. Adds the value if it is new."""
        await self._tx.fetch("INSERT OR IGNORE INTO identity_values (kind, value) VALUES (?, ?)", (kind, value))
        ((number,),) = await self._tx.fetch(
            "SELECT id FROM identity_values WHERE kind = ? AND value = ?", (kind, value)
        )
        return -int(number)

    # Edges

    async def earliest(self, pairs: Sequence[tuple[str, int, int]]) -> dict[tuple[str, int, int], tuple[int, str]]:
        """The smallest stored (time, message id) of each (kind, a, b). A triple without an edge is left out."""
        rows = await self._tx.fetch(
            """SELECT e.kind, e.a, e.b, e.time_us, e.message_id FROM json_each(?) w CROSS JOIN identity_edges e
            ON e.a = json_extract(w.value, '$[1]') AND e.b = json_extract(w.value, '$[2]')
            AND e.kind = json_extract(w.value, '$[0]')""",
            (_json(pairs),),
        )
        earliest: dict[tuple[str, int, int], tuple[int, str]] = {}
        for kind, a, b, time_us, message_id in rows:
            edge, order = (kind, a, b), (time_us, message_id)
            earliest[edge] = min(earliest.get(edge, order), order)
        return earliest

    async def add_edges(self, rows: Iterable[EdgeRow]) -> None:
        """Add the edges `rows`."""
        await self._tx.many(f"INSERT INTO identity_edges ({_EDGE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    async def reached(self, nodes: Sequence[int]) -> list[int]:
        """The nodes `nodes` and all nodes that are connected to them."""
        rows = await self._tx.fetch(f"{_REACHED} SELECT id FROM reached", {"nodes": _json(nodes)})
        return [number for (number,) in rows]

    async def edges_of(self, nodes: Sequence[int]) -> list[EdgeRow]:
        """The edges that start at `nodes`. For a whole connected component, these are all its edges."""
        return await self._tx.fetch(
            f"SELECT {_EDGE} FROM json_each(?) w CROSS JOIN identity_edges e ON e.a = w.value", (_json(nodes),)
        )

    async def edges_before(self, seq: int) -> AsyncIterator[list[EdgeRow]]:
        """All edges of events before `seq`, some thousands at a time."""
        last = (-1, "")
        while True:
            rows = await self._tx.fetch(
                f"""SELECT {_EDGE} FROM identity_edges WHERE (seq, kind) > (?, ?) AND seq < ?
                ORDER BY seq, kind LIMIT {_PAGE}""",
                (*last, seq),
            )
            if not rows:
                return
            yield rows
            last = rows[-1][0], rows[-1][1]

    async def newest_edges(self, limit: int) -> list[EdgeRow]:
        """The edges of the newest events, newest first."""
        return await self._tx.fetch(
            f"SELECT {_EDGE} FROM identity_edges ORDER BY seq DESC, kind DESC LIMIT ?", (limit,)
        )

    async def edge(self, kind: str, message_id: str) -> EdgeRow | None:
        """The edge of this kind from the event with this message id; None if there is none."""
        rows = await self._tx.fetch(
            f"SELECT {_EDGE} FROM identity_edges WHERE message_id = ? AND kind = ? ORDER BY seq LIMIT 1",
            (message_id, kind),
        )
        return rows[0] if rows else None

    # People

    async def put_people(self, nodes: Sequence[int], rows: Iterable[tuple[int, int]]) -> None:
        """Replace the people of `nodes` by `rows`: the (identity, person) pairs whose person is another identity."""
        await self._tx.fetch(
            "DELETE FROM identity_people WHERE id IN (SELECT value FROM json_each(?))", (_json(nodes),)
        )
        await self._tx.many("INSERT INTO identity_people (id, person) VALUES (?, ?)", rows)

    async def people(self) -> AsyncIterator[list[PersonRow]]:
        """All identities whose person is another identity, in order of numbers, some thousands at a time."""
        last = 0
        while True:
            rows = await self._tx.fetch(
                f"""SELECT m.id, m.person, i.value, p.value FROM identity_people m
                JOIN identifiers i ON i.id = m.id JOIN identifiers p ON p.id = m.person
                WHERE m.id > ? ORDER BY m.id LIMIT {_PAGE}""",
                (last,),
            )
            if not rows:
                return
            yield [(number, person, read_text(text), read_text(other)) for number, person, text, other in rows]
            last = rows[-1][0]


def _json(values: Any) -> str:
    return msgspec.json.encode(values).decode()
