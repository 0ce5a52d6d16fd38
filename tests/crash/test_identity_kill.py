"""A process is killed while it updates people: before, in and after a commit. The next one continues from there."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lakebed import Analytics

SETTINGS = {"headroom_bytes": 0, "segment_events": 20}
# A process for each step, forked from one that has imported everything: it dies at that statement on its way to
# storage.db, as it is asked of SQLite. Prints the statuses.
CHILD = """
import asyncio, json, os, signal, sys
import aiosqlite, duckdb, pyarrow.parquet, pyarrow.compute, sqlglot
import lakebed.identity.identity
from lakebed import Analytics

lakebed.identity.identity._PIECE = 20  # several commits

settings = {"headroom_bytes": 0, "segment_events": 20}

async def main(root, pattern, at):
    async with Analytics("shop", root=root, **settings) as shop:
        for number in range(60):
            await shop.identify(f"u{number % 7}", anonymous_id=f"a{number % 31}", message_id=f"m{number}")
            if number % 9 == 0:
                await shop.alias(f"u{number % 7}", f"u{(number + 1) % 5}", message_id=f"l{number}")
            if number == 30:
                await shop.dau(1)
        armed = []
        for name in ("execute_fetchall", "executemany"):
            whole = getattr(aiosqlite.Connection, name)
            def seen(self, sql, *rest, whole=whole):
                if pattern in sql:
                    armed.append(sql)
                    if len(armed) == at:
                        os.kill(os.getpid(), signal.SIGKILL)
                return whole(self, sql, *rest)
            setattr(aiosqlite.Connection, name, seen)
        await shop._components.catch_up.identity(shop._components.pipeline.next_seq)
        os.kill(os.getpid(), signal.SIGKILL)

statuses = []
for root, pattern, at in json.load(sys.stdin):
    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(main(root, pattern, at))
        finally:
            os._exit(1)
    statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(json.dumps(statuses))
"""
STEPS = [("INSERT INTO identity_users", 1), ("INSERT INTO identity_edges", 1), ("INSERT INTO checkpoints", 1)]
STEPS += [
    ("DELETE FROM identity_people", 1),
    ("INSERT INTO identity_people", 1),
    ("COMMIT", 1),
    ("COMMIT", 2),
    ("COMMIT", 4),
    ("-", 1),
]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Of each step the directory that its process left, and how that ended."""
    roots = [str(tmp_path_factory.mktemp("killed")) for _ in STEPS]
    steps = json.dumps([(root, *step) for root, step in zip(roots, STEPS, strict=True)])
    done = subprocess.run([sys.executable, "-c", CHILD], input=steps, stdout=subprocess.PIPE, text=True, check=True)
    return dict(zip(STEPS, zip(roots, json.loads(done.stdout), strict=True), strict=True))


@pytest.mark.parametrize(("pattern", "at"), STEPS)
async def test_killed_while_identity_catches_up(killed, pattern, at):
    """Graph, people and checkpoint are of one moment, and in the end those of a graph that nothing interrupted."""
    root, status = killed[pattern, at]
    assert status == -signal.SIGKILL
    async with Analytics("shop", root=root, **SETTINGS) as shop:
        assert await shop._components.identity.checkpoint() > 0
        assert await shop._components.identity.check(shop._components.identity.position) == []
        resumed = (await shop.query("SELECT person_id, ids FROM people ORDER BY 1")).rows
        assert (await shop.dau(1))[0].dau == len(resumed)
        assert await shop.check() == []
    for path in Path(root, "shop").glob("storage.db*"):
        path.unlink()
    async with Analytics("shop", root=root, **SETTINGS) as shop:
        assert (await shop.query("SELECT person_id, ids FROM people ORDER BY 1")).rows == resumed
        assert await shop.check() == []
