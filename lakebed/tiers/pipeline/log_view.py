"""A view of the log, for readers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa

from lakebed.tiers.pipeline.sealing import SealedFile

__all__ = ["LogView"]


class LogView:
    """The log at one moment: sealed files, then the tail in memory. Its files are not deleted before it is closed.

    Attributes:
        start_seq: the first seq that the log holds.
        end_seq: the seq after the last; `files` and `tail` hold `[start_seq, end_seq)` without gap.
        files: sealed segments, oldest first.
        tail: events not yet sealed, base columns only.
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
