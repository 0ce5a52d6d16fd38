"""The operations on `storage.db` within one transaction. `Storage.transact` creates it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import aiosqlite
import msgspec

from lakebed.errors import StorageUnavailable

__all__ = ["Group", "GroupRow", "StoredRollup", "Transaction", "read_text", "stored_text"]

Group = tuple[int, str]  # bucket start in microseconds, key
GroupRow = tuple[int, str, str, bytes | None]  # bucket, key, state (JSON), sketches


class StoredRollup(msgspec.Struct, frozen=True):
    """A rollup with state in the file. `fingerprint` differs for definitions that give different rows."""

    id: int
    name: str
    fingerprint: str


class Transaction:
    """One transaction: all its writes are durable together, or absent.

    After any error it can only be rolled back; `Storage.transact` does that.
    """

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._usable = True

    async def advance(self, consumer: str, expected: int, next_seq: int) -> None:
        """Move a checkpoint from `expected` to `next_seq`. A checkpoint that was never written is at 0.

        Raises:
            StorageUnavailable: it is not at `expected`, so this range may have been counted already.
        """
        self._assert_open()
        moved = await self.fetch(
            """INSERT INTO checkpoints (consumer, next_seq)
            SELECT :consumer, :next WHERE :expected = 0 OR EXISTS (SELECT 1 FROM checkpoints WHERE consumer = :consumer)
            ON CONFLICT (consumer) DO UPDATE SET next_seq = excluded.next_seq WHERE next_seq = :expected
            RETURNING next_seq""",
            {"consumer": consumer, "expected": expected, "next": next_seq},
        )
        if not moved:
            self._usable = False
            raise StorageUnavailable(
                f"the checkpoint of {consumer} is not at {expected}",
                hint="Another writer has moved it. Nothing was written: read it again",
                consumer=consumer,
                expected=expected,
            )

    async def put(self, key: str, value: Any) -> None:
        """Store a JSON value under a key."""
        await self.fetch(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, msgspec.json.encode(value).decode()),
        )

    async def identify(self, values: Sequence[str]) -> list[int]:
        """The ids of distinct texts, in their order; a new text gets the next id. Ids are dense, from 1, 32 bits."""
        stored = list(map(stored_text, values))
        # Sorted, as the index on value is: each of its pages is then read once, not at random. One JSON parameter costs
        # half of executemany.
        texts = msgspec.json.encode(sorted(stored)).decode()
        known = dict(
            await self.fetch(
                "SELECT i.value, i.id FROM json_each(?) w CROSS JOIN identifiers i ON i.value = w.value", (texts,)
            )
        )
        new = sorted(value for value in stored if value not in known)
        if new:
            ((last,),) = await self.fetch("SELECT coalesce(max(id), 0) FROM identifiers")
            await self.fetch(
                "INSERT INTO identifiers (id, value) SELECT ? + key, value FROM json_each(?)",
                (last + 1, msgspec.json.encode(new).decode()),
            )
            known |= zip(new, range(last + 1, last + 1 + len(new)), strict=True)
        return [known[value] for value in stored]

    async def define(self, name: str, fingerprint: str) -> StoredRollup:
        """Define a rollup. A rollup of that name loses its state; the caller has to reset its checkpoint."""
        await self.forget(name)
        ((number,),) = await self.fetch(
            "INSERT INTO rollups (name, fingerprint) VALUES (?, ?) RETURNING id", (name, fingerprint)
        )
        return StoredRollup(number, name, fingerprint)

    async def keep_state(self, name: str, fingerprint: str) -> None:
        """Say that the state of a rollup, as it is, is that of another definition."""
        await self.fetch("UPDATE rollups SET fingerprint = ? WHERE name = ?", (fingerprint, name))

    async def forget(self, name: str) -> None:
        """Remove a rollup with its state."""
        await self.fetch("DELETE FROM rollups WHERE name = ?", (name,))

    async def drop_checkpoint(self, consumer: str) -> None:
        """Reset a checkpoint to 0."""
        await self.fetch("DELETE FROM checkpoints WHERE consumer = ?", (consumer,))

    async def groups(self, rollup: int, groups: Iterable[Group]) -> list[GroupRow]:
        """The rows of these groups that exist."""
        await self.fetch("DELETE FROM touched")
        await self.many("INSERT INTO touched VALUES (?, ?)", groups)
        return await self.fetch(
            """SELECT g.bucket, g.key, g.state, g.sketches FROM touched t
            CROSS JOIN rollup_groups g ON g.rollup = ? AND g.bucket = t.bucket AND g.key = t.key""",
            (rollup,),
        )

    async def group_counts(self, rollup: int, buckets: Iterable[int], *, without: str) -> dict[int, int]:
        """The number of groups in each bucket, without the key `without`. Buckets without groups are missing."""
        rows = await self.fetch(
            """SELECT bucket, count(*) FROM rollup_groups
            WHERE rollup = ? AND bucket IN (SELECT value FROM json_each(?)) AND key <> ? GROUP BY bucket""",
            (rollup, msgspec.json.encode(list(buckets)).decode(), without),
        )
        return dict(rows)

    async def put_groups(self, rollup: int, rows: Iterable[GroupRow]) -> None:
        """Write groups, new or existing."""
        await self.many(
            f"""INSERT INTO rollup_groups (rollup, bucket, key, state, sketches) VALUES ({rollup:d}, ?, ?, ?, ?)
            ON CONFLICT (rollup, bucket, key) DO UPDATE SET state = excluded.state, sketches = excluded.sketches""",
            rows,
        )

    async def record_run(self, job: str, planned_us: int, finished_us: int, error: str | None) -> None:
        """Record one run of a scheduled job. `error` is that of the last run: a successful run clears it."""
        await self.fetch(
            """INSERT INTO schedule_runs VALUES (:job, :planned, :finished, 1, :error IS NOT NULL, :error)
            ON CONFLICT (job) DO UPDATE SET
                planned_us = max(planned_us, excluded.planned_us), finished_us = excluded.finished_us,
                runs = runs + 1, failures = failures + excluded.failures, error = excluded.error""",
            {"job": job, "planned": planned_us, "finished": finished_us, "error": error},
        )

    async def begin(self) -> None:
        """Start the transaction as the writer. For `Storage`."""
        await self.fetch("BEGIN IMMEDIATE")

    async def commit(self) -> None:
        """Make the transaction durable. For `Storage`."""
        self._assert_open()
        await self.fetch("COMMIT")

    def _assert_open(self) -> None:
        # SQLITE_FULL and a few other errors roll back implicitly; later writes would then be committed alone.
        if not (self._usable and self._connection.in_transaction):
            raise StorageUnavailable("SQLite ended the transaction early", hint="Nothing of it was stored")

    async def fetch(self, sql: str, parameters: Any = ()) -> list[Any]:
        """The rows of one statement. For the files of this package, which have all SQL."""
        try:
            return list(await self._connection.execute_fetchall(sql, parameters))
        except BaseException:
            self._usable = False
            raise

    async def many(self, sql: str, rows: Iterable[Any]) -> None:
        """Run one statement for each of `rows`. For the files of this package."""
        try:
            await (await self._connection.executemany(sql, rows)).close()
        except BaseException:
            self._usable = False
            raise


def stored_text(value: str) -> str:
    """A text as stored in `identifiers`: texts with NUL, at which SQLite's JSON ends, are stored as quoted JSON."""
    return msgspec.json.encode(value).decode() if "\0" in value or value[:1] == '"' else value


def read_text(stored: str) -> str:
    """The inverse of `stored_text`."""
    return str(msgspec.json.decode(stored)) if stored[:1] == '"' else stored
