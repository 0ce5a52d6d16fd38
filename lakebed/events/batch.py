"""Validated events as columns: the form in which many events at a time go from callers to the log."""

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
        message_ids: the id of each event, or None if the log has to generate the id.
        names, people: the texts for the live counters, as Python strings: to convert texts back from Arrow costs more
            than to keep them. A person is `user_id`, else `anonymous_id`.
        columns: the columns of the schema, in its order, without `seq` and `received_at`. `timestamp` is in
            microseconds; null means `received_at`.
        documents: positions of documents in the batch, ascending. A client's batch has no documents.
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
        """The batch of events that `validate` has accepted. At least one event."""
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
        """All events of `parts` as one batch, in order. At least one event."""
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
            message_ids: one id for each event, from the client or generated.
            first_seq: position of the first event.
            received_at: the `received_at` of every event, microseconds.
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
    """The person of each event: its `user_id`, else its `anonymous_id`, else None."""
    return [user if user is not None else other for user, other in zip(users, anonymous, strict=True)]


def raw_column(raws: Sequence[Raw]) -> pa.StringArray:
    """JSON texts, valid UTF-8, as a column. Half the cost of an array of `bytes`, which would copy text by text."""
    offsets = pa.array(itertools.accumulate(map(len, raws), initial=0), pa.int32())
    return pa.StringArray.from_buffers(len(raws), offsets.buffers()[1], pa.py_buffer(b"".join(raws)))


def memory_bytes(events: Sequence[Event] | EventBatch) -> int:
    """The approximate bytes of memory that `events` take."""
    if isinstance(events, EventBatch):
        return sum(column.nbytes for column in events.columns)
    total = len(events) * _EVENT_BYTES
    for event in events:  # most often one: a generator costs more than all else here
        total += len(event.properties) + len(event.context)
    return total
