"""Computes people from a set of edges, by a pure function. The order in which edges arrive makes no difference.

Every choice is by (event time, message id). The steps, each of which starts from the people of the steps before it:

1. `merge` and `unmerge` by an operator: the latest for a pair counts. After `unmerge` no client's edge links the pair.
2. `merge`, and `alias` of an id that is a known user id: they join two people in every case.
3. `identify` with both ids, and `alias` of an anonymous id: a claim. A person without a known user belongs to the
   earliest claimer; later claims by others are refused, and so are those beyond `anonymous_limit`.
4. Emails, then phone numbers: people with the same value are joined, up to `user_limit` known users.
5. Devices, at or above `device_confidence`: as 4, but a device that two known people have used joins no people.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from lakebed.identity.rules import Rules
from lakebed.tiers.storage.identity_graph import EdgeRow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Numbers = NDArray[np.int64]

__all__ = [
    "ALIAS",
    "DEVICE",
    "EMAIL",
    "IDENTIFY",
    "KINDS",
    "MERGE",
    "PHONE",
    "UNMERGE",
    "Edges",
    "Resolution",
    "resolve",
]

KINDS = ("merge", "unmerge", "alias", "identify", "email", "phone", "device")
MERGE, UNMERGE, ALIAS, IDENTIFY, EMAIL, PHONE, DEVICE = KINDS
EFFECTS = ("refused", "merged", "undone")
_REFUSED, _MERGED, _UNDONE = range(3)


class Edges(msgspec.Struct, frozen=True):
    """Edges as columns, in order of event time and message id.

    Attributes:
        kind: index in `KINDS`.
        a: the user in a claim, the identity that keeps its id in a merge, the identity in a match.
        b: the other side; a negative number is a value.
        confidence: number from 0 to 1.
        order: position of each edge in the rows from which the edges were made.
    """

    kind: Any
    a: Numbers
    b: Numbers
    confidence: Any
    order: Numbers

    @classmethod
    def of(cls, rows: Sequence[EdgeRow]) -> Edges:
        """Make edges from stored rows."""
        return cls.joined([cls.columns(rows)])

    @staticmethod
    def columns(rows: Sequence[EdgeRow]) -> pa.Table:
        """Convert rows to the columns that `joined` needs: about 60 bytes a row."""
        code = {name: number for number, name in enumerate(KINDS)}
        return pa.table(
            {
                "time_us": pa.array([row[4] for row in rows], pa.int64()),
                "message_id": pa.array([row[5] for row in rows], pa.string()),
                "seq": pa.array([row[0] for row in rows], pa.int64()),
                "kind": pa.array([code[row[1]] for row in rows], pa.int8()),
                "a": pa.array([row[2] for row in rows], pa.int64()),
                "b": pa.array([row[3] for row in rows], pa.int64()),
                "confidence": pa.array([row[6] for row in rows], pa.float64()),
            }
        )

    @classmethod
    def joined(cls, tables: Sequence[pa.Table]) -> Edges:
        """Make edges from tables that `columns` made, sorted by event time, message id and seq."""
        import pyarrow.compute as pc  # a quarter of the time that pyarrow takes to import

        table = pa.concat_tables([cls.columns([]), *tables])
        keys = [(name, "ascending") for name in ("time_us", "message_id", "seq")]
        order = pc.sort_indices(table, sort_keys=keys)
        table = table.select(["kind", "a", "b", "confidence"]).take(order)
        kind, a, b, confidence = (column.to_numpy() for column in table.columns)
        return cls(kind, a, b, confidence, order.to_numpy())


class Resolution(msgspec.Struct, frozen=True):
    """The people that result from some edges.

    Attributes:
        numbers: identities whose person is another identity, ascending.
        people: the person of each identity in `numbers`.
        effects: effect of each edge, as an index in `EFFECTS`, in the order of the rows given to `Edges`.
    """

    numbers: Numbers
    people: Numbers
    effects: Any


def resolve(edges: Edges, users: Iterable[int], rules: Rules) -> Resolution:
    """Compute the people that result from `edges`. Blocks.

    Args:
        edges: every edge of each identity that occurs in them.
        users: the identities in `edges` that are known user ids.
    """
    import numpy as np  # only objects with edges pay for it

    nodes, indices = np.unique(np.concatenate([edges.a, edges.b]), return_inverse=True)
    forest = _Forest(nodes, np.isin(nodes, np.fromiter(users, np.int64)))
    left, right = indices[: len(edges.a)], indices[len(edges.a) :]
    effects = np.zeros(len(left), np.int8)
    kinds = {name: edges.kind == number for number, name in enumerate(KINDS)}
    _undo(kinds, left, right, effects)
    live = effects != _UNDONE
    of_user = forest.known[right]
    explicit = live & (kinds[MERGE] | (kinds[ALIAS] & of_user))
    for row in np.flatnonzero(explicit).tolist():
        forest.join(left[row], right[row])
    effects[explicit] = _MERGED
    _claim(forest, left, right, np.flatnonzero(live & (kinds[IDENTIFY] | (kinds[ALIAS] & ~of_user))), effects, rules)
    for kind in (EMAIL, PHONE):
        _match(forest, left, right, np.flatnonzero(live & kinds[kind]), effects, rules.user_limit)
    sure = np.flatnonzero(live & kinds[DEVICE] & (edges.confidence >= rules.device_confidence))
    _match(forest, left, right, _unambiguous(forest, left, right, sure), effects, 1)
    people = nodes[forest.names()]
    moved = (people != nodes) & (nodes > 0)
    in_row_order = np.empty_like(effects)
    in_row_order[edges.order] = effects
    return Resolution(nodes[moved], people[moved], in_row_order)


class _Forest:
    """Disjoint sets of nodes. Each set has a name, one of its identities, and counts its known users."""

    def __init__(self, nodes: Numbers, known: Any) -> None:
        import numpy as np  # see resolve

        self.known = known
        self.parent = np.arange(len(nodes))
        self.users = known.astype(np.int64)
        self.name = np.where(nodes > 0, np.arange(len(nodes)), -1)  # a value is the name of no person

    def find(self, node: int) -> int:
        """The root of the set of one node."""
        parent = self.parent
        root = node
        while parent[root] != root:
            root = parent[root]
        while parent[node] != root:
            parent[node], node = root, parent[node]
        return root

    def roots(self) -> Numbers:
        """The root of every node's set."""
        roots = self.parent
        while (roots[roots] != roots).any():
            roots = roots[roots]
        self.parent = roots.copy()
        return roots

    def names(self) -> Numbers:
        """The name of every node's set; the node's own index if no identity is in the set."""
        import numpy as np  # see resolve

        names = self.name[self.roots()]
        return np.where(names < 0, np.arange(len(names)), names)

    def join(self, into: int, other: int) -> None:
        """Join the sets of two nodes. `into`'s name stays, unless only the other set has known users or has a name."""
        into, other = self.find(into), self.find(other)
        if into == other:
            return
        better = self.name[into] < 0 or (self.users[other] and not self.users[into])
        if better and self.name[other] >= 0:
            self.name[into] = self.name[other]
        self.parent[other] = into
        self.users[into] += self.users[other]


def _undo(kinds: Any, left: Numbers, right: Numbers, effects: Any) -> None:
    """Mark the edges that operators undid. For each pair the latest merge or unmerge by an operator counts."""
    import numpy as np  # see resolve

    by_operator = np.flatnonzero(kinds[MERGE] | kinds[UNMERGE])
    latest: dict[tuple[int, int], int] = {}
    for row in by_operator.tolist():
        latest[_pair(left[row], right[row])] = row
    for row in by_operator.tolist():
        if latest[_pair(left[row], right[row])] != row or kinds[UNMERGE][row]:
            effects[row] = _UNDONE
    effects[kinds[UNMERGE]] = _UNDONE
    separated = {pair for pair, row in latest.items() if kinds[UNMERGE][row]}
    if separated:
        ends = {end for pair in separated for end in pair}
        near = np.flatnonzero(np.isin(left, list(ends)))
        undone = [row for row in near.tolist() if _pair(left[row], right[row]) in separated]
        effects[undone] = _UNDONE


def _pair(left: int, right: int) -> tuple[int, int]:
    return (int(left), int(right)) if left < right else (int(right), int(left))


def _claim(forest: _Forest, left: Numbers, right: Numbers, rows: Numbers, effects: Any, rules: Rules) -> None:
    """Give each person without a known user to its earliest claimer, up to `anonymous_limit` per claimer."""
    import numpy as np  # see resolve

    roots = forest.roots()
    claimers, claimed = roots[left[rows]], roots[right[rows]]
    free = np.flatnonzero((forest.users[claimed] == 0) & (forest.users[claimers] > 0))
    _, first = np.unique(claimed[free], return_index=True)
    won = np.sort(free[first])  # ascending again: the limit keeps the earliest
    won = won[_rank(claimers[won]) < rules.anonymous_limit]
    forest.parent[claimed[won]] = claimers[won]
    after = forest.roots()
    effects[rows[after[left[rows]] == after[right[rows]]]] = _MERGED


def _rank(values: Numbers) -> Numbers:
    """For each value, the number of equal values before it."""
    import numpy as np  # see resolve

    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.empty(0, np.int64)
    ranks = np.empty(len(values), np.int64)
    ranks[order] = np.arange(len(values)) - np.repeat(starts, np.diff(np.r_[starts, len(values)]))
    return ranks


def _match(forest: _Forest, left: Numbers, right: Numbers, rows: Numbers, effects: Any, user_limit: int) -> None:
    """Join identities with the values in their events, unless both have known users, in sum above `user_limit`."""
    for row in rows.tolist():
        identity, value = forest.find(left[row]), forest.find(right[row])
        users = forest.users[identity], forest.users[value]
        if identity != value and all(users) and sum(users) > user_limit:
            continue
        forest.join(value, identity)
        effects[row] = _MERGED


def _unambiguous(forest: _Forest, left: Numbers, right: Numbers, rows: Numbers) -> Numbers:
    """Select the rows whose value is in events of at most one known person."""
    import numpy as np  # see resolve

    roots = forest.roots()
    known = rows[forest.users[roots[left[rows]]] > 0]
    pairs = np.unique(np.stack([right[known], roots[left[known]]]), axis=1)
    values, counts = np.unique(pairs[0], return_counts=True)
    return rows[~np.isin(right[rows], values[counts > 1])]
