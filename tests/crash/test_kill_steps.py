"""A process is killed at each step of its work with the disk: before it, halfway through it, after it.

Steps are the operations of `Disk` (everything that the log and Iceberg write goes through it) and the statements of
SQLite (rollups, checkpoints, Iceberg's catalog), labelled by operation and kind of file.
"""

import random
from collections import Counter
from datetime import UTC, datetime

import pytest

from tests.crash.promises import PromiseLog
from tests.crash.sessions import SessionRunner

START = datetime(2026, 3, 1, tzinfo=UTC)
_SMALL_FILES = ["some", "archive", "some", "archive"]
# The jobs of a session, with "arm" before those that are interrupted, and steps that must be among its steps.
ACTIONS = {
    "append": (["arm", "some"], {"write log/.log", "sync log/.log", "mark log/.log"}),
    "seal": (["some", "arm", "seal"], {"sync_file log/.parquet.tmp", "replace log/.parquet", "remove log/.log"}),
    "rollup": (
        ["some", "arm", "rollup"],
        {"sql storage BEGIN IMMEDIATE", "sql storage INSERT INTO", "sql storage COMMIT"},
    ),
    "archive": (
        ["some", "seal", "arm", "archive"],
        {
            *("write archive/.parquet", "sync archive/.parquet", "write archive/manifest", "sync archive/manifest"),
            *("write archive/snapshot-list", "sync archive/snapshot-list", "write archive/.metadata.json"),
            *("sync archive/.metadata.json", "sql catalog UPDATE iceberg_tables", "sql catalog COMMIT"),
            "sql storage COMMIT",  # the mark of the archived events
        },
    ),
    "prune": (["some", "archive", "rollup", "an_hour", "arm", "rollup"], {"remove log/.parquet", "sync_directory log"}),
    "compact": (
        [*_SMALL_FILES, "arm", "compact"],
        {"write archive/.parquet", "sql catalog UPDATE iceberg_tables", "sql catalog COMMIT"},
    ),
    "expire": ([*_SMALL_FILES, *_SMALL_FILES, "arm", "expire"], {"write archive/.metadata.json", "sql catalog COMMIT"}),
    "collect_garbage": (
        [*_SMALL_FILES, "compact", *_SMALL_FILES, "expire", "arm", "collect_garbage"],
        {"remove archive/.parquet", "remove archive/manifest", "remove archive/snapshot-list"},
    ),
}


@pytest.fixture(scope="module")
def runner():
    runner = SessionRunner()
    yield runner
    runner.close()


def steps_of(labels):
    """(label, which time, when): each step at its first and last time, before, halfway and after."""
    for label, times in sorted(Counter(labels).items()):
        for at in sorted({1, times}):
            yield label, at, "before"
            if label.startswith("write"):
                yield label, at, "half"
            if not label.startswith("sql"):  # statements are traced before they run: "after" one is "before" the next
                yield label, at, "after"


async def kill_at(runner, promised, first, step, seed):
    """Run a session that dies at `step`, and audit the object. Returns whether it died."""
    label, at, when = step
    kill = {"match": label, "at": at, "when": when, "later": "arm" in first}
    try:
        messages, signal = runner.session(promised.request(seed, jobs=0, first=first, kill=kill))
        promised.take(messages)
        await promised.audit()
        if label.startswith(("write log", "sync log", "mark log")):
            await promised.retry()
    except BaseException as error:
        error.add_note(f"killed {when} {label!r}, time {at}; seed {seed}")
        raise
    return signal == 9


async def labels_of(runner, promised, first):
    """The steps of a session that is not killed."""
    messages, signal = runner.session(promised.request(0, jobs=0, first=first, kill={"later": True}))
    promised.take(messages)
    assert signal is None
    return messages[-1]["labels"]


async def kill_each(runner, root, action, most):
    first, expected = ACTIONS[action]
    promised = PromiseLog(root, START)
    await labels_of(runner, promised, first)  # the first run creates tables and directories
    labels = await labels_of(runner, promised, first)
    assert expected <= set(labels)
    steps = list(steps_of(labels))
    must = [step for step in steps if step[0] in expected]
    rng = random.Random(action)
    chosen = steps if most is None else rng.sample(must, min(most, len(must)))
    killed = 0
    for number, step in enumerate(chosen):
        killed += await kill_at(runner, promised, first, step, number)
    # The last occurrence of a step may be absent in another run: then the session is not killed.
    alive = max(1, (len(chosen) - 1) // 5)
    assert killed >= len(chosen) - alive, f"{killed} of {len(chosen)} sessions died where they should"


@pytest.mark.parametrize("action", ACTIONS)
async def test_killed_at_the_important_steps(runner, tmp_path, action):
    """Whatever step a death falls on: old state or new, nothing acknowledged is lost, doubled or changed."""
    await kill_each(runner, tmp_path, action, 2)


async def test_killed_between_the_commit_and_the_checkpoint(runner, tmp_path):
    """After a commit to Iceberg without its checkpoint, another run doubles nothing, and the log is pruned."""
    promised = PromiseLog(tmp_path, START)
    promised.take(runner.session(promised.request(0, jobs=0, first=["some", "archive"]))[0])
    for round_ in range(2):
        step = ("sql storage BEGIN IMMEDIATE", 1, "before")
        assert await kill_at(runner, promised, ACTIONS["archive"][0], step, round_)
        stored = len(promised.seen)
        assert promised.watermark < stored, "the mark was written"
        messages, signal = runner.session(promised.request(round_, jobs=0, first=["archive", "an_hour", "rollup"]))
        promised.take(messages)
        assert signal is None
        assert (promised.watermark, len(promised.seen)) == (stored, stored), (
            "the archive had all of it, and took nothing twice"
        )
        assert not list(tmp_path.glob("shop/log/*.parquet")), "what is archived is let go"
        await promised.audit()


@pytest.mark.slow
@pytest.mark.parametrize("action", ACTIONS)
async def test_killed_at_every_step(runner, tmp_path, action):
    """The same at every kind of step, the first and the last of each."""
    await kill_each(runner, tmp_path, action, None)


@pytest.mark.parametrize("each", [3, pytest.param(1, marks=pytest.mark.slow)])
async def test_killed_repeatedly_during_recovery(runner, tmp_path, each):
    """After a death in the middle of a write, an opening is killed at each (or each 3rd) of its steps, until it lives.

    The last one has every acknowledged event, after all those that were interrupted.
    """
    promised = PromiseLog(tmp_path, START)
    promised.take(runner.session(promised.request(1, jobs=4))[0])
    first, _ = ACTIONS["append"]
    torn = {"match": "write log/.log", "at": 3, "when": "half", "later": True}
    deaths = 0
    for step in range(1, 200, each):
        messages, signal = runner.session(promised.request(step, jobs=0, first=first, kill=torn))
        assert signal == 9
        promised.take(messages)
        kill = {"match": "", "at": step, "when": ("before", "half", "after")[step // each % 3]}
        messages, signal = runner.session(promised.request(step, jobs=0, kill=kill))
        promised.take(messages)
        deaths += signal == 9
        if any(line["kind"] == "ready" for line in messages):
            break
        if step % 6 == 0:
            await promised.audit()
    assert deaths > 5 // each
    await promised.audit()
    await promised.retry()


@pytest.mark.parametrize("each", [20, pytest.param(1, marks=pytest.mark.slow)])
async def test_l2_16_killed_at_each_statement_of_a_rollup(runner, tmp_path, each):
    """Each (or each 20th) statement of a rollup, BEGIN to COMMIT, is once the last one: state and checkpoint agree."""
    first, _ = ACTIONS["rollup"]
    promised = PromiseLog(tmp_path, START)
    await labels_of(runner, promised, first)
    labels = [label for label in await labels_of(runner, promised, first) if label.startswith("sql storage")]
    assert {"sql storage BEGIN IMMEDIATE", "sql storage COMMIT"} <= set(labels)
    statements = range(1, len(labels) + 1, each)
    deaths = 0
    for at in statements:
        deaths += await kill_at(runner, promised, first, ("sql storage", at, "before"), at)
    assert deaths > len(statements) * 0.8
