"""A process is killed at each step of refusing and replaying: every answered event is there once."""

import json
import subprocess
import sys
from collections import Counter

import pytest

from lakebed import Analytics, ManualClock
from tests.crash.dead_letter_worker import MEND, body
from tests.crash.subject import SETTINGS, START

JOBS = ["refuse", "refuse", "replay"]


class Worker:
    """Runs the program that forks a process for each session, and reads its messages."""

    def __init__(self):
        command = [sys.executable, "-m", "tests.crash.dead_letter_worker"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def session(self, root, arm, **kill):
        request = {"root": str(root), "jobs": JOBS, "arm": arm, "kill": kill}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        messages = []
        for line in self._process.stdout:
            messages.append(json.loads(line))
            if messages[-1]["what"] == "ended":
                return messages
        raise AssertionError(f"the worker is gone: {messages}")

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait(20) == 0


@pytest.fixture(scope="module")
def worker():
    worker = Worker()
    yield worker
    worker.close()


def steps_of(labels):
    """Each step at its first and last time: before, after and, for writes, halfway. Statements: before only."""
    for label, times in sorted(Counter(labels).items()):
        for at in sorted({1, times}):
            yield label, at, "before"
            if not label.startswith("sql"):
                yield label, at, "after"
            if label.startswith("write"):
                yield label, at, "half"


async def audit(root, messages):
    """A day later, when no message id is remembered: every refused event is a dead letter or is stored once."""
    clock = ManualClock(START)
    clock.advance(86_400)
    answered = sum(message["rejected"] for message in messages if message["what"] == "answered")
    count = "SELECT count(*), count(DISTINCT user_id) FROM events WHERE event = 'mended'"
    async with Analytics("shop", root=root, clock=clock, **SETTINGS) as shop:
        waiting = {json.loads(letter.raw)["userId"] for letter in await shop.dead_letters()}
        stored = {row[0] for row in await shop.query("SELECT user_id FROM events WHERE event = 'mended'")}
        assert not waiting & stored, "a letter whose event is in the log is gone"
        assert len(waiting | stored) >= answered
        if any(message["what"] == "replayed" for message in messages):
            assert not waiting
        for _ in range(2):
            await shop.replay(edit=MEND)
        rows, people = (await shop.query(count)).rows[0]
        assert rows == people == len(waiting | stored)
        assert await shop.dead_letters() == []
        assert await shop.check() == []


async def kill_at(worker, root, arm, label, at, when):
    messages = worker.session(root, arm, match=label, at=at, when=when)
    try:
        await audit(root, messages)
    except BaseException as error:
        error.add_note(f"killed {when} {label!r}, time {at}")
        raise
    return messages[-1]["signal"] == 9


@pytest.mark.parametrize(
    ("arm", "label", "at", "when"),
    [
        ("refuse", "sync log/.log", 1, "after"),
        ("refuse", "sql storage COMMIT", 2, "before"),
        ("replay", "write log/.log", 1, "half"),
        ("replay", "sync log/.log", 1, "after"),
        ("replay", "sql storage DELETE FROM", 1, "before"),
        ("replay", "sql storage COMMIT", 2, "before"),
    ],
)
async def test_killed_between_the_log_and_the_dead_letters(worker, tmp_path, arm, label, at, when):
    """Killed between the write of the log and that of the dead letters, it loses nothing and stores nothing twice."""
    assert await kill_at(worker, tmp_path, arm, label, at, when), "there is such a step"


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["refuse", "replay"])
async def test_killed_at_every_step(worker, tmp_path, arm):
    """Killed before, halfway through or after each step, it loses nothing and stores nothing twice."""
    messages = worker.session(tmp_path / "whole", arm)
    assert messages[-1]["signal"] == 0
    labels = next(message["labels"] for message in messages if message["what"] == "done")
    assert {"sql storage BEGIN IMMEDIATE", "sql storage COMMIT", "sync log/.log"} <= set(labels)
    steps = enumerate(steps_of(labels))
    killed = [await kill_at(worker, tmp_path / str(number), arm, *step) for number, step in steps]
    assert sum(killed) >= 10


def test_the_bodies_have_good_and_bad_events():
    """The bodies of these tests have valid and invalid events, with and without a message id."""
    items = json.loads(body(0, 9))
    assert Counter((item["event"], "messageId" in item) for item in items) == {
        ("good", True): 3,
        ("", True): 3,
        ("", False): 3,
    }
