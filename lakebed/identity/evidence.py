"""What a table of events says about identities: the users in it, and the edges."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec
import pyarrow as pa

from lakebed.events import OPERATOR
from lakebed.identity.resolve import ALIAS, DEVICE, EMAIL, IDENTIFY, MERGE, PHONE, UNMERGE
from lakebed.identity.rules import Rules, device_signal, is_blocked, normal_email, normal_phone

__all__ = ["Evidence", "Found", "Word", "evidence"]

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


def evidence(table: pa.Table, rules: Rules) -> Evidence:
    """What `table` (base columns, in order of seq) says. Vectorised but for the events that link something. Blocks."""
    import numpy as np  # noqa: PLC0415 - only objects with events pay for it
    import pyarrow.compute as pc  # noqa: PLC0415 - a quarter of what pyarrow costs to import

    users = table["user_id"].combine_chunks().dictionary_encode()
    given = np.flatnonzero(users.is_valid().to_numpy(zero_copy_only=False))
    codes, first = np.unique(users.indices.take(pa.array(given)).to_numpy(), return_index=True)
    seqs = table["seq"].take(pa.array(given[first])).to_pylist()
    own = pc.fill_null(pc.equal(table["source"], OPERATOR), fill_value=False)
    alias = pc.equal(table["type"], "alias")
    found = [
        *_claims(table.filter(pc.equal(table["type"], "identify"))),
        *_aliases(table.filter(pc.and_(alias, pc.invert(own)))),
        *_words(table.filter(pc.and_(alias, own))),  # what else Lakebed writes links nobody
    ]
    if rules.email or rules.phone:
        found += _traits(table, rules)
    if rules.devices:
        found += _devices(table)
    return Evidence(dict(zip(users.dictionary.take(pa.array(codes)).to_pylist(), seqs, strict=True)), _earliest(found))


def _earliest(found: Iterable[Found]) -> list[Found]:
    """Those that are earlier, by event time, than whatever said the same before them; operators' words all."""
    best: dict[tuple[str, str, str], tuple[int, str]] = {}
    kept = []
    for one in sorted(found, key=lambda one: one.seq):
        word = one.kind in (MERGE, UNMERGE)
        if word or one.pair not in best or one.at < best[one.pair]:
            best[one.pair] = one.at
            kept.append(one)
    return kept


def _claims(table: pa.Table) -> Iterator[Found]:
    """Identify calls with a user and another anonymous id. SDKs repeat them, so each pair's later ones are left out."""
    import numpy as np  # noqa: PLC0415 - see evidence
    import pyarrow.compute as pc  # noqa: PLC0415 - see evidence

    table = table.select(["seq", "message_id", "user_id", "anonymous_id", "timestamp"])
    table = table.filter(pc.fill_null(pc.not_equal(table["user_id"], table["anonymous_id"]), fill_value=False))
    if not table.num_rows:
        return
    users, others = (table[name].combine_chunks().dictionary_encode() for name in ("user_id", "anonymous_id"))
    codes = users.indices.to_numpy().astype(np.int64) * len(others.dictionary) + others.indices.to_numpy()
    _, first, pair = np.unique(codes, return_index=True, return_inverse=True)
    times = table["timestamp"].cast(pa.int64()).to_numpy()
    for seq, message_id, user, other, time_us in _rows(table.filter(pa.array(times <= times[first][pair]))):
        if not (is_blocked(user) or is_blocked(other)):
            yield Found(seq, IDENTIFY, user, other, time_us, message_id)


def _aliases(table: pa.Table) -> Iterator[Found]:
    for seq, message_id, user, properties, time_us in _rows(
        table.select(["seq", "message_id", "user_id", "properties", "timestamp"])
    ):
        previous = msgspec.json.decode(properties).get("previousId")
        if user is None or not isinstance(previous, str) or previous == user:
            continue
        if not (is_blocked(user) or is_blocked(previous)):
            yield Found(seq, ALIAS, user, previous, time_us, message_id)


def _words(table: pa.Table) -> Iterator[Found]:
    for seq, message_id, properties, time_us in _rows(table.select(["seq", "message_id", "properties", "timestamp"])):
        word = msgspec.json.decode(properties, type=Word)
        kind, text = word.value or (None, word.other)
        if text is not None:
            yield Found(seq, word.action, word.into, text, time_us, message_id, kind, why=word.why)


def _traits(table: pa.Table, rules: Rules) -> Iterator[Found]:
    """Emails and phone numbers: traits of identify, or of the context of any event."""
    import pyarrow.compute as pc  # noqa: PLC0415 - see evidence

    wanted: dict[str, Callable[[Any], str | None]] = {}
    wanted |= {EMAIL: normal_email} if rules.email else {}
    wanted |= {PHONE: normal_phone} if rules.phone else {}
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


def _devices(table: pa.Table) -> Iterator[Found]:
    """Device signals of any event. Contexts repeat, so each is looked at once."""
    signals: dict[str, tuple[str, float] | None] = {}
    for seq, message_id, identity, _, _, context, time_us in _rows(_identified(table)):
        if context not in signals:
            signals[context] = device_signal(msgspec.json.decode(context))
        if (signal := signals[context]) is not None:
            yield Found(seq, DEVICE, identity, signal[0], time_us, message_id, DEVICE, signal[1])


def _identified(table: pa.Table) -> pa.Table:
    """Events of somebody: seq, message_id, identity, type, properties, context, timestamp."""
    import pyarrow.compute as pc  # noqa: PLC0415 - see evidence

    identity = pc.coalesce(table["user_id"], table["anonymous_id"])
    columns = [table["seq"], table["message_id"], identity]
    columns += [table[name] for name in ("type", "properties", "context", "timestamp")]
    named = pa.table(columns, names=["seq", "message_id", "identity", "type", "properties", "context", "timestamp"])
    return named.filter(pc.is_valid(identity))


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Rows, whose `timestamp`, the last column, is microseconds."""
    at = table.schema.get_field_index("timestamp")
    table = table.set_column(at, "timestamp", table["timestamp"].cast(pa.int64()))
    return zip(*(column.to_pylist() for column in table.columns), strict=True)
