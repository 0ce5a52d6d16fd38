"""Extraction: finds the facts about identities in events. A fact is a user id or an edge.

Most events have no new fact. If there are many events, DuckDB selects those that may have one, by the SQL in `USERS`
and `links`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
import pyarrow as pa

from lakebed.events.event import OPERATOR
from lakebed.identity.resolve import ALIAS, DEVICE, EMAIL, IDENTIFY, MERGE, PHONE, UNMERGE
from lakebed.identity.rules import Rules, device_signal, is_blocked, normal_email, normal_phone

__all__ = ["USERS", "Evidence", "FoundEdge", "OperatorMerge", "cuts", "evidence", "links", "unfiltered"]

USERS = "SELECT user_id, min(seq) AS seq FROM events WHERE user_id IS NOT NULL GROUP BY user_id"
_LINKS = """
SELECT seq, message_id, type, user_id, anonymous_id, source, properties, context, epoch_us(timestamp) AS time_us
FROM events WHERE {} ORDER BY seq
"""
_CUTS = """
SELECT seq FROM (SELECT seq, row_number() OVER (ORDER BY seq) AS place FROM events WHERE {}) WHERE place % {} = 0
"""
_CONFIDENCE = {EMAIL: 1.0, PHONE: 1.0}


class OperatorMerge(msgspec.Struct, frozen=True, omit_defaults=True):
    """The properties of the log's event for a merge or unmerge by an operator.

    Attributes:
        action: "merge" or "unmerge".
        into: the identity whose id the person keeps, or one side of the merge that is undone.
        other: the other side if it is an identity; else None.
        value: the kind and text of the other side if it is a value; else None.
        why: the operator's reason.
    """

    action: str
    into: str
    other: str | None = None
    value: tuple[str, str] | None = None
    why: str | None = None


class FoundEdge(msgspec.Struct, frozen=True):
    """An edge found in an event. Its ends are texts: they have no numbers yet.

    Attributes:
        value: kind of the value `b`; None if `b` is an identity.
    """

    seq: int
    kind: str
    a: str
    b: str
    time_us: int
    message_id: str
    value: str | None = None
    confidence: float = 1.0
    why: str | None = None

    @property
    def pair(self) -> tuple[str, str, str]:
        """The kind and the two ends, which are equal for two edges that state the same fact."""
        return self.kind, self.a, self.b

    @property
    def by_operator(self) -> bool:
        """Whether an operator made this edge. Every edge of an operator counts, not only the earliest of its pair."""
        return self.kind in (MERGE, UNMERGE)

    @property
    def order(self) -> tuple[int, str]:
        """The event time and message id. Conflicting edges are compared by them, and the earliest edge wins."""
        return self.time_us, self.message_id


class Evidence(msgspec.Struct, frozen=True):
    """The facts in some events.

    Attributes:
        users: user ids, each with the seq of its first event here.
        edges: edges in order of seq. A client's edge is repeated only if the repetition has an earlier event time.
    """

    users: dict[str, int]
    edges: list[FoundEdge]

    def __len__(self) -> int:
        return len(self.users) + len(self.edges)

    def pieces(self, end: int, size: int) -> Iterator[tuple[Evidence, int]]:
        """Split the facts into pieces of about `size`. Yields each with the seq before which it ends (last: `end`)."""
        users = sorted(self.users.items(), key=lambda item: item[1])
        first_of = [seq for _, seq in users], [edge.seq for edge in self.edges]
        seqs = sorted([*first_of[0], *first_of[1]])
        low = (0, 0)
        for cut in [*sorted(set(seqs[size::size])), end]:
            high = bisect_left(first_of[0], cut), bisect_left(first_of[1], cut)
            yield Evidence(dict(users[low[0] : high[0]]), self.edges[low[1] : high[1]]), cut
            low = high


def links(rules: Rules) -> str:
    """SQL for the events that may link identities by `rules`, in order of seq: the columns that `evidence` needs."""
    return _LINKS.format(_may_link(rules))


def cuts(rules: Rules, size: int) -> str:
    """SQL for the seqs that divide events so that `links` gives at most `size` events between two of them."""
    return _CUTS.format(_may_link(rules), size)


def _may_link(rules: Rules) -> str:
    conditions = ["type IN ('identify', 'alias')"]
    conditions += [f"contains(context, '\"{name}\"')" for name in _normal(rules)]
    # Clients may write anything into a context: only the empty one surely has no signal.
    conditions += ["context <> '{}'"] if rules.devices else []
    return " OR ".join(conditions)


def unfiltered(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """The results of `USERS` and `links` for `table`, events in order of seq. The second result has every event."""
    import numpy as np  # only objects with events pay for it

    users = table["user_id"].combine_chunks().dictionary_encode()
    rows = np.flatnonzero(users.is_valid().to_numpy(zero_copy_only=False))
    codes, first = np.unique(users.indices.take(pa.array(rows)).to_numpy(), return_index=True)
    columns = [users.dictionary.take(pa.array(codes)), table["seq"].take(pa.array(rows[first]))]
    times = table["timestamp"].cast(pa.int64())
    return pa.table(columns, names=["user_id", "seq"]), table.append_column("time_us", times)


def evidence(users: pa.Table, linking: pa.Table, rules: Rules) -> Evidence:
    """Extract the facts from the results of `USERS` and `links`. Blocks."""
    import pyarrow.compute as pc  # a quarter of the time that pyarrow takes to import

    own = pc.fill_null(pc.equal(linking["source"], OPERATOR), fill_value=False)
    alias = pc.equal(linking["type"], "alias")
    edges = [
        *_claims(linking.filter(pc.equal(linking["type"], "identify"))),
        *_aliases(linking.filter(pc.and_(alias, pc.invert(own)))),
        *_operator_merges(linking.filter(pc.and_(alias, own))),  # documents of the operator link nothing
    ]
    if rules.email or rules.phone:
        edges += _traits(linking, rules)
    if rules.devices:
        edges += _devices(linking)
    return Evidence(dict(zip(*(column.to_pylist() for column in users.columns), strict=True)), _earliest(edges))


def _earliest(edges: Iterable[FoundEdge]) -> list[FoundEdge]:
    """Select each edge that is earlier than all equal edges with a lower seq, and every edge of an operator."""
    earliest: dict[tuple[str, str, str], tuple[int, str]] = {}
    selected = []
    for edge in sorted(edges, key=lambda edge: edge.seq):
        pair, order = edge.pair, edge.order
        if edge.by_operator or pair not in earliest or order < earliest[pair]:
            earliest[pair] = order
            selected.append(edge)
    return selected


def _claims(table: pa.Table) -> Iterator[FoundEdge]:
    """Edges for identify calls whose two ids differ. SDKs repeat such calls: later ones of a pair are left out."""
    import numpy as np  # see evidence
    import pyarrow.compute as pc  # see evidence

    table = table.select(["seq", "message_id", "user_id", "anonymous_id", "time_us"])
    table = table.filter(pc.fill_null(pc.not_equal(table["user_id"], table["anonymous_id"]), fill_value=False))
    if not table.num_rows:
        return
    users, others = (table[name].combine_chunks().dictionary_encode() for name in ("user_id", "anonymous_id"))
    codes = users.indices.to_numpy().astype(np.int64) * len(others.dictionary) + others.indices.to_numpy()
    _, first, pair = np.unique(codes, return_index=True, return_inverse=True)
    times = table["time_us"].to_numpy()
    for seq, message_id, user, other, time_us in _rows(table.filter(pa.array(times <= times[first][pair]))):
        if not (is_blocked(user) or is_blocked(other)):
            yield FoundEdge(seq, IDENTIFY, user, other, time_us, message_id)


def _aliases(table: pa.Table) -> Iterator[FoundEdge]:
    for seq, message_id, user, properties, time_us in _rows(
        table.select(["seq", "message_id", "user_id", "properties", "time_us"])
    ):
        previous = msgspec.json.decode(properties).get("previousId")
        if user is None or not isinstance(previous, str) or previous == user:
            continue
        if not (is_blocked(user) or is_blocked(previous)):
            yield FoundEdge(seq, ALIAS, user, previous, time_us, message_id)


def _operator_merges(table: pa.Table) -> Iterator[FoundEdge]:
    for seq, message_id, properties, time_us in _rows(table.select(["seq", "message_id", "properties", "time_us"])):
        merge = msgspec.json.decode(properties, type=OperatorMerge)
        kind, text = merge.value or (None, merge.other)
        if text is not None:
            yield FoundEdge(seq, merge.action, merge.into, text, time_us, message_id, kind, why=merge.why)


def _traits(table: pa.Table, rules: Rules) -> Iterator[FoundEdge]:
    """Edges for emails and phone numbers, from traits of identify calls or in the context of any event."""
    import pyarrow.compute as pc  # see evidence

    wanted = _normal(rules)
    named = pc.match_substring_regex(table["context"], f'"({"|".join(wanted)})"')
    table = table.filter(pc.or_(named, pc.equal(table["type"], "identify")))
    for seq, message_id, identity, kind, properties, context, time_us in _rows(_identified(table)):
        own = msgspec.json.decode(properties) if kind == "identify" else {}
        traits = msgspec.json.decode(context).get("traits")
        both = (traits if isinstance(traits, dict) else {}) | own
        for name, normal in wanted.items():
            value = normal(both.get(name))
            if value is not None and not is_blocked(value):
                yield FoundEdge(seq, name, identity, value, time_us, message_id, name, _CONFIDENCE[name])


def _normal(rules: Rules) -> dict[str, Callable[[Any], str | None]]:
    """The traits that link identities by `rules`, each with the function that normalizes its value."""
    wanted: dict[str, Callable[[Any], str | None]] = {}
    wanted |= {EMAIL: normal_email} if rules.email else {}
    wanted |= {PHONE: normal_phone} if rules.phone else {}
    return wanted


def _devices(table: pa.Table) -> Iterator[FoundEdge]:
    """Edges for the device signals in contexts of events. Contexts repeat, so each different one is parsed once."""
    signals: dict[str, tuple[str, float] | None] = {}
    for seq, message_id, identity, _, _, context, time_us in _rows(_identified(table)):
        if context not in signals:
            signals[context] = device_signal(msgspec.json.decode(context))
        if (signal := signals[context]) is not None:
            yield FoundEdge(seq, DEVICE, identity, signal[0], time_us, message_id, DEVICE, signal[1])


def _identified(table: pa.Table) -> pa.Table:
    """Events with a user id or anonymous id: columns seq, message_id, identity, type, properties, context, time_us."""
    import pyarrow.compute as pc  # see evidence

    identity = pc.coalesce(table["user_id"], table["anonymous_id"])
    columns = [table["seq"], table["message_id"], identity]
    columns += [table[name] for name in ("type", "properties", "context", "time_us")]
    named = pa.table(columns, names=["seq", "message_id", "identity", "type", "properties", "context", "time_us"])
    return named.filter(pc.is_valid(identity))


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)
