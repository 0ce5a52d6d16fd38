"""One run of the benchmarks: where it works, how large, how often, and what has been prepared."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.measure import Contender, Results, take_turns
from bench.stored import Stored, build

STORED_EVENTS = 1_000_000


class Run:
    """What subjects ask for.

    Args:
        directory: for everything that is written; on the disk that is to be measured.
        runs: turns of each contender.
        size: scales how many events, keys and objects there are.
        progress: told what is going on.
    """

    def __init__(self, directory: Path, runs: int, size: float, progress: Callable[[str], None]) -> None:
        self.directory = directory
        self.runs = runs
        self.size = size
        self._progress = progress
        self._stored: Stored | None = None
        self._subject = ""

    def begin(self, subject: str) -> None:
        """What is measured now."""
        self._subject = subject

    def of(self, count: int, least: int = 1_000, most: int | None = None) -> int:
        """`count` scaled, in whole thousands from a thousand on."""
        scaled = max(least, round(count * self.size))
        scaled = scaled if most is None else min(scaled, most)
        return scaled // 1_000 * 1_000 if scaled >= 1_000 else scaled

    def turns(self, contenders: Sequence[Contender], runs: int | None = None) -> Results:
        """Let the contenders take turns; what they wrote is gone afterwards."""
        place = self.directory / f"{self._subject}-{time.monotonic_ns()}"
        try:
            return take_turns(contenders, runs or self.runs, place, self._say)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def _say(self, what: str) -> None:
        self._progress(f"{self._subject}: {what}")

    @property
    def stored(self) -> Stored:
        """Thirty archived days, in Lakebed and in every peer. Built once, when first asked for."""
        if self._stored is None:
            self._say("building thirty days of events")
            self._stored = build(self.directory / "stored", self.of(STORED_EVENTS, least=30_000))
        return self._stored
