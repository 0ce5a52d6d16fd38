"""Batches of 1,000 events, each acknowledged before the next is sent."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count, repeat
from pathlib import Path

from bench import plain, sample
from bench.goal import FLOOR, Goal
from bench.lake import fill, opened
from bench.measure import Contender, Figures, Results
from bench.peers import clickhouse, duck, sqlite
from bench.row import Row
from bench.run import Run

_WORK = "batch of 1,000, durable, one core"
RATE = Goal("≥ 150,000 events/s", _WORK, least=150_000)
SHARE = Goal("≥ 0.6 x the floor", _WORK, of=FLOOR, least=0.6)
GOALS: Sequence[Goal] = (RATE, SHARE)
EVENTS = 60_000
_FLOOR = "decode + Arrow + write + fdatasync"


def _warmed(bodies: list[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """One batch before the turns: what a process imports and makes once is not measured."""
    return enumerate(chain([bodies[:1]], repeat(bodies)))


def _figures(bodies: list[bytes], seconds: float, cpu: float) -> Figures:
    """Events a second, and the processor time of all threads for one event, which other work on the machine spares."""
    events = len(bodies) * sample.BATCH
    return {"rate": events / seconds, "us": cpu / events * 1e6}


def lakebed(directory: Path, events: int, durability: str = "disk") -> Iterator[Figures]:
    """A fresh object each turn."""
    bodies = sample.batches(events)
    for turn, turn_bodies in _warmed(bodies):
        with opened(directory / str(turn), durability=durability) as (loop, analytics):
            cpu = time.process_time()
            seconds = loop.run(fill(analytics, turn_bodies))
            cpu = time.process_time() - cpu
        shutil.rmtree(directory / str(turn))
        if turn:
            yield _figures(turn_bodies, seconds, cpu)


def floor(directory: Path, events: int, *, sync: bool = True) -> Iterator[Figures]:
    """The unavoidable part: decode, build Arrow, serialise, write, fdatasync; no check, no dedupe, no index."""
    bodies = sample.batches(events)
    plain.arrow(plain.decode(bodies[0]), 0)  # the first array of a process imports pandas, where that is installed
    for turn in count():
        descriptor = os.open(directory / str(turn), os.O_WRONLY | os.O_CREAT, 0o644)
        start, cpu = time.perf_counter(), time.process_time()
        for number, body in enumerate(bodies):
            os.write(descriptor, plain.arrow(plain.decode(body), number * sample.BATCH).serialize())
            if sync:
                os.fdatasync(descriptor)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        os.close(descriptor)
        (directory / str(turn)).unlink()
        yield _figures(bodies, seconds, cpu)


def _filled(bodies: list[bytes], take: Callable[[bytes], None]) -> Figures:
    start, cpu = time.perf_counter(), time.process_time()
    for body in bodies:
        take(body)
    return _figures(bodies, time.perf_counter() - start, time.process_time() - cpu)


def raw_events(directory: Path, events: int, synchronous: str) -> Iterator[Figures]:
    """SQLite, a transaction a batch."""
    bodies = sample.batches(events)
    for turn, turn_bodies in _warmed(bodies):
        table = sqlite.RawEvents(directory / f"{turn}.db", synchronous)
        figures = _filled(turn_bodies, table.take)
        table.close()
        if turn:
            yield figures


def duckdb(directory: Path, events: int, *, durable: bool) -> Iterator[Figures]:
    """DuckDB, a transaction a batch."""
    bodies = sample.batches(events)
    for turn, turn_bodies in _warmed(bodies):
        table = duck.Table(directory / f"{turn}.duckdb" if durable else None)
        figures = _filled(turn_bodies, table.take)
        table.close()
        if turn:
            yield figures


def chdb(directory: Path, events: int, *, sync: bool) -> Iterator[Figures]:
    """chDB, a part a batch. The table goes after each turn, so that no merge runs in another's."""
    bodies = sample.batches(events)
    tree = clickhouse.MergeTree(directory / "chdb", sync=sync)
    for turn, turn_bodies in _warmed(bodies):
        tree.create()
        figures = _filled(turn_bodies, tree.take)
        tree.create()
        if turn:
            yield figures


def rows(run: Run) -> list[Row]:
    """One core; all cores; and not synced."""
    options = {"events": run.of(EVENTS)}
    peers = {
        "SQLite, synchronous=FULL": Contender("sqlite full", raw_events, options | {"synchronous": "FULL"}),
        "DuckDB table, WAL synced": Contender("duckdb", duckdb, options | {"durable": True}),
        "chDB MergeTree, fsync_after_insert": Contender("chdb fsync", chdb, options | {"sync": True}),
    }
    unsynced_peers = {
        "SQLite, synchronous=OFF": Contender("sqlite off", raw_events, options | {"synchronous": "OFF"}),
        "DuckDB table, in memory": Contender("duckdb memory", duckdb, options | {"durable": False}),
        "chDB MergeTree, no fsync": Contender("chdb", chdb, options | {"sync": False}),
    }
    contenders = [
        Contender("lakebed, one core", lakebed, options, cores=1),
        Contender("floor, one core", floor, options, cores=1),
        Contender("lakebed", lakebed, options),
        Contender("floor", floor, options),
        *peers.values(),
        Contender("lakebed os", lakebed, options | {"durability": "os"}),
        Contender("floor os", floor, options | {"sync": False}),
        *unsynced_peers.values(),
    ]
    results = run.turns(contenders)
    unsynced = "batch of 1,000, written but not synced"
    return [
        _row(results, _WORK, "lakebed, one core", "floor, one core", {}, _FLOOR, GOALS),
        _row(results, "batch of 1,000, durable", "lakebed", "floor", peers, _FLOOR),
        _row(results, "batch of 1,000, durable: processor time", "lakebed", "floor", peers, _FLOOR, figure="us"),
        _row(results, unsynced, "lakebed os", "floor os", unsynced_peers, "without fdatasync"),
    ]


def _row(
    results: Results,
    work: str,
    lakebed_name: str,
    floor_name: str,
    peers: dict[str, Contender],
    floor_is: str,
    goals: Sequence[Goal] = (),
    *,
    figure: str = "rate",
) -> Row:
    unit = {"rate": "events/s", "us": "µs/event"}[figure]
    peer_results = {name: results.get(peer.name, figure) for name, peer in peers.items()}
    return Row(
        "ingest",
        work,
        unit,
        results.get(lakebed_name, figure),
        peer_results,
        results.get(floor_name, figure),
        floor_is,
        goals,
    )
