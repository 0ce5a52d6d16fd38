"""The calls that wait for their commit: first in, first out, bounded in events and in bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

import msgspec

from lakebed.errors import Backpressure
from lakebed.events.batch import EventBatch
from lakebed.events.event import Event, Receipt

__all__ = ["Entry", "Pending"]

_GROUP_EVENTS = 10_000  # one frame's events at the most; at 32 KB each that is 320 MB
_OBJECT_BYTES = 600  # of an Event that is not a row of a block yet, without its JSON


class Entry(msgspec.Struct):
    """One `append` that waits for its commit."""

    events: Sequence[Event] | EventBatch
    done: asyncio.Future[list[Receipt]]
    bytes: int = 0


class Pending:
    """Belongs to the loop's thread. A single call may pass the bounds when nothing else waits.

    Attributes:
        events: how many wait, without those in flight.
        in_flight: how many the commit under way has.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self.events = 0
        self.in_flight = 0
        self._bytes = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._entries: deque[Entry] = deque()

    def refusal(self, entry: Entry) -> Backpressure | None:
        """Why this call may not wait too, or None."""
        hint = "Await earlier calls first"
        if self.events and self.events + len(entry.events) > self._max_events:
            message = f"{self.events} events wait for the disk, the limit is {self._max_events}"
            return Backpressure(message, hint=hint, limit=self._max_events)
        entry.bytes = _bytes_of(entry.events)
        if self.events and self._bytes + entry.bytes > self._max_bytes:
            message = f"{self._bytes} bytes of events wait for the disk, the limit is {self._max_bytes}"
            return Backpressure(message, hint=hint, limit=self._max_bytes)
        return None

    def put(self, entry: Entry) -> None:
        """Let it wait. Asks for no `refusal`."""
        self._entries.append(entry)
        self.events += len(entry.events)
        self._bytes += entry.bytes

    def take(self) -> list[Entry]:
        """The next group, which is in flight from now on; empty when nothing waits."""
        group: list[Entry] = []
        count = 0
        while self._entries and (not group or count + len(self._entries[0].events) <= _GROUP_EVENTS):
            entry = self._entries.popleft()
            count += len(entry.events)
            self._bytes -= entry.bytes
            group.append(entry)
        self.events -= count
        self.in_flight = count
        return group


def _bytes_of(events: Sequence[Event] | EventBatch) -> int:
    """About what they take in memory."""
    if isinstance(events, EventBatch):
        return sum(column.nbytes for column in events.columns)
    total = len(events) * _OBJECT_BYTES
    for event in events:  # most often one: a generator costs more than all else here
        total += len(event.properties) + len(event.context)
    return total
