"""A process that works on an object is killed at random moments, again and again, on the same directory.

A failure tells the seed of its cycle. `LAKEBED_CRASH_SEED=1234 pytest tests/crash/test_kill_loop.py` starts there.
"""

import os
import random
from datetime import UTC, datetime

import pytest

from tests.crash.promises import PromiseLog
from tests.crash.rounds import drawn
from tests.crash.sessions import SessionRunner

START = datetime(2026, 3, 1, tzinfo=UTC)
SEED = int(os.environ.get("LAKEBED_CRASH_SEED", "20260301"))


@pytest.fixture(scope="module")
def runner():
    runner = SessionRunner()
    yield runner
    runner.close()


async def kill_loop(runner, root, seed, cycles, draw=lambda _: {}):
    """Returns how many of the cycles ended by SIGKILL. `draw` gives the options of a session's work."""
    promised, killed = PromiseLog(root, START), 0
    for cycle in range(seed, seed + cycles):
        rng = random.Random(cycle)
        request = promised.request(cycle, **draw(rng))
        try:
            messages, signal = runner.session(request, lines=rng.randint(1, 70), seconds=rng.uniform(0, 0.1))
            killed += signal == 9
            promised.take(messages)
            if rng.random() < 0.7:  # else the next process opens an object that died twice
                await promised.audit()
                await promised.retry()
        except BaseException as error:
            error.add_note(f"cycle {cycle - seed} of the loop; replay with LAKEBED_CRASH_SEED={seed} (this is {cycle})")
            raise
    await promised.audit()
    assert promised.seen
    return killed


async def test_killed_at_random_moments(runner, tmp_path):
    """Killed at any moment: all that was acknowledged is there once, and no promise of any life is broken."""
    assert await kill_loop(runner, tmp_path, SEED, 10) >= 7


async def test_killed_at_random_moments_under_concurrent_load(runner, tmp_path):
    """The same while every job overlaps every other, on a disk that fails, under a clock that steps, through naps."""
    assert await kill_loop(runner, tmp_path, SEED + 100, 9, drawn) >= 6


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
async def test_killed_a_thousand_times(runner, tmp_path, part):
    """The same a thousand times, in twenty directories."""
    await kill_loop(runner, tmp_path, SEED + 1000 * (part + 1), 50)
