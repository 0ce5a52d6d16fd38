"""Broken promises, on purpose: a rig that cannot fail is worthless. Each must be noticed by the next audit."""

import contextlib
import sqlite3


def forget_events(books):
    """The log loses its last bytes, which were acknowledged, and the mark that says so."""
    for path in sorted((books.root / "shop" / "log").glob("*.log"), reverse=True):
        data = path.read_bytes()
        if len(data) > 200:
            path.write_bytes(data[:64] + b"\0" * 12 + data[76:-40])
            return


def miscount(books):
    """A rollup is told that it has counted what it has not."""
    with contextlib.closing(sqlite3.connect(books.root / "shop" / "storage.db")) as connection, connection:
        connection.execute("DELETE FROM rollup_groups WHERE rowid = (SELECT min(rowid) FROM rollup_groups)")


KINDS = {"log": forget_events, "rollup": miscount}
