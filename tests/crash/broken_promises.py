"""Broken promises, on purpose: a rig that cannot fail is worthless. Each must be noticed by the next audit."""

import contextlib
import sqlite3

_MARK = slice(64, 76)  # where a log file notes what is durable


def forget_events(promised):
    """The newest log file loses half of what it has, and the mark that says so."""
    logs = sorted(path for path in (promised.root / "shop" / "log").glob("*.log") if path.stat().st_size > 6000)
    if logs:
        data = logs[-1].read_bytes()
        logs[-1].write_bytes(data[: _MARK.start] + b"\0" * 12 + data[_MARK.stop : len(data) // 2])


def miscount(promised):
    """A rollup is told that it has counted what it has not."""
    with contextlib.closing(sqlite3.connect(promised.root / "shop" / "storage.db")) as connection, connection:
        connection.execute("DELETE FROM rollup_groups WHERE rowid = (SELECT min(rowid) FROM rollup_groups)")


KINDS = {"log": forget_events, "rollup": miscount}
