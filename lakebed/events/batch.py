"""Admitted events as columns: what goes from the callers to the log, many at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Raw

from lakebed.events.documents import is_document
from lakebed.events.event import OPERATOR, SCHEMA, TIME, Event

__all__ = ["EventBatch", "people_of", "raw_column"]

_TEXT = pa.string()


class EventBatch(msgspec.Struct, frozen=True):
    """Events that were admitted, in order.

    Attributes:
        message_ids: None where the log has to give one.
        names, people: what the live counters ask for, as Python has it already: making it from Arrow again costs more
            than carrying it along. A person is `user_id`, else `anonymous_id`.
        columns: those of the schema, in its order, without `seq` and `received_at`. `timestamp` has microseconds, null
            for `received_at`.
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
        """The block of events that `admit` has let in. At least one."""
        # A list for each field: a third of the price of transposing tuples.
        message_ids = [event.message_id for event in events]
        names = [event.event for event in events]
        users: list[Any] = [event.user_id for event in events]  # `admit` has made texts of ids and integers of times
        anonymous: list[Any] = [event.anonymous_id for event in events]
        sources = [event.source for event in events]
        documents = [row for row, event in enumerate(events) if is_document(event)] if OPERATOR in sources else ()
        texts = [
            *(message_ids, [event.type for event in events], names, users, anonymous),
            *([event.group_id for event in events], [event.session_id for event in events]),
        ]
        columns = [
            *(pa.array(values, _TEXT) for values in texts),
            pa.array([event.timestamp for event in events], pa.int64()),
            pa.array(sources, _TEXT),
            raw_column([event.properties for event in events]),
            raw_column([event.context for event in events]),
        ]
        return cls(message_ids, names, people_of(users, anonymous), columns, documents)

    @classmethod
    def joined(cls, parts: Iterable[Sequence[Event] | EventBatch]) -> EventBatch:
        """All of `parts`, in order, as one. At least one event."""
        blocks: list[EventBatch] = []
        singles: list[Event] = []
        for part in parts:
            if isinstance(part, EventBatch):
                if singles:
                    blocks.append(cls.of(singles))
                    singles = []
                blocks.append(part)
            else:
                singles.extend(part)
        if singles:
            blocks.append(cls.of(singles))
        return blocks[0] if len(blocks) == 1 else cls._concatenated(blocks)

    @classmethod
    def _concatenated(cls, blocks: Sequence[EventBatch]) -> EventBatch:
        chained = itertools.chain.from_iterable
        starts = itertools.accumulate(map(len, blocks), initial=0)
        return cls(
            list(chained(block.message_ids for block in blocks)),
            list(chained(block.names for block in blocks)),
            list(chained(block.people for block in blocks)),
            [pa.concat_arrays(parts) for parts in zip(*(block.columns for block in blocks), strict=True)],
            [start + row for start, block in zip(starts, blocks, strict=False) for row in block.documents],
        )

    def take(self, rows: Sequence[int]) -> EventBatch:
        """The block of the events at the positions `rows`."""
        at = pa.array(rows, pa.int64())
        return EventBatch(
            [self.message_ids[row] for row in rows],
            [self.names[row] for row in rows],
            [self.people[row] for row in rows],
            [column.take(at) for column in self.columns],
            [place for place, row in enumerate(rows) if row in self.documents] if self.documents else (),
        )

    def to_record_batch(self, message_ids: Sequence[str], first_seq: int, received_at: int) -> pa.RecordBatch:
        """The rows that the log stores.

        Args:
            message_ids: one for each event: its own, or the one that it was given.
            first_seq: position of the first.
            received_at: microseconds, one for the whole batch.
        """
        count = len(self)
        ids, kind, event, user, anonymous, group, session, timestamp, source, properties, context = self.columns
        received = pa.repeat(pa.scalar(received_at, pa.int64()), count)
        if timestamp.null_count:
            timestamp = timestamp.fill_null(received_at)
        times = (timestamp.view(TIME), received.view(TIME))
        seq = pa.array(range(first_seq, first_seq + count), pa.int64())
        if ids.null_count:
            ids = pa.array(message_ids, _TEXT)
        texts = (kind, event, user, anonymous, group, session)
        return pa.RecordBatch.from_arrays([seq, ids, *texts, *times, source, properties, context], schema=SCHEMA)


def people_of(users: Sequence[str | None], anonymous: Sequence[str | None]) -> list[str | None]:
    """Who each event belongs to."""
    return [user if user is not None else other for user, other in zip(users, anonymous, strict=True)]


def raw_column(raws: Sequence[Raw]) -> pa.StringArray:
    """JSON texts, valid UTF-8, as a column. Half the price of an array of `bytes`, which would copy each by itself."""
    offsets = pa.array(itertools.accumulate(map(len, raws), initial=0), pa.int32())
    return pa.StringArray.from_buffers(len(raws), offsets.buffers()[1], pa.py_buffer(b"".join(raws)))
