"""erase(): removes rows from the archive, file by file."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table

from lakebed.errors import QueryRefused
from lakebed.events.event import SCHEMA
from lakebed.tiers.archive.commits import rewrite
from lakebed.tiers.archive.data_files import live_files, read_rows
from lakebed.tiers.archive.models import Erasure
from lakebed.tiers.archive.pyiceberg_internals import DataFile as IcebergFile
from lakebed.tiers.archive.table import EventsTable

__all__ = ["erase"]


def erase(events: EventsTable, column: str, values: Sequence[str]) -> Erasure:
    """Remove the rows with one of `values` in the text column `column`. Blocks; holds one file in memory at a time."""
    if column not in SCHEMA.names or SCHEMA.field(column).type != pa.string():
        raise QueryRefused(f"{column!r} is not a text column of events", hint="Erase by user_id or anonymous_id")
    erased = pa.array(sorted(set(values)), pa.string())
    without: set[str] = set()  # files with no matching rows

    def choose(table: Table) -> Sequence[Sequence[IcebergFile]]:
        selected = []
        for file in live_files(table, table.current_snapshot()):
            if file.file_path in without:
                continue
            matches = pc.is_in(read_rows(table.io, file, [column]).column(column), value_set=erased)
            if pc.any(matches).as_py():
                selected.append([file])
            else:
                without.add(file.file_path)
        return selected

    def keep(rows: pa.Table) -> pa.Table:
        return rows.filter(pc.invert(pc.is_in(rows.column(column), value_set=erased)))

    done = rewrite(events, "erase", choose, keep)
    return Erasure(rows=sum(replacement.removed for replacement in done), files=len(done))
