"""The live files of a snapshot, as its manifests list them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from pyiceberg.table import Table

from lakebed.errors import ArchiveConflict
from lakebed.tiers.archive.data_files import describe
from lakebed.tiers.archive.file_io import unavailable
from lakebed.tiers.archive.models import DataFile
from lakebed.tiers.archive.pyiceberg_internals import DataFile as IcebergFile
from lakebed.tiers.archive.pyiceberg_internals import ManifestFile, Snapshot, live_files_in, manifests_of

__all__ = ["ManifestCache", "live_files"]

_REMEMBERED = 64


def live_files(table: Table, snapshot: Snapshot | None) -> Iterator[IcebergFile]:
    """Every live data file of a snapshot, as pyiceberg describes it."""
    for manifest in _data_manifests(table, snapshot):
        yield from _entries(table, manifest)


def _data_manifests(table: Table, snapshot: Snapshot | None) -> list[ManifestFile]:
    if snapshot is None:
        return []
    try:
        manifests, has_deletes = manifests_of(snapshot, table.io)
    except Exception as error:
        raise unavailable("the archive's manifest list cannot be read", error) from error
    if has_deletes:
        raise ArchiveConflict(
            "the archive has delete files, which Lakebed neither writes nor applies",
            hint="Another program deleted rows: let it rewrite the data files",
        )
    return manifests


def _entries(table: Table, manifest: ManifestFile) -> list[IcebergFile]:
    try:
        return live_files_in(manifest, table.io)
    except Exception as error:
        raise unavailable(f"{manifest.manifest_path} cannot be read", error) from error


class ManifestCache:
    """The manifests already read. Manifests never change, so after a commit only the new ones are read."""

    def __init__(self) -> None:
        self._read: OrderedDict[tuple[str, int], tuple[DataFile, ...]] = OrderedDict()

    def files(self, table: Table, snapshot: Snapshot | None) -> tuple[DataFile, ...]:
        """The live files of `snapshot`, by first timestamp. Blocks."""
        manifests = _data_manifests(table, snapshot)
        files = [file for manifest in manifests for file in self._described(table, manifest)]
        while len(self._read) > max(_REMEMBERED, 2 * len(manifests)):
            self._read.popitem(last=False)
        return tuple(sorted(files, key=lambda file: (file.min_timestamp, file.first_seq, file.path)))

    def _described(self, table: Table, manifest: ManifestFile) -> tuple[DataFile, ...]:
        schema = table.schema()
        key = (manifest.manifest_path, schema.schema_id)
        if key not in self._read:
            self._read[key] = tuple(describe(file, schema) for file in _entries(table, manifest))
        self._read.move_to_end(key)
        return self._read[key]
