"""Promises broken on purpose, to show that torture can fail. The next audit must notice each of them."""

import contextlib
import sqlite3

_MARK = slice(64, 76)  # the marker of a log file: the end of its durable bytes


def forget_events(promised):
    """Cut the newest log file to half of its bytes, and clear its marker."""
    logs = sorted(path for path in (promised.root / "shop" / "log").glob("*.log") if path.stat().st_size > 6000)
    if logs:
        data = logs[-1].read_bytes()
        logs[-1].write_bytes(data[: _MARK.start] + b"\0" * 12 + data[_MARK.stop : len(data) // 2])


def miscount(promised):
    """Delete a group of a rollup whose checkpoint says that it was counted."""
    with contextlib.closing(sqlite3.connect(promised.root / "shop" / "storage.db")) as connection, connection:
        connection.execute("DELETE FROM rollup_groups WHERE rowid = (SELECT min(rowid) FROM rollup_groups)")


KINDS = {"log": forget_events, "rollup": miscount}
