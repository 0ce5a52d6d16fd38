"""Finds problems of the archive, cheaply, in manifests and file sizes; and deletes files that nothing refers to.

The deletion is needed because Iceberg's expiry deletes no files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pyiceberg.table import Table

from lakebed.clock import SECOND_US
from lakebed.errors import ArchiveUnavailable, LakebedError
from lakebed.tiers.archive.data_files import DAY_US
from lakebed.tiers.archive.file_io import local_path
from lakebed.tiers.archive.models import DataFile, Garbage
from lakebed.tiers.archive.pyiceberg_internals import ManifestFile, live_files_in, manifests_of
from lakebed.tiers.archive.table import EventsTable
from lakebed.tiers.archive.watermark import Progress

__all__ = ["check", "collect_garbage"]


def check(events: EventsTable) -> list[str]:
    """The problems of the newest snapshot, one sentence each. Blocks."""
    try:
        table = events.load()
        if table is None:
            return []
        snapshot = table.current_snapshot()
        progress = Progress.of(snapshot)
        files = events.manifests.files(table, snapshot)
    except LakebedError as error:
        return [str(error)]
    return [
        *_counts(progress, files),
        *(problem for file in files for problem in _file(table, file, progress.watermark)),
    ]


def _counts(progress: Progress, files: tuple[DataFile, ...]) -> Iterator[str]:
    rows = sum(file.rows for file in files)
    if rows + progress.erased != progress.watermark:
        yield f"the archive has {rows} events, {progress.erased} were erased, but its watermark is {progress.watermark}"
    if len({file.path for file in files}) != len(files):
        yield "a data file is in the archive twice"


def _file(table: Table, file: DataFile, watermark: int) -> Iterator[str]:
    try:
        size = len(table.io.new_input(file.path))
    except OSError as error:
        yield f"{file.path} cannot be read: {error}"
        return
    if size != file.bytes:
        yield f"{file.path} has {size} bytes, not {file.bytes}"
    if not 0 <= file.first_seq <= file.last_seq < watermark:
        yield f"{file.path} has the events {file.first_seq} to {file.last_seq}, outside 0 to {watermark}"
    if file.min_timestamp // DAY_US != file.max_timestamp // DAY_US:
        yield f"{file.path} spans more than one day"


def collect_garbage(events: EventsTable, pinned: set[str], *, dry_run: bool) -> Garbage:
    """Delete old files under the table's location that are not in `pinned` and that the table does not need. Blocks.

    A file is old after `garbage_grace_s`. Files are listed before the table is read: files added in between are young.
    """
    table = events.load()
    if table is None:
        return Garbage((), 0, dry_run)
    directory = events.directory(table)
    if directory is None:
        raise ArchiveUnavailable(
            f"garbage collection of {table.location()} is not supported: the warehouse is not a local directory",
            hint="Let your catalog's maintenance remove orphan files",
            location=table.location(),
        )
    present = list(_files(directory))
    table = events.load()
    if table is None:
        raise ArchiveUnavailable("the archive's table was dropped meanwhile", hint="Nothing was deleted")
    needed = _needed(table) | {Path(path).resolve() for path in pinned}
    before_us = events.clock.now_us() - round(events.settings.garbage_grace_s * SECOND_US)
    garbage = [
        (path, status.st_size)
        for path, status in present
        if path not in needed and _is_old(status.st_mtime_ns // 1000, before_us, events)
    ]
    if not dry_run:
        _delete(events, [path for path, _ in garbage])
    return Garbage(tuple(str(path) for path, _ in garbage), sum(size for _, size in garbage), dry_run)


def _is_old(modified_us: int, before_us: int, events: EventsTable) -> bool:
    # With a grace of 0 a file's age does not matter, even if its time is in the future.
    return modified_us <= before_us or events.settings.garbage_grace_s == 0


def _files(directory: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The plain files under `directory`, in order. Links are not followed. Files may vanish during the walk."""
    for parent, directories, names in os.walk(directory.resolve()):
        directories.sort()
        for name in sorted(names):
            path = Path(parent, name)
            with suppress(FileNotFoundError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    yield path, status


def _needed(table: Table) -> set[Path]:
    """Every local file that a retained snapshot, or the metadata itself, names.

    Raises:
        ArchiveUnavailable: a manifest cannot be read, so it is unknown which files are garbage.
    """
    metadata = table.metadata
    locations = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    locations |= {file.statistics_path for file in [*metadata.statistics, *metadata.partition_statistics]}
    manifests: dict[str, ManifestFile] = {}
    try:
        for snapshot in metadata.snapshots:
            locations.add(snapshot.manifest_list)
            manifests |= {manifest.manifest_path: manifest for manifest in manifests_of(snapshot, table.io)[0]}
        for manifest in manifests.values():
            locations |= {file.file_path for file in live_files_in(manifest, table.io)}
    except Exception as error:
        raise ArchiveUnavailable(
            f"the files that the archive needs cannot be determined: {type(error).__name__}: {error}",
            hint="No file was deleted. Run check(), and restore what is missing from a backup",
        ) from error
    paths = (local_path(location) for location in locations | set(manifests))
    return {path.resolve() for path in paths if path is not None}


def _delete(events: EventsTable, paths: list[Path]) -> None:
    try:
        for path in paths:
            with suppress(FileNotFoundError):  # another collector has deleted it
                events.disk.remove(path)
        for parent in sorted({path.parent for path in paths}):
            events.disk.sync_directory(parent)
    except OSError as error:
        raise ArchiveUnavailable(
            f"garbage could not be deleted: {error}", hint="Files deleted so far were garbage; run it again"
        ) from error
