"""Validated events as columns: the form in which they go from callers to the log, many at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Raw

from lakebed.events.documents import is_document
from lakebed.events.event import OPERATOR, SCHEMA, TIME, Event

__all__ = ["EventBatch", "memory_bytes", "people_of", "raw_column"]

_TEXT = pa.string()
_EVENT_BYTES = 600  # of an Event, without its JSON


class EventBatch(msgspec.Struct, frozen=True):
    """Validated events, in order.

    Attributes:
        message_ids: None where the log has to generate one.
        names, people: for the live counters, as Python strings: converting them back from Arrow costs more than
            keeping them. A person is `user_id`, else `anonymous_id`.
        columns: those of the schema, in its order, without `seq` and `received_at`. `timestamp` has microseconds; null
            means `received_at`.
        documents: places of documents in it, ascending. A client's batch has none.
    """

    message_ids: Sequence[str | None]
    names: Sequence[str | None]
    people: Sequence[str | None]
    columns: list[pa.Array]
    documents: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.message_ids)

    @classmethod
    def of(cls, events: Sequence[Event]) -> EventBatch:
        """The columns of events that `validate` has accepted. At least one."""
        # A list for each field: a third of the price of transposing tuples.
        message_ids = [event.message_id for event in events]
        names = [event.event for event in events]
        users: list[Any] = [event.user_id for event in events]  # texts: `validate` has converted numbers
        anonymous: list[Any] = [event.anonymous_id for event in events]
        sources = [event.source for event in events]
        documents = [row for row, event in enumerate(events) if is_document(event)] if OPERATOR in sources else ()
        columns = [
            pa.array(message_ids, _TEXT),
            pa.array([event.type for event in events], _TEXT),
            pa.array(names, _TEXT),
            pa.array(users, _TEXT),
            pa.array(anonymous, _TEXT),
            pa.array([event.group_id for event in events], _TEXT),
            pa.array([event.session_id for event in events], _TEXT),
            pa.array([event.timestamp for event in events], pa.int64()),
            pa.array(sources, _TEXT),
            raw_column([event.properties for event in events]),
            raw_column([event.context for event in events]),
        ]
        return cls(message_ids, names, people_of(users, anonymous), columns, documents)

    @classmethod
    def joined(cls, parts: Iterable[Sequence[Event] | EventBatch]) -> EventBatch:
        """All of `parts` as one batch, in order. At least one event."""
        batches: list[EventBatch] = []
        events: list[Event] = []
        for part in parts:
            if isinstance(part, EventBatch):
                if events:
                    batches.append(cls.of(events))
                    events = []
                batches.append(part)
            else:
                events.extend(part)
        if events:
            batches.append(cls.of(events))
        return batches[0] if len(batches) == 1 else cls._concatenated(batches)

    @classmethod
    def _concatenated(cls, batches: Sequence[EventBatch]) -> EventBatch:
        chained = itertools.chain.from_iterable
        starts = itertools.accumulate(map(len, batches), initial=0)
        return cls(
            list(chained(batch.message_ids for batch in batches)),
            list(chained(batch.names for batch in batches)),
            list(chained(batch.people for batch in batches)),
            [pa.concat_arrays(parts) for parts in zip(*(batch.columns for batch in batches), strict=True)],
            [start + row for start, batch in zip(starts, batches, strict=False) for row in batch.documents],
        )

    def take(self, rows: Sequence[int]) -> EventBatch:
        """The events at the positions `rows`."""
        indices = pa.array(rows, pa.int64())
        return EventBatch(
            [self.message_ids[row] for row in rows],
            [self.names[row] for row in rows],
            [self.people[row] for row in rows],
            [column.take(indices) for column in self.columns],
            [place for place, row in enumerate(rows) if row in self.documents] if self.documents else (),
        )

    def to_record_batch(self, message_ids: Sequence[str], first_seq: int, received_at: int) -> pa.RecordBatch:
        """The rows that the log stores.

        Args:
            message_ids: one for each event: its own, or the generated one.
            first_seq: position of the first event.
            received_at: microseconds, the same for the whole batch.
        """
        count = len(self)
        ids, kind, event, user, anonymous, group, session, timestamp, source, properties, context = self.columns
        if ids.null_count:
            ids = pa.array(message_ids, _TEXT)
        if timestamp.null_count:
            timestamp = timestamp.fill_null(received_at)
        columns = [
            pa.array(range(first_seq, first_seq + count), pa.int64()),
            ids,
            kind,
            event,
            user,
            anonymous,
            group,
            session,
            timestamp.view(TIME),
            pa.repeat(pa.scalar(received_at, pa.int64()), count).view(TIME),
            source,
            properties,
            context,
        ]
        return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def people_of(users: Sequence[str | None], anonymous: Sequence[str | None]) -> list[str | None]:
    """The id that each event is counted under: its `user_id`, else its `anonymous_id`."""
    return [user if user is not None else other for user, other in zip(users, anonymous, strict=True)]


def raw_column(raws: Sequence[Raw]) -> pa.StringArray:
    """JSON texts, valid UTF-8, as a column. Half the price of an array of `bytes`, which would copy each by itself."""
    offsets = pa.array(itertools.accumulate(map(len, raws), initial=0), pa.int32())
    return pa.StringArray.from_buffers(len(raws), offsets.buffers()[1], pa.py_buffer(b"".join(raws)))


def memory_bytes(events: Sequence[Event] | EventBatch) -> int:
    """Bytes that they take in memory, roughly."""
    if isinstance(events, EventBatch):
        return sum(column.nbytes for column in events.columns)
    total = len(events) * _EVENT_BYTES
    for event in events:  # most often one: a generator costs more than all else here
        total += len(event.properties) + len(event.context)
    return total
