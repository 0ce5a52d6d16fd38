"""What events say about identities: the users in them, and the edges.

Most events say nothing new, so of many DuckDB is asked for those that may: `USERS` and `links`, SQL over `events`.
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

__all__ = ["USERS", "Evidence", "Found", "Word", "cuts", "evidence", "excerpts", "links"]

USERS = "SELECT user_id, min(seq) AS seq FROM events WHERE user_id IS NOT NULL GROUP BY user_id"
_LINKS = """
SELECT seq, message_id, type, user_id, anonymous_id, source, properties, context, epoch_us(timestamp) AS time_us
FROM events WHERE {} ORDER BY seq
"""
_CUTS = """
SELECT seq FROM (SELECT seq, row_number() OVER (ORDER BY seq) AS place FROM events WHERE {}) WHERE place % {} = 0
"""
_CONFIDENCE = {EMAIL: 1.0, PHONE: 1.0}


class Word(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an operator said, as the properties of an event of the log.

    Attributes:
        action: "merge" or "unmerge".
        into: the identity that names the person, or one side of what is taken back.
        other: the other side, where it is an identity …
        value: … or the kind and text of a value.
        why: the reason that was given.
    """

    action: str
    into: str
    other: str | None = None
    value: tuple[str, str] | None = None
    why: str | None = None


class Found(msgspec.Struct, frozen=True):
    """One edge, before its ends have numbers.

    Attributes:
        value: the kind of value that `b` is, None where it is an identity.
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
        """What it says, whenever it was said."""
        return self.kind, self.a, self.b

    @property
    def is_word(self) -> bool:
        """Whether it is an operator's, of which each counts."""
        return self.kind in (MERGE, UNMERGE)

    @property
    def at(self) -> tuple[int, str]:
        """By which conflicts are settled."""
        return self.time_us, self.message_id


class Evidence(msgspec.Struct, frozen=True):
    """What some events say.

    Attributes:
        users: user ids, each with the seq of its first event here.
        edges: in order of seq. Of the same thing said twice, only what is earlier by event time than all before it.
    """

    users: dict[str, int]
    edges: list[Found]

    def __len__(self) -> int:
        return len(self.users) + len(self.edges)

    def pieces(self, end: int, most: int) -> Iterator[tuple[Evidence, int]]:
        """The same in pieces of about `most`, each with the seq before which it says all. The last one's is `end`."""
        users = sorted(self.users.items(), key=lambda item: item[1])
        first_of = [seq for _, seq in users], [one.seq for one in self.edges]
        seqs = sorted([*first_of[0], *first_of[1]])
        low = (0, 0)
        for cut in [*sorted(set(seqs[most::most])), end]:
            high = bisect_left(first_of[0], cut), bisect_left(first_of[1], cut)
            yield Evidence(dict(users[low[0] : high[0]]), self.edges[low[1] : high[1]]), cut
            low = high


def links(rules: Rules) -> str:
    """SQL: the events that may link identities by `rules`, in order of seq, with what `evidence` needs of them."""
    return _LINKS.format(_may_link(rules))


def cuts(rules: Rules, most: int) -> str:
    """SQL: where to cut, so that `links` gives at most `most` between two cuts. Each event of a cut is after it."""
    return _CUTS.format(_may_link(rules), most)


def _may_link(rules: Rules) -> str:
    conditions = ["type IN ('identify', 'alias')"]
    conditions += [f"contains(context, '\"{name}\"')" for name in _normal(rules)]
    # Of contexts as clients wrote them only the empty one is sure to have no signal.
    conditions += ["context <> '{}'"] if rules.devices else []
    return " OR ".join(conditions)


def excerpts(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """What `USERS` and `links` give of a table of events in order of seq, and beside it events that say nothing."""
    import numpy as np  # only objects with events pay for it

    users = table["user_id"].combine_chunks().dictionary_encode()
    given = np.flatnonzero(users.is_valid().to_numpy(zero_copy_only=False))
    codes, first = np.unique(users.indices.take(pa.array(given)).to_numpy(), return_index=True)
    columns = [users.dictionary.take(pa.array(codes)), table["seq"].take(pa.array(given[first]))]
    times = table["timestamp"].cast(pa.int64())
    return pa.table(columns, names=["user_id", "seq"]), table.append_column("time_us", times)


def evidence(users: pa.Table, linking: pa.Table, rules: Rules) -> Evidence:
    """What events say of which `USERS` and `links` gave these. Blocks."""
    import pyarrow.compute as pc  # a quarter of what pyarrow costs to import

    own = pc.fill_null(pc.equal(linking["source"], OPERATOR), fill_value=False)
    alias = pc.equal(linking["type"], "alias")
    found = [
        *_claims(linking.filter(pc.equal(linking["type"], "identify"))),
        *_aliases(linking.filter(pc.and_(alias, pc.invert(own)))),
        *_words(linking.filter(pc.and_(alias, own))),  # what else Lakebed writes links nobody
    ]
    if rules.email or rules.phone:
        found += _traits(linking, rules)
    if rules.devices:
        found += _devices(linking)
    return Evidence(dict(zip(*(column.to_pylist() for column in users.columns), strict=True)), _earliest(found))


def _earliest(found: Iterable[Found]) -> list[Found]:
    """Those that are earlier, by event time, than whatever said the same before them; operators' words all."""
    best: dict[tuple[str, str, str], tuple[int, str]] = {}
    kept = []
    for one in sorted(found, key=lambda one: one.seq):
        pair, at = one.pair, one.at
        if one.is_word or pair not in best or at < best[pair]:
            best[pair] = at
            kept.append(one)
    return kept


def _claims(table: pa.Table) -> Iterator[Found]:
    """Identify calls with a user and another anonymous id. SDKs repeat them, so each pair's later ones are left out."""
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
            yield Found(seq, IDENTIFY, user, other, time_us, message_id)


def _aliases(table: pa.Table) -> Iterator[Found]:
    for seq, message_id, user, properties, time_us in _rows(
        table.select(["seq", "message_id", "user_id", "properties", "time_us"])
    ):
        previous = msgspec.json.decode(properties).get("previousId")
        if user is None or not isinstance(previous, str) or previous == user:
            continue
        if not (is_blocked(user) or is_blocked(previous)):
            yield Found(seq, ALIAS, user, previous, time_us, message_id)


def _words(table: pa.Table) -> Iterator[Found]:
    for seq, message_id, properties, time_us in _rows(table.select(["seq", "message_id", "properties", "time_us"])):
        word = msgspec.json.decode(properties, type=Word)
        kind, text = word.value or (None, word.other)
        if text is not None:
            yield Found(seq, word.action, word.into, text, time_us, message_id, kind, why=word.why)


def _traits(table: pa.Table, rules: Rules) -> Iterator[Found]:
    """Emails and phone numbers: traits of identify, or of the context of any event."""
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
                yield Found(seq, name, identity, value, time_us, message_id, name, _CONFIDENCE[name])


def _normal(rules: Rules) -> dict[str, Callable[[Any], str | None]]:
    """The traits that link, and how each is brought to one form."""
    wanted: dict[str, Callable[[Any], str | None]] = {}
    wanted |= {EMAIL: normal_email} if rules.email else {}
    wanted |= {PHONE: normal_phone} if rules.phone else {}
    return wanted


def _devices(table: pa.Table) -> Iterator[Found]:
    """Device signals of any event. Contexts repeat, so each is looked at once."""
    signals: dict[str, tuple[str, float] | None] = {}
    for seq, message_id, identity, _, _, context, time_us in _rows(_identified(table)):
        if context not in signals:
            signals[context] = device_signal(msgspec.json.decode(context))
        if (signal := signals[context]) is not None:
            yield Found(seq, DEVICE, identity, signal[0], time_us, message_id, DEVICE, signal[1])


def _identified(table: pa.Table) -> pa.Table:
    """Events of somebody: seq, message_id, identity, type, properties, context, time_us."""
    import pyarrow.compute as pc  # see evidence

    identity = pc.coalesce(table["user_id"], table["anonymous_id"])
    columns = [table["seq"], table["message_id"], identity]
    columns += [table[name] for name in ("type", "properties", "context", "time_us")]
    named = pa.table(columns, names=["seq", "message_id", "identity", "type", "properties", "context", "time_us"])
    return named.filter(pc.is_valid(identity))


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)
