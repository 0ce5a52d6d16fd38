"""One rollup at work: a batch of events becomes partial states, these merge with stored ones, those become rows."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import pyarrow as pa

from lakebed.events.promotions import Promotion, quoted
from lakebed.rollups.buckets import bucket_dates
from lakebed.rollups.column import PERSON, Column, column
from lakebed.rollups.expression import Expression
from lakebed.rollups.measure import Measure, as_measure
from lakebed.rollups.partial_state import PartialState, Texts, bucket_name
from lakebed.rollups.rollup import OTHER, Rollup
from lakebed.tiers.storage.storage import damaged
from lakebed.tiers.storage.transaction import Group, GroupRow

__all__ = ["OTHER_KEY", "Fold", "consumer_of"]

# Counted in the fingerprint: a new number computes all rollups again, after a change of what they compute.
_VERSION = 3
# State of this version counted documents, and is otherwise the same.
_WITH_DOCUMENTS = 2
OTHER_KEY = "*"  # real keys are JSON arrays
_TIME = pa.timestamp("us", tz="UTC")

# What msgspec, Arrow, the sketches' libraries and we ourselves raise on bytes that we never wrote.
_UNREADABLE = (
    msgspec.MsgspecError,
    pa.ArrowException,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    StopIteration,
)

States = tuple[Any, ...]  # one of each measure


class Fold:
    """A rollup, compiled for the promoted columns of its object. Every method blocks.

    Raises:
        InvalidRollup: a measure is asked of a column that cannot give it.
    """

    def __init__(self, rollup: Rollup, promotions: Mapping[str, Promotion], max_groups: int) -> None:
        self.rollup = rollup
        self.name = rollup.name
        self.consumer = consumer_of(rollup.name)
        self.max_groups = rollup.max_groups or max_groups
        self.measures: dict[str, Measure] = {}
        for name, text in rollup.measures.items():
            expression = Expression.parse(text)
            self.measures[name] = as_measure(expression, _column(expression.column, promotions))
        # These count identities, of which several may be one person.
        self.people = tuple(
            name
            for name, text in rollup.measures.items()
            if (one := Expression.parse(text)).function == "distinct" and one.column == PERSON
        )
        self.sql = self._select([column(name, promotions).text for name in rollup.by])
        read = {*rollup.by, *(Expression.parse(text).column for text in rollup.measures.values())}
        # A condition may name any column. The others are not computed for it: that is half the price of a rollup.
        self.promoted = frozenset(promotions if rollup.where is not None else read & promotions.keys())
        self.fingerprint, self.older_fingerprint = map(self._fingerprint, (_VERSION, _WITH_DOCUMENTS))

    def _fingerprint(self, version: int) -> str:
        content = [version, self.sql, self.max_groups, dict(self.rollup.measures)]
        return hashlib.sha256(msgspec.json.encode(content)).hexdigest()

    def _select(self, dimensions: Sequence[str]) -> str:
        columns = [f"{quoted(bucket_name(self.rollup))} AS b", *(f"{sql} AS d{i}" for i, sql in enumerate(dimensions))]
        keys = ", ".join(str(i + 1) for i in range(len(columns)))
        columns += [f"{measure.sql} AS m{i}" for i, measure in enumerate(self.measures.values())]
        where = f"WHERE (\n{self.rollup.where}\n)" if self.rollup.where is not None else ""
        # The order of first events decides which groups are kept, whatever the batch.
        return (
            f"SELECT {', '.join(columns)} FROM (SELECT *, coalesce(user_id, anonymous_id) AS {PERSON} FROM input) "
            f"{where} GROUP BY {keys} ORDER BY min(seq)"
        )

    def taken(self, partial: PartialState, ids: Mapping[str, int]) -> tuple[dict[Group, States], list[Group]]:
        """The states of a partial's groups, in their order; and all groups whose stored states they may need."""
        columns = [
            measure.taken(values.identified(ids) if isinstance(values, Texts) else values)
            for values, measure in zip(partial.columns, self.measures.values(), strict=True)
        ]
        added: dict[Group, States] = dict(zip(partial.groups, zip(*columns, strict=True), strict=True))
        overflows = {(bucket, OTHER_KEY) for bucket, _ in added} if self.rollup.by else set()
        return added, [*added, *overflows]

    def growing(self, added: Iterable[Group], stored: Iterable[GroupRow]) -> set[int]:
        """The buckets in which a group is new, so that their groups have to be counted."""
        if not self.rollup.by:
            return set()
        known = {(bucket, key) for bucket, key, _, _ in stored}
        return {group[0] for group in added if group not in known}

    def folded(
        self, added: Mapping[Group, States], stored: Iterable[GroupRow], counts: dict[int, int]
    ) -> list[GroupRow]:
        """The rows that `added` leads to.

        Args:
            added: in the order of their first events; may be changed.
            stored: at least the rows of these groups and, with dimensions, of their buckets' overflow.
            counts: groups that each bucket has, for every bucket in which a group is new. Brought up to date.
        """
        states = self._read(stored)
        changed: set[Group] = set()
        for group, more in added.items():
            place = group if group in states else self._place(group, counts)
            states[place] = self._merged(states[place], more) if place in states else more
            changed.add(place)
        return self._written(sorted(changed), states)

    def _place(self, group: Group, counts: dict[int, int]) -> Group:
        """Where a group goes that is not stored."""
        if not self.rollup.by:
            return group
        bucket = group[0]
        count = counts.get(bucket, 0)
        if count >= self.max_groups:
            return bucket, OTHER_KEY
        counts[bucket] = count + 1
        return group

    def _merged(self, states: States, added: States) -> States:
        pairs = zip(self.measures.values(), states, added, strict=True)
        return tuple([measure.merged(one, other) for measure, one, other in pairs])

    # Measure by measure, not group by group: an hour may have thousands of groups of one count each. And by index:
    # zip(*rows) has an iterator for each row, which makes Python look through all of its objects, for 40 ms a time.

    def _written(self, groups: Sequence[Group], states: Mapping[Group, States]) -> list[GroupRow]:
        kept: list[list[Any]] = []
        packed: list[list[bytes]] = []
        for at, measure in enumerate(self.measures.values()):
            pairs = [measure.written(states[group][at]) for group in groups]
            kept.append([shown for shown, _ in pairs])
            packed += [[sketch or b"" for _, sketch in pairs]] if measure.sketched else []
        encode = msgspec.json.Encoder().encode
        texts = [encode(row).decode() for row in zip(*kept, strict=True)]
        blobs = map(msgspec.msgpack.encode, zip(*packed, strict=True)) if packed else itertools.repeat(None, len(texts))
        return [(*group, text, blob) for group, text, blob in zip(groups, texts, blobs, strict=True)]

    def _read(self, stored: Iterable[GroupRow]) -> dict[Group, States]:
        with self._intact():
            groups, kept, packed = [], [], []
            for bucket, key, text, sketches in stored:
                groups.append((bucket, key))
                kept.append(text)
                packed.append(_sketches(sketches))
            decoded, columns, sketched = _together(kept), [], itertools.count()
            for at, measure in enumerate(self.measures.values()):
                own = next(sketched) if measure.sketched else None
                sketches_of = itertools.repeat(None) if own is None else (sketches[own] for sketches in packed)
                columns.append(list(map(measure.read, (row[at] for row in decoded), sketches_of)))
            return dict(zip(groups, zip(*columns, strict=True), strict=True))

    def sketch(self, measure: str, sketches: bytes) -> Any:
        """One measure's state, from the bytes of a group."""
        names = [name for name, found in self.measures.items() if found.sketched]
        with self._intact():
            return self.measures[measure].read(None, _sketches(sketches)[names.index(measure)])

    def table(self, rows: Sequence[tuple[int, str, str]]) -> pa.Table:
        """The public table of `(bucket, key, state)` rows."""
        with self._intact():
            return self._table(rows)

    def _table(self, rows: Sequence[tuple[int, str, str]]) -> pa.Table:
        import numpy as np  # only objects that answer questions pay for it

        starts = np.array([bucket for bucket, _, _ in rows], np.int64)
        rollup = self.rollup
        if rollup.grain == "hour":
            columns = [pa.array(starts).cast(_TIME)]
        else:
            columns = [pa.array(bucket_dates(starts, rollup.grain, rollup.timezone)).cast(pa.date32())]
        columns += self._dimensions([key for _, key, _ in rows])
        states = _together([kept for _, _, kept in rows])
        columns += [measure.shown([row[at] for row in states]) for at, measure in enumerate(self.measures.values())]
        return pa.table(columns, names=[rollup.bucket_column, *rollup.by, *self.measures])

    @contextmanager
    def _intact(self) -> Iterator[None]:
        """Reading what is stored: SQLite has no checksums, so a damaged file may give anything."""
        try:
            yield
        except _UNREADABLE as error:
            raise damaged(f"rollup {self.name} does not read back: {error!r}") from error

    def _dimensions(self, keys: Sequence[str]) -> list[pa.Array]:
        count = len(self.rollup.by)
        if not count or not keys:
            return [pa.array([], pa.string())] * count
        distinct = list(dict.fromkeys(keys))
        other = msgspec.json.encode([OTHER] * count).decode()
        read = dict(zip(distinct, _together([other if key == OTHER_KEY else key for key in distinct]), strict=True))
        return [pa.array([read[key][at] for key in keys], pa.string()) for at in range(count)]


def consumer_of(name: str) -> str:
    """The name of a rollup's checkpoint."""
    return f"rollup:{name}"


def _column(name: str, promotions: Mapping[str, Promotion]) -> Column:
    return column(name, promotions) if name else Column("int", "1", "'1'")


def _together(texts: Sequence[str]) -> list[tuple[Any, ...]]:
    """Many JSON arrays decoded at once."""
    return msgspec.json.decode(f"[{','.join(texts)}]", type=list[tuple[Any, ...]])


def _sketches(packed: bytes | None) -> list[bytes]:
    return msgspec.msgpack.decode(packed, type=list[bytes]) if packed is not None else []
