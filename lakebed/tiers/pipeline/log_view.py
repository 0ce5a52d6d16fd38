"""The readable log: sealed files, then events in memory (the tail), and views of both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import pyarrow as pa

from lakebed.events.event import SCHEMA
from lakebed.tiers.pipeline.sealing import SealedFile

__all__ = ["LogView", "SealedFiles", "Tail", "TailPart"]

_FAN_IN = 16  # batches of one level that are merged into one batch of the next level
_LEVELS = 4
_MERGED_ROWS = 8192  # merging runs on the loop: more rows than this would block it for milliseconds


class TailPart(msgspec.Struct):
    """The events of one log file, in seq order, in memory.

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
    """Parts, oldest first. Every part but the last is closed and waits for sealing. Belongs to the loop's thread."""

    def __init__(self) -> None:
        self._parts: list[TailPart] = []

    @property
    def bytes(self) -> int:
        """Bytes of the events' Arrow buffers."""
        return sum(part.bytes for part in self._parts)

    @property
    def first_seq(self) -> int | None:
        """The seq of the first event; None if the tail is empty."""
        return self._parts[0].first_seq if self._parts else None

    def append(self, segment: int, batch: pa.RecordBatch) -> None:
        """Add the events of a commit to the part of the log file that starts at seq `segment`."""
        if not self._parts or self._parts[-1].first_seq != segment:
            self.close(segment)
            self._parts.append(TailPart(segment))
        self._parts[-1].append(batch)

    def close(self, before: int) -> None:
        """Close the parts that start before seq `before`: no more events are added to these parts."""
        for part in self._parts:
            part.closed = part.closed or part.first_seq < before

    def closed_part(self) -> TailPart | None:
        """Returns the oldest part if it waits for sealing, else None."""
        return self._parts[0] if self._parts and self._parts[0].closed else None

    def drop(self, part: TailPart) -> None:
        """Remove `part`, which is the oldest part and is sealed."""
        if self._parts[0] is not part:
            raise ValueError(f"the part from seq {part.first_seq} is not the oldest")
        self._parts.pop(0)

    def table(self) -> pa.Table:
        """All events as one table, without a copy of their memory."""
        return pa.Table.from_batches([batch for part in self._parts for batch in part.batches], schema=SCHEMA)


class SealedFiles:
    """The sealed files of a log, in seq order, without a gap. Belongs to the loop's thread.

    Attributes:
        bytes: the size of all files on disk.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._files: list[SealedFile] = []
        self._pins: Counter[Path] = Counter()

    @property
    def start_seq(self) -> int | None:
        """The first seq; None if there is no file."""
        return self._files[0].first_seq if self._files else None

    @property
    def end_seq(self) -> int | None:
        """The seq after the last event; None if there is no file."""
        return self._files[-1].end_seq if self._files else None

    def bytes_from(self, seq: int) -> int:
        """Bytes of the files that hold events from `seq` on."""
        return sum(file.bytes for file in self._files if file.end_seq > seq)

    def add(self, file: SealedFile) -> None:
        """Add `file`, which is the newest file."""
        self._files.append(file)
        self.bytes += file.bytes

    def view(self, tail: pa.Table, start_seq: int, end_seq: int) -> LogView:
        """A view of the present files and the events of the tail. The files are kept until the view is closed."""
        return LogView(tuple(self._files), tail, start_seq, end_seq, self._pins)

    def take_oldest(self, passed_seq: int, received_until: int) -> list[SealedFile]:
        """Remove and return the oldest files that end by `passed_seq` and `received_until` and that no view reads."""
        taken: list[SealedFile] = []
        for file in self._files:
            if file.end_seq > passed_seq or file.last_received > received_until or self._pins[file.path] > 0:
                break
            taken.append(file)
        del self._files[: len(taken)]
        self.bytes -= sum(file.bytes for file in taken)
        return taken

    def put_back(self, files: Sequence[SealedFile]) -> None:
        """Add files that `take_oldest` returned again."""
        self._files[:0] = files
        self.bytes += sum(file.bytes for file in files)


class LogView:
    """The log at one moment: sealed files, then the tail in memory. Files are kept until the view is closed.

    Attributes:
        start_seq: the first seq that the log holds.
        end_seq: the seq after the last event; `files` and `tail` hold `[start_seq, end_seq)` without gap.
        files: the sealed segments, oldest first.
        tail: the events that are not sealed yet, with the base columns only.
    """

    def __init__(
        self, files: tuple[SealedFile, ...], tail: pa.Table, start_seq: int, end_seq: int, pins: Counter[Path]
    ) -> None:
        self.files = files
        self.tail = tail
        self.start_seq = start_seq
        self.end_seq = end_seq
        self._pins = pins
        self._closed = False
        self._pins.update(file.path for file in files)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the files. Idempotent."""
        if not self._closed:
            self._closed = True
            self._pins.subtract(file.path for file in self.files)
