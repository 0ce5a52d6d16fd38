"""Merging the small files of each day, so that a query opens few files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pyiceberg.schema import Schema
from pyiceberg.table import Table

from lakebed.settings import Settings
from lakebed.tiers.archive.data_files import describe
from lakebed.tiers.archive.manifests import live_files
from lakebed.tiers.archive.models import Compaction
from lakebed.tiers.archive.pyiceberg_internals import DataFile as IcebergFile
from lakebed.tiers.archive.rewrite import rewrite
from lakebed.tiers.archive.table import EventsTable

__all__ = ["compact"]

_MAX_GROUPS = 200  # of one commit: other work waits half a minute at most


def compact(events: EventsTable) -> Compaction:
    """Merge files in one commit of about `compact_target_bytes`. Zero commits when nothing is left to do. Blocks."""

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
    """Groups of small files to merge: of one day, neighbours in time, and small enough for memory."""
    small = sorted(
        (file for file in files if file.file_size_in_bytes < settings.compact_below_bytes),
        key=lambda file: (file.partition[0], _first_time(file)),
    )
    groups: list[list[IcebergFile]] = []
    for file in small:
        last = groups[-1] if groups else []
        if last and last[0].partition[0] == file.partition[0] and _fits([*last, file], settings):
            last.append(file)
        else:
            groups.append([file])
    return [group for group in groups if len(group) > 1]


def _first_time(file: IcebergFile) -> int:
    return describe(file, Schema()).min_timestamp


def _fits(group: list[IcebergFile], settings: Settings) -> bool:
    # Rows are bounded as in one batch of `append`: both hold them in memory, with a sorted copy of a part.
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
