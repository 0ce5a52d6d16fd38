"""A process is killed while it updates people: before, in and after a commit. The next one continues from there."""

import signal
import subprocess
import sys

import pytest

from lakebed import Analytics

SETTINGS = {"headroom_bytes": 0, "segment_events": 20}
# The process dies before SQLite runs the n-th statement that contains the pattern.
CHILD = """
import asyncio, os, signal, sys
import aiosqlite
import lakebed.identity.identity
from lakebed import Analytics

lakebed.identity.identity._PIECE = 20  # several commits

root, pattern, at, settings = sys.argv[1], sys.argv[2], int(sys.argv[3]), {"headroom_bytes": 0, "segment_events": 20}

async def main():
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

asyncio.run(main())
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


@pytest.mark.parametrize(("pattern", "at"), STEPS)
async def test_killed_while_identity_catches_up(tmp_path, pattern, at):
    """Graph, people and checkpoint are of one moment, and in the end equal those of an uninterrupted run."""
    died = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path), pattern, str(at)], check=False)
    assert died.returncode == -signal.SIGKILL
    async with Analytics("shop", root=tmp_path, **SETTINGS) as shop:
        assert await shop._components.identity.checkpoint() > 0
        assert await shop._components.identity.check(shop._components.identity.position) == []
        resumed = (await shop.query("SELECT person_id, ids FROM people ORDER BY 1")).rows
        assert (await shop.dau(1))[0].dau == len(resumed)
        assert await shop.check() == []
    for path in (tmp_path / "shop").glob("storage.db*"):
        path.unlink()
    async with Analytics("shop", root=tmp_path, **SETTINGS) as shop:
        assert (await shop.query("SELECT person_id, ids FROM people ORDER BY 1")).rows == resumed
        assert await shop.check() == []
