"""The sealed files of a log: which there are, and which of them open views read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from lakebed.tiers.pipeline.log_view import LogView
from lakebed.tiers.pipeline.sealing import SealedFile

__all__ = ["SealedFiles"]


class SealedFiles:
    """Files in order, without gap. Belongs to the loop's thread.

    Attributes:
        bytes: their size on disk.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._files: list[SealedFile] = []
        self._pins: Counter[Path] = Counter()

    @property
    def start_seq(self) -> int | None:
        """The first seq, None when there is no file."""
        return self._files[0].first_seq if self._files else None

    @property
    def end_seq(self) -> int | None:
        """The seq after the last, None when there is no file."""
        return self._files[-1].end_seq if self._files else None

    def bytes_from(self, seq: int) -> int:
        """Bytes of the files that hold events from `seq` on."""
        return sum(file.bytes for file in self._files if file.end_seq > seq)

    def add(self, file: SealedFile) -> None:
        """Add the newest file."""
        self._files.append(file)
        self.bytes += file.bytes

    def view(self, tail: pa.Table, start_seq: int, end_seq: int) -> LogView:
        """The files as they are now, with the events of the tail. They stay until the view is closed."""
        return LogView(tuple(self._files), tail, start_seq, end_seq, self._pins)

    def take_oldest(self, passed_seq: int, received_until: int) -> list[SealedFile]:
        """Remove, oldest first, the files up to `passed_seq`, received until then and read by no view; returns them."""
        taken: list[SealedFile] = []
        for file in self._files:
            if file.end_seq > passed_seq or file.last_received > received_until or self._pins[file.path] > 0:
                break
            taken.append(file)
        del self._files[: len(taken)]
        self.bytes -= sum(file.bytes for file in taken)
        return taken

    def put_back(self, files: Sequence[SealedFile]) -> None:
        """Add files of `take_oldest` again."""
        self._files[:0] = files
        self.bytes += sum(file.bytes for file in files)
