"""Measuring in turn: every contender in a process of its own, A B A B, and what came of it."""

from __future__ import annotations

import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec

TURN_S = 900.0  # a turn that takes longer is taken for a hang
_ROOT = Path(__file__).parent.parent

Figures = dict[str, float]


class Turns(Protocol):
    """A contender: a generator that yields the figures of one turn, for as long as it is asked.

    What it does before its first `yield`, and after being closed, is not measured: it keeps its own time.
    """

    def __call__(self, directory: Path, **options: Any) -> Iterator[Figures]: ...


class Absent(Exception):
    """A contender cannot take part here; says why."""


class Samples(msgspec.Struct, frozen=True):
    """One figure of all turns."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The figure that is quoted."""
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        """The smallest."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The largest."""
        return max(self.values)

    def over(self, other: Samples) -> float:
        """The median of the ratios of the same turns: what both suffered in a turn cancels out."""
        return statistics.median(a / b if b else float("inf") for a, b in zip(self.values, other.values, strict=False))


class Failed(msgspec.Struct, frozen=True):
    """There is no figure, and why. `absent` where that is this machine's lack, not a fault."""

    reason: str
    absent: bool = False


Found = Samples | Failed


class Contender(msgspec.Struct, frozen=True):
    """Who takes turns.

    Attributes:
        name: as the table shows it.
        turns: a generator function at the top level of a module.
        options: its keywords; JSON values.
        cores: how many it may run on; 0 means all.
        fresh: a new process for each turn, where a turn changes the process (peak memory, imports).
    """

    name: str
    turns: Callable[..., Iterator[Figures]]
    options: Mapping[str, Any] = {}
    cores: int = 0
    fresh: bool = False


class Worker:
    """The process of a contender. Closing it kills it, with all that it started."""

    def __init__(self, contender: Contender, directory: Path) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._replies, write_fd = os.pipe()
        function = f"{contender.turns.__module__}:{contender.turns.__name__}"
        arguments = json.dumps({"options": dict(contender.options), "cores": contender.cores})
        command = [sys.executable, "-m", "bench.worker", function, str(directory), str(write_fd), arguments]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")])}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=self._stderr,
            stderr=self._stderr,
            pass_fds=[write_fd],
            env=environment,
            start_new_session=True,
        )
        os.close(write_fd)
        self._buffer = b""

    def turn(self) -> Figures | Failed:
        """Let it take one turn."""
        try:
            self._process.stdin.write(b"go\n")
            self._process.stdin.flush()
            line = self._read(TURN_S)
        except (BrokenPipeError, EOFError):
            return Failed(f"its process ended with {self._process.wait()}: {self._last_words()}")
        except TimeoutError:
            return Failed(f"no answer within {TURN_S:.0f} s")
        reply = json.loads(line)
        return Failed(**reply["failed"]) if "failed" in reply else reply["figures"]

    def _read(self, seconds: float) -> bytes:
        while b"\n" not in self._buffer:
            if not select.select([self._replies], [], [], seconds)[0]:
                raise TimeoutError
            chunk = os.read(self._replies, 65_536)
            if not chunk:
                raise EOFError
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def _last_words(self) -> str:
        self._stderr.seek(0)
        lines = [line for line in self._stderr.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1][:200] if lines else "no message"

    def close(self) -> None:
        """Let it clean up; kill it if it does not."""
        try:
            self._process.stdin.close()
            self._process.wait(20)
        except (BrokenPipeError, subprocess.TimeoutExpired):
            pass
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            os.close(self._replies)
            self._stderr.close()


class Results:
    """What the contenders of one subject did: figures by contender."""

    def __init__(self) -> None:
        self._figures: dict[str, list[Figures]] = {}
        self._failed: dict[str, Failed] = {}

    def add(self, name: str, result: Figures | Failed) -> None:
        """Note one turn; a contender that failed once has failed."""
        if isinstance(result, Failed):
            self._failed[name] = result
        else:
            self._figures.setdefault(name, []).append(result)

    def has_failed(self, name: str) -> bool:
        """Whether asking it again is of no use."""
        return name in self._failed

    def get(self, name: str, figure: str) -> Found:
        """One figure of one contender over all turns."""
        if name in self._failed:
            return self._failed[name]
        values = tuple(turn[figure] for turn in self._figures.get(name, []) if figure in turn)
        return Samples(values) if values else Failed(f"{name} gave no {figure}")


def take_turns(
    contenders: Sequence[Contender], runs: int, directory: Path, progress: Callable[[str], None] = lambda _: None
) -> Results:
    """Let each contender take `runs` turns, in turn: A B C A B C …"""
    results, workers = Results(), {}
    try:
        for run in range(1, runs + 1):
            for number, contender in enumerate(contenders):
                if results.has_failed(contender.name):
                    continue
                progress(f"{contender.name}, turn {run} of {runs}")
                if contender.name not in workers:
                    place = directory / f"{number:02d}-{run}"
                    place.mkdir(parents=True)
                    workers[contender.name] = Worker(contender, place)
                results.add(contender.name, workers[contender.name].turn())
                if contender.fresh or results.has_failed(contender.name):
                    workers.pop(contender.name).close()
    finally:
        for worker in workers.values():
            worker.close()
    return results
