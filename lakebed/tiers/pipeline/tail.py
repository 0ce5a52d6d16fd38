"""The events in memory: those of log files not yet sealed, as Arrow, in one part for each log file."""

from __future__ import annotations

import msgspec
import pyarrow as pa

from lakebed.events.event import SCHEMA

__all__ = ["Tail", "TailPart"]

_FAN_IN = 16  # batches of one level that become one of the next
_LEVELS = 4
_MERGED_ROWS = 8192  # merging runs on the loop: more rows than this would block it for milliseconds


class TailPart(msgspec.Struct):
    """The events of one log file, in order.

    A batch of one row costs kilobytes, so small batches are merged as in a log-structured tree: each event is copied at
    most three times, and a million single tracks leave a few hundred batches.
    """

    first_seq: int
    closed: bool = False
    rows: int = 0
    bytes: int = 0
    batches: list[pa.RecordBatch] = []
    levels: list[int] = []

    def append(self, batch: pa.RecordBatch) -> None:
        """Add the events of a commit."""
        self.rows += batch.num_rows
        self.bytes += batch.nbytes
        self.batches.append(batch)
        self.levels.append(0)
        for level in range(_LEVELS - 1):
            newest = self.batches[-_FAN_IN:]
            if self.levels[-_FAN_IN:] != [level] * _FAN_IN or sum(part.num_rows for part in newest) > _MERGED_ROWS:
                break
            merged = pa.Table.from_batches(newest).combine_chunks().to_batches()
            self.batches[-_FAN_IN:] = merged
            self.levels[-_FAN_IN:] = [level + 1] * len(merged)


class Tail:
    """The parts, oldest first. All but the last are closed: they wait for sealing. Belongs to the loop's thread."""

    def __init__(self) -> None:
        self._parts: list[TailPart] = []

    @property
    def bytes(self) -> int:
        """Bytes of the events' Arrow buffers."""
        return sum(part.bytes for part in self._parts)

    @property
    def first_seq(self) -> int | None:
        """The seq of the first event, None when there is none."""
        return self._parts[0].first_seq if self._parts else None

    def append(self, segment: int, batch: pa.RecordBatch) -> None:
        """Add the events of a commit to the log file which starts at seq `segment`."""
        if not self._parts or self._parts[-1].first_seq != segment:
            self.close(segment)
            self._parts.append(TailPart(segment))
        self._parts[-1].append(batch)

    def close(self, before: int) -> None:
        """Close the parts that start before seq `before`: no more events come to them."""
        for part in self._parts:
            part.closed = part.closed or part.first_seq < before

    def closed_part(self) -> TailPart | None:
        """The oldest part, if it waits for sealing."""
        return self._parts[0] if self._parts and self._parts[0].closed else None

    def drop(self, part: TailPart) -> None:
        """Remove the oldest part: it is sealed."""
        if self._parts[0] is not part:
            raise ValueError(f"the part from seq {part.first_seq} is not the oldest")
        self._parts.pop(0)

    def table(self) -> pa.Table:
        """All events as one table that shares their memory."""
        return pa.Table.from_batches([batch for part in self._parts for batch in part.batches], schema=SCHEMA)
