"""Adding a batch of events to the archive, exactly once."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Table, Transaction

from lakebed.errors import ArchiveConflict
from lakebed.events.promotions import with_promoted
from lakebed.tiers.archive.data_files import FileWriter, promoted_columns
from lakebed.tiers.archive.pyiceberg_internals import CachedTransaction, stage_append
from lakebed.tiers.archive.pyiceberg_internals import DataFile as IcebergFile
from lakebed.tiers.archive.table import EventsTable
from lakebed.tiers.archive.watermark import Progress

__all__ = ["append"]


def append(events: EventsTable, rows: pa.Table, start: int, end: int) -> bool:
    """Commit `rows`, exactly the events `[start, end)`, with the watermark `end`. Blocks.

    Returns:
        False when the archive had them already; nothing was written then.

    Raises:
        ArchiveConflict: the archive is not at `start`, or `rows` are not those events.
    """
    if start == end:
        return False
    rows = _in_order(rows, start, end)
    digest = _digest(rows)
    written: dict[int, list[IcebergFile]] = {}

    def stage(table: Table) -> tuple[Transaction, Progress] | None:
        before = Progress.of(table.current_snapshot())
        if before.watermark >= end:
            return None
        if before.watermark != start:
            raise ArchiveConflict(
                f"the archive ends at event {before.watermark}: events {start} to {end} cannot follow",
                hint="Another program archived events, or the catalog does not belong to this log",
                watermark=before.watermark,
            )
        transaction = CachedTransaction(table)
        schema = events.evolve(transaction)
        if schema.schema_id not in written:
            writer = FileWriter(table, transaction.table_metadata, events.settings.compact_target_bytes)
            written[schema.schema_id] = writer.write(with_promoted(rows, promoted_columns(schema), events.engine))
        progress = before.next(watermark=end)
        summary = progress.summary("append", events.clock.now_us(), start, digest)
        stage_append(transaction, summary, written[schema.schema_id])
        return transaction, progress

    return events.commit(stage, create=True)


def _in_order(rows: pa.Table, start: int, end: int) -> pa.Table:
    if not _covers(rows.column("seq"), start, end):
        rows = rows.sort_by("seq")
    if not _covers(rows.column("seq"), start, end):
        raise ArchiveConflict(
            f"{rows.num_rows} rows are not the events {start} to {end}",
            hint="Read them from the log again",
            start=start,
            end=end,
        )
    return rows


def _covers(seq: pa.ChunkedArray, start: int, end: int) -> bool:
    if len(seq) != end - start or seq.null_count or (seq[0].as_py(), seq[-1].as_py()) != (start, end - 1):
        return False
    steps = pc.min_max(pc.pairwise_diff(seq.combine_chunks())).as_py()
    return len(seq) == 1 or (steps["min"], steps["max"]) == (1, 1)


def _digest(rows: pa.Table) -> str:
    """SHA-256 of the message ids in order, a line feed after each: identifies the events that a snapshot added."""
    digest = hashlib.sha256()
    for batch in rows.select(["message_id"]).to_batches(max_chunksize=65_536):
        ids = pa.ListArray.from_arrays(pa.array([0, batch.num_rows], pa.int32()), batch.column(0))
        digest.update(pc.binary_join(ids, "\n")[0].as_buffer())
        digest.update(b"\n")
    return digest.hexdigest()
