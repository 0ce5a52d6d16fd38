"""One command, one table: python -m bench [NAME …] [--size X | --full] [--runs N]. Without a name: the engine."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench import table
from bench.goal import Goal
from bench.machine import Machine
from bench.measure import Failed
from bench.page import PAGE, SECTIONS
from bench.report import Report
from bench.row import Row
from bench.run import STORED_EVENTS, Run
from bench.subjects import APART, NAMES, subject

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "latest.json"
FULL = 10_000_000 / STORED_EVENTS


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The parsed command line."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"subjects: {', '.join(NAMES)}")
    parser.add_argument("--size", type=float, default=1.0, help="scales events, keys and objects (default 1)")
    parser.add_argument("--full", action="store_true", help="10 million events, as --size 10; takes an hour or more")
    parser.add_argument("--runs", type=int, default=5, help="turns of each contender (default 5)")
    parser.add_argument("--directory", type=Path, default=Path(), help="where to work; on the disk to be measured")
    parser.add_argument("--json", type=Path, default=RESULTS, help=f"where the figures go (default {RESULTS.name})")
    parser.add_argument("--page", type=Path, default=PAGE, help=f"the page that gets the table (default {PAGE.name})")
    parser.add_argument("--section", choices=SECTIONS, help="the section of the page; without names engine, else none")
    parsed = parser.parse_args(argv)
    if unknown := sorted(set(parsed.names) - set(NAMES)):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    parsed.size = FULL if parsed.full else parsed.size
    return parsed


def say(message: str) -> None:
    """Progress: on a terminal one line that changes, else a line each."""
    prefix, end = ("\x1b[K", "\r") if sys.stderr.isatty() else ("", "\n")
    print(f"{prefix}{message}", end=end, file=sys.stderr, flush=True)


def measured(run: Run, name: str) -> list[Row]:
    """The rows of a subject. A goal without a row gets one that failed, with the error as its reason."""
    run.begin(name)
    rows: list[Row] = []
    reason = "no row speaks of it"
    try:
        rows = subject(name).rows(run)
    except Exception as error:  # noqa: BLE001 - the other subjects are still to be measured
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    goals: Sequence[Goal] = subject(name).GOALS
    covered = {goal for row in rows for goal in row.goals}
    missing = [goal for goal in goals if goal not in covered]
    rows += [Row(name, goal.design, "", Failed(reason), goals=[goal]) for goal in missing]
    return rows or [Row(name, name, "", Failed(reason))]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, save. Returns 1 when something could not be measured."""
    options = arguments(argv)
    started, begun = datetime.now(UTC), time.monotonic()
    machine = Machine.read(options.directory)
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=options.directory)).resolve()
    run = Run(directory, options.runs, options.size, say)
    rows: list[Row] = []
    try:
        for name in options.names or [name for name in NAMES if name not in APART]:
            rows += measured(run, name)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        seconds = time.monotonic() - begun
        report = Report(machine, rows, options.runs, options.size, round(seconds), f"{started:%Y-%m-%d %H:%M} UTC")
        say("")
        show(report)
        report.save(options.json, options.section or (None if options.names else "engine"), options.page)
    return 1 if report.failures else 0


def show(report: Report) -> None:
    """Print the table, then what was missed and what failed."""
    print(table.plain(report.rows))
    print(f"\n{report.heading()}")
    for title, lines in (("missed", report.missed), ("failed", report.failures)):
        for line in lines:
            print(f"{title}: {line}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # so that its processes and files go, too
    sys.exit(main())
