"""L0: sliding counters, beside INCR and EXPIRE of a local Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import sample
from bench.goal import Goal
from bench.measure import Contender, Figures
from bench.peers import redis
from bench.row import Row
from bench.run import Run
from lakebed import SystemClock
from lakebed.tiers.counters.counters import Counters

_CLIENT = "Redis, one by one, appendonly no"
RATE = Goal("≥ 400,000 calls/s", "counters.incr with ttl", least=400_000)
AHEAD = Goal("≥ 10 x a Redis client", "counters.incr beside Redis INCR+EXPIRE", of=_CLIENT, least=10)
COUNT = Goal("≤ 50 µs", 'counters.count("active:*") of 1,000,000 keys', most=50)
GOALS: Sequence[Goal] = (RATE, AHEAD, COUNT)
CALLS, REDIS_CALLS, KEYS = 200_000, 4_000, 1_000_000
PIPELINED = 1_000
TTL = 60


def keys(calls: int) -> list[str]:
    """`active:` and the id of a person, as often as each person is in the sample."""
    people = sample.people()
    return [f"active:{people[7 * number % len(people)][0]}" for number in range(calls)]


def incr(_: Path, calls: int) -> Iterator[Figures]:
    """On the real clock: increments of one key have different ends, as in life."""
    counters, names = Counters(SystemClock(), 2_000_000), keys(calls)
    while True:
        start = time.perf_counter()
        for name in names:
            counters.incr(name, 1, TTL)
        yield {"rate": calls / (time.perf_counter() - start)}


def count(_: Path, keys: int) -> Iterator[Figures]:
    """Count the `keys` that are alive, while others come and go."""
    counters = Counters(SystemClock(), 2_000_000)
    for number in range(keys):
        counters.incr(f"active:{number}", 1, 3_600)
    assert counters.count("active:*") == keys
    while True:
        seconds = 0.0
        for number in range(200):
            counters.incr(f"other:{number}", 1, 3_600)
            start = time.perf_counter()
            alive = counters.count("active:*")
            seconds += time.perf_counter() - start
            assert alive == keys
        yield {"us": seconds / 200 * 1e6}


def redis_incr(directory: Path, calls: int, *, durable: bool, pipelined: bool) -> Iterator[Figures]:
    """INCR and EXPIRE of each key, awaited one by one or in pipelines of 1,000."""
    server, names = redis.Server(directory, durable=durable), keys(calls)
    try:
        while True:
            start = time.perf_counter()
            for first in range(0, calls, PIPELINED if pipelined else 1):
                some = server.client.pipeline(transaction=False)
                for name in names[first : first + (PIPELINED if pipelined else 1)]:
                    some.incr(name)
                    some.expire(name, TTL)
                some.execute()
            yield {"rate": calls / (time.perf_counter() - start)}
    finally:
        server.close()


def rows(run: Run) -> list[Row]:
    """Increments, and counting keys."""
    few_calls = {"calls": run.of(REDIS_CALLS)}
    many_calls = {"calls": run.of(CALLS)}
    peers = {
        _CLIENT: Contender("redis", redis_incr, few_calls | {"durable": False, "pipelined": False}),
        "Redis, one by one, appendfsync always": Contender(
            "redis always", redis_incr, few_calls | {"durable": True, "pipelined": False}
        ),
        "Redis, pipelines of 1,000, appendonly no": Contender(
            "redis piped", redis_incr, many_calls | {"durable": False, "pipelined": True}
        ),
        "Redis, pipelines of 1,000, appendfsync always": Contender(
            "redis piped always", redis_incr, many_calls | {"durable": True, "pipelined": True}
        ),
    }
    amount = run.of(KEYS, most=KEYS)
    results = run.turns(
        [Contender("incr", incr, many_calls), Contender("count", count, {"keys": amount}), *peers.values()]
    )
    rates = {name: results.get(peer.name, "rate") for name, peer in peers.items()}
    return [
        Row("counters", "counters.incr with ttl", "calls/s", results.get("incr", "rate"), rates, goals=[RATE, AHEAD]),
        Row(
            "counters",
            f'counters.count("active:*") of {amount:,} keys',
            "µs",
            results.get("count", "us"),
            goals=[COUNT],
        ),
    ]
