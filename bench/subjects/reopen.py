"""Opening after SIGKILL with events that nothing has moved on yet, until the first acknowledgement."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import google_crc32c

from bench.goal import Goal
from bench.lake import NAME
from bench.measure import Contender, Figures
from bench.row import Row
from bench.run import Run

FIRST_ACK = Goal("≤ 1,500 ms", "reopen after a crash with 1,000,000 events unsealed, first ack", most=1_500)
GOALS: Sequence[Goal] = (FIRST_ACK,)
EVENTS = 1_000_000


def _crash(what: str, who: str, directory: Path, events: int) -> str:
    command = [sys.executable, "-m", "bench.crashing", what, who, str(directory), str(events)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != -signal.SIGKILL:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return done.stdout


def killed(directory: Path, who: str, events: int) -> Iterator[Figures]:
    """Filled and killed once; opened in a new process, and killed, in each turn."""
    _crash("fill", who, directory, events)
    while True:
        figures = {"ms": float(_crash("reopen", who, directory, events))}
        yield figures | ({"floor": _read(directory)} if who == "lakebed" else {})


def _read(directory: Path) -> float:
    """Milliseconds to read the same log and check its CRC: what must be done before its end is known."""
    start = time.perf_counter()
    for file in (directory / NAME).rglob("*.log"):
        google_crc32c.value(file.read_bytes())
    return (time.perf_counter() - start) * 1_000


def rows(run: Run) -> list[Row]:
    """One row."""
    events = run.of(EVENTS)
    options = {"events": events}
    stores = [Contender(who, killed, options | {"who": who}) for who in ("lakebed", "sqlite", "duckdb")]
    results = run.turns(stores)
    peers = {
        "SQLite, WAL not checkpointed": results.get("sqlite", "ms"),
        "DuckDB table, WAL not checkpointed": results.get("duckdb", "ms"),
    }
    work = f"reopen after SIGKILL, {events:,} events unsealed, first ack"
    floor_ms = results.get("lakebed", "floor")
    return [
        Row(
            "reopen", work, "ms", results.get("lakebed", "ms"), peers, floor_ms, "read the log, check its CRC32C", GOALS
        )
    ]
