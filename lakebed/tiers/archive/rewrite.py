"""Replacing data files by others, in one commit: the step that compaction and erasure share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import msgspec
import pyarrow as pa
from pyiceberg.manifest import DataFile as IcebergFile
from pyiceberg.table import Table, Transaction

from lakebed.errors import ArchiveUnavailable
from lakebed.events.promotions import Promotion, with_promoted
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.archive.data_files import FileWriter, promoted_columns, read_rows
from lakebed.tiers.archive.table import EventsTable
from lakebed.tiers.archive.transaction import Changes
from lakebed.tiers.archive.watermark import Progress

__all__ = ["Replacement", "rewrite"]

Group = Sequence[IcebergFile]


class Replacement(msgspec.Struct):
    """Files that left, files that came, and the rows that did not come along."""

    old: Group
    new: list[IcebergFile]
    removed: int


def rewrite(
    events: EventsTable,
    engine: SqlEngine,
    operation: str,
    choose: Callable[[Table], Sequence[Group]],
    keep: Callable[[pa.Table], pa.Table] = lambda rows: rows,
) -> list[Replacement]:
    """Write the rows of each group of files that `keep` keeps into new files, and commit all groups at once. Blocks.

    Columns promoted since are filled. The new files are read back before the commit: exactly the rows that were kept
    are in them. Memory is bounded by the largest group.

    Args:
        events: the table.
        engine: computes promoted columns.
        operation: a word for the snapshot's summary.
        choose: groups of live files of the table as it is; called again when another commit came in between.
        keep: the rows that stay, of those of one group.
    """
    done: list[Replacement] = []
    written: dict[tuple[int, frozenset[str]], Replacement] = {}

    def stage(table: Table) -> tuple[Transaction, Progress] | None:
        done.clear()
        before = Progress.of(table.current_snapshot())
        groups = choose(table)
        if not groups:
            return None
        transaction = Changes(table)
        schema = events.evolve(transaction)
        promoted = promoted_columns(schema)
        # Twice the target: what compaction has merged up to the target must not fall apart again.
        writer = FileWriter(table, transaction.table_metadata, 2 * events.settings.compact_target_bytes)
        for group in groups:
            key = (schema.schema_id, frozenset(file.file_path for file in group))
            if key not in written:
                written[key] = _replace(table, writer, group, partial(_complete, engine, promoted), keep)
            done.append(written[key])
        progress = before.next(erased=sum(each.removed for each in done))
        summary = progress.summary(operation, events.clock.now_us(), before.watermark)
        with transaction.update_snapshot(summary).overwrite() as snapshot:
            for each in done:
                for file in each.old:
                    snapshot.delete_data_file(file)
                for file in each.new:
                    snapshot.append_data_file(file)
        return transaction, progress

    return done if events.commit(stage) else []


def _replace(
    table: Table,
    writer: FileWriter,
    group: Group,
    complete: Callable[[pa.Table], pa.Table],
    keep: Callable[[pa.Table], pa.Table],
) -> Replacement:
    found = pa.concat_tables([complete(read_rows(table.io, file)) for file in group], promote_options="permissive")
    if found.num_rows != sum(file.record_count for file in group):
        raise _differs(group, f"{found.num_rows} rows were read")
    kept = keep(found)
    new = writer.write(kept)
    seqs = [read_rows(table.io, file, ["seq"]).column("seq") for file in new]
    back = pa.chunked_array([chunk for column in seqs for chunk in column.chunks], pa.int64())
    if not _sorted(back).equals(_sorted(kept.column("seq"))):
        raise _differs(group, f"{len(back)} other rows were written")
    return Replacement(group, new, found.num_rows - kept.num_rows)


def _complete(engine: SqlEngine, promoted: Sequence[Promotion], rows: pa.Table) -> pa.Table:
    return with_promoted(rows, promoted, engine)


def _sorted(column: pa.ChunkedArray) -> pa.Array:
    return pa.array(column.combine_chunks()).sort()


def _differs(group: Group, what: str) -> ArchiveUnavailable:
    paths = ", ".join(file.file_path for file in group)
    return ArchiveUnavailable(
        f"{what} where the archive lists {sum(file.record_count for file in group)} rows ({paths})",
        hint="Nothing was changed. Run check(), and restore damaged files from a backup",
        paths=paths,
    )
