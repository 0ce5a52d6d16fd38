"""Commits to the archive: they add a batch of events exactly once, or replace files by rewritten files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.schema import Schema
from pyiceberg.table import Table, Transaction

from lakebed.errors import ArchiveConflict, ArchiveUnavailable
from lakebed.events.promotions import with_promoted
from lakebed.settings import Settings
from lakebed.tiers.archive.data_files import FileWriter, describe, live_files, promoted_columns, read_rows
from lakebed.tiers.archive.models import Compaction
from lakebed.tiers.archive.pyiceberg_internals import CachedTransaction, stage_append, stage_overwrite
from lakebed.tiers.archive.pyiceberg_internals import DataFile as IcebergFile
from lakebed.tiers.archive.table import EventsTable
from lakebed.tiers.archive.watermark import Progress

__all__ = ["append", "compact", "rewrite"]


def append(events: EventsTable, rows: pa.Table, start: int, end: int) -> bool:
    """Commit `rows`, which are exactly the events `[start, end)`, with the watermark `end`. Blocks.

    Returns:
        False, without a commit, if the archive already had the events; else True.

    Raises:
        ArchiveConflict: the archive's watermark is not `start`, or `rows` are not these events.
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
                hint="Let no other program archive events into this table; use the catalog that belongs to this log",
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
            f"a batch of {rows.num_rows} rows does not have exactly the events {start} to {end - 1}",
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
    """SHA-256 of the message ids, in order, each with a line feed: identifies the events that a snapshot added."""
    digest = hashlib.sha256()
    for batch in rows.select(["message_id"]).to_batches(max_chunksize=65_536):
        ids = pa.ListArray.from_arrays(pa.array([0, batch.num_rows], pa.int32()), batch.column(0))
        digest.update(pc.binary_join(ids, "\n")[0].as_buffer())
        digest.update(b"\n")
    return digest.hexdigest()


FileGroup = Sequence[IcebergFile]


class Replacement(msgspec.Struct):
    """A group of files, the files that replace it, and the number of rows that were removed."""

    old: FileGroup
    new: list[IcebergFile]
    removed: int


def rewrite(
    events: EventsTable,
    operation: str,
    choose: Callable[[Table], Sequence[FileGroup]],
    keep: Callable[[pa.Table], pa.Table] = lambda rows: rows,
) -> list[Replacement]:
    """Copy each group of files, without the rows that `keep` removes, and commit all copies at once. Blocks.

    Columns that were promoted after a file was written are filled. The new files are read back before the commit, and
    must hold exactly the kept rows. Memory is bounded by the largest group.

    Args:
        events: the table.
        operation: recorded in the snapshot's summary.
        choose: returns groups of live files of the current table; called again after another program's commit.
        keep: gets the rows of a group; returns the rows to keep.
    """
    done: list[Replacement] = []
    written: dict[tuple[int, frozenset[str]], Replacement] = {}

    def stage(table: Table) -> tuple[Transaction, Progress] | None:
        done.clear()
        before = Progress.of(table.current_snapshot())
        groups = choose(table)
        if not groups:
            return None
        transaction = CachedTransaction(table)
        schema = events.evolve(transaction)
        promoted = promoted_columns(schema)
        # Twice the target: files that compaction has merged up to the target must not be split again.
        writer = FileWriter(table, transaction.table_metadata, 2 * events.settings.compact_target_bytes)
        for group in groups:
            key = (schema.schema_id, frozenset(file.file_path for file in group))
            if key not in written:
                written[key] = _replace(
                    table, writer, group, partial(with_promoted, promotions=promoted, engine=events.engine), keep
                )
            done.append(written[key])
        progress = before.next(erased=sum(replacement.removed for replacement in done))
        summary = progress.summary(operation, events.clock.now_us(), before.watermark)
        old = [file for replacement in done for file in replacement.old]
        new = [file for replacement in done for file in replacement.new]
        stage_overwrite(transaction, summary, old, new)
        return transaction, progress

    return done if events.commit(stage) else []


def _replace(
    table: Table,
    writer: FileWriter,
    group: FileGroup,
    complete: Callable[[pa.Table], pa.Table],
    keep: Callable[[pa.Table], pa.Table],
) -> Replacement:
    rows = pa.concat_tables([complete(read_rows(table.io, file)) for file in group], promote_options="permissive")
    if rows.num_rows != sum(file.record_count for file in group):
        raise _differs(group, f"{rows.num_rows} rows were read")
    kept = keep(rows)
    new = writer.write(kept)
    seqs = [read_rows(table.io, file, ["seq"]).column("seq") for file in new]
    written = pa.chunked_array([chunk for column in seqs for chunk in column.chunks], pa.int64())
    if not _sorted(written).equals(_sorted(kept.column("seq"))):
        raise _differs(group, f"the {len(written)} rows that were written are not the {kept.num_rows} rows to keep")
    return Replacement(group, new, rows.num_rows - kept.num_rows)


def _sorted(column: pa.ChunkedArray) -> pa.Array:
    return pa.array(column.combine_chunks()).sort()


def _differs(group: FileGroup, difference: str) -> ArchiveUnavailable:
    paths = ", ".join(file.file_path for file in group)
    return ArchiveUnavailable(
        f"{difference}, the archive lists {sum(file.record_count for file in group)} rows ({paths})",
        hint="Nothing was changed. Run check(), and restore damaged files from a backup",
        paths=paths,
    )


_MAX_GROUPS = 200  # the limit of one commit: other work waits half a minute at most


def compact(events: EventsTable) -> Compaction:
    """Merge files in one commit of about `compact_target_bytes`, or in none if nothing is left to merge. Blocks."""

    def choose(table: Table) -> Sequence[Sequence[IcebergFile]]:
        return _one_commit(_groups(live_files(table, table.current_snapshot()), events.settings), events.settings)

    done = rewrite(events, "compact", choose)
    old = [file for replacement in done for file in replacement.old]
    new = [file for replacement in done for file in replacement.new]
    return Compaction(
        commits=1 if done else 0,
        rows=sum(file.record_count for file in new),
        files_before=len(old),
        files_after=len(new),
        bytes_before=sum(file.file_size_in_bytes for file in old),
        bytes_after=sum(file.file_size_in_bytes for file in new),
    )


def _groups(files: Iterable[IcebergFile], settings: Settings) -> list[list[IcebergFile]]:
    """Groups of small files to merge. The files of a group are neighbours within one day, and fit in memory."""
    small = sorted(
        (file for file in files if file.file_size_in_bytes < settings.compact_below_bytes),
        key=lambda file: (file.partition[0], describe(file, Schema()).min_timestamp),
    )
    groups: list[list[IcebergFile]] = []
    for file in small:
        last = groups[-1] if groups else []
        if last and last[0].partition[0] == file.partition[0] and _fits([*last, file], settings):
            last.append(file)
        else:
            groups.append([file])
    return [group for group in groups if len(group) > 1]


def _fits(group: list[IcebergFile], settings: Settings) -> bool:
    # Rows are bounded as in one batch of `append`: both hold the rows in memory, with a sorted copy of a part.
    return (
        sum(file.file_size_in_bytes for file in group) <= settings.compact_target_bytes
        and sum(file.record_count for file in group) <= settings.archive_rows
    )


def _one_commit(groups: list[list[IcebergFile]], settings: Settings) -> list[list[IcebergFile]]:
    selected: list[list[IcebergFile]] = []
    size = 0
    for group in groups[:_MAX_GROUPS]:
        selected.append(group)
        size += sum(file.file_size_in_bytes for file in group)
        if size >= settings.compact_target_bytes:
            break
    return selected
