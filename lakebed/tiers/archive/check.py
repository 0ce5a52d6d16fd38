"""Problems of the archive, found cheaply: from manifests and file sizes, without reading rows."""

from __future__ import annotations

from collections.abc import Iterator

from pyiceberg.table import Table

from lakebed.errors import LakebedError
from lakebed.tiers.archive.data_files import DAY_US
from lakebed.tiers.archive.models import DataFile
from lakebed.tiers.archive.table import EventsTable
from lakebed.tiers.archive.watermark import Progress

__all__ = ["check"]


def check(events: EventsTable) -> list[str]:
    """Problems of the newest snapshot, a sentence each. Blocks."""
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
