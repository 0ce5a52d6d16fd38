"""Removing the rows of a person, by copying every file that holds some without them."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.manifest import DataFile as IcebergFile
from pyiceberg.table import Table

from lakebed.errors import QueryRefused
from lakebed.events.event import SCHEMA
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.archive.data_files import read_rows
from lakebed.tiers.archive.manifests import live_files
from lakebed.tiers.archive.models import Erasure
from lakebed.tiers.archive.rewrite import rewrite
from lakebed.tiers.archive.table import EventsTable

__all__ = ["erase"]


def erase(events: EventsTable, engine: SqlEngine, column: str, values: Sequence[str]) -> Erasure:
    """Remove the rows whose base column `column`, a text, has one of `values`. Blocks; one file in memory at a time."""
    if column not in SCHEMA.names or SCHEMA.field(column).type != pa.string():
        raise QueryRefused(f"{column!r} is no text column of events", hint="Erase by user_id or anonymous_id")
    wanted = pa.array(sorted(set(values)), pa.string())
    without: set[str] = set()  # files that were looked through in vain

    def choose(table: Table) -> Sequence[Sequence[IcebergFile]]:
        chosen = []
        for file in live_files(table, table.current_snapshot()):
            if file.file_path in without:
                continue
            found = pc.is_in(read_rows(table.io, file, [column]).column(column), value_set=wanted)
            if pc.any(found).as_py():
                chosen.append([file])
            else:
                without.add(file.file_path)
        return chosen

    def keep(rows: pa.Table) -> pa.Table:
        return rows.filter(pc.invert(pc.is_in(rows.column(column), value_set=wanted)))

    done = rewrite(events, engine, "erase", choose, keep)
    return Erasure(rows=sum(each.removed for each in done), files=len(done))
