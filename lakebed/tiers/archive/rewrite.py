"""Replacing data files by others, in one commit: shared by compaction and erasure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import pyarrow as pa
from pyiceberg.table import Table, Transaction

from lakebed.errors import ArchiveUnavailable
from lakebed.events.promotions import Promotion, with_promoted
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.archive.data_files import FileWriter, promoted_columns, read_rows
from lakebed.tiers.archive.pyiceberg_internals import CachedTransaction, stage_overwrite
from lakebed.tiers.archive.pyiceberg_internals import DataFile as IcebergFile
from lakebed.tiers.archive.table import EventsTable
from lakebed.tiers.archive.watermark import Progress

__all__ = ["Replacement", "rewrite"]

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

    Columns promoted since are filled. The new files are read back before the commit, and must hold exactly the kept
    rows. Memory is bounded by the largest group.

    Args:
        events: the table.
        operation: recorded in the snapshot's summary.
        choose: returns groups of live files of the current table; called again after another program's commit.
        keep: returns the rows of one group that stay.
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
                written[key] = _replace(table, writer, group, partial(_complete, events.engine, promoted), keep)
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
        raise _differs(group, f"{len(written)} other rows were written")
    return Replacement(group, new, rows.num_rows - kept.num_rows)


def _complete(engine: SqlEngine, promoted: Sequence[Promotion], rows: pa.Table) -> pa.Table:
    return with_promoted(rows, promoted, engine)


def _sorted(column: pa.ChunkedArray) -> pa.Array:
    return pa.array(column.combine_chunks()).sort()


def _differs(group: FileGroup, difference: str) -> ArchiveUnavailable:
    paths = ", ".join(file.file_path for file in group)
    return ArchiveUnavailable(
        f"{difference}, the archive lists {sum(file.record_count for file in group)} rows ({paths})",
        hint="Nothing was changed. Run check(), and restore damaged files from a backup",
        paths=paths,
    )
