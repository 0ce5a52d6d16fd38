"""The live files of a snapshot, as its manifests list them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from pyiceberg.manifest import DataFile as IcebergFile
from pyiceberg.manifest import ManifestContent, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from lakebed.errors import ArchiveConflict
from lakebed.tiers.archived import DataFile
from lakebed.tiers.datafiles import describe

__all__ = ["Manifests", "live_files"]

_REMEMBERED = 64


def live_files(table: Table, snapshot: Snapshot | None) -> Iterator[IcebergFile]:
    """Every live data file of a snapshot, as pyiceberg describes it."""
    for manifest in _data_manifests(table, snapshot):
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
            yield entry.data_file


def _data_manifests(table: Table, snapshot: Snapshot | None) -> list[ManifestFile]:
    manifests = [] if snapshot is None else snapshot.manifests(table.io)
    if any(manifest.content != ManifestContent.DATA for manifest in manifests):
        raise ArchiveConflict(
            "the archive has delete files, which Lakebed neither writes nor applies",
            hint="Another program deleted rows: let it rewrite the data files",
        )
    return list(manifests)


class Manifests:
    """Manifests already read. They never change, so that only those which a commit added are read after it."""

    def __init__(self) -> None:
        self._read: OrderedDict[tuple[str, int], tuple[DataFile, ...]] = OrderedDict()

    def files(self, table: Table, snapshot: Snapshot | None) -> tuple[DataFile, ...]:
        """Live files of `snapshot`, by first timestamp. Blocks."""
        manifests = _data_manifests(table, snapshot)
        found = [file for manifest in manifests for file in self._entries(table, manifest)]
        while len(self._read) > max(_REMEMBERED, 2 * len(manifests)):
            self._read.popitem(last=False)
        return tuple(sorted(found, key=lambda file: (file.min_timestamp, file.path)))

    def _entries(self, table: Table, manifest: ManifestFile) -> tuple[DataFile, ...]:
        schema = table.schema()
        key = (manifest.manifest_path, schema.schema_id)
        if key not in self._read:
            entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
            self._read[key] = tuple(describe(entry.data_file, schema) for entry in entries)
        self._read.move_to_end(key)
        return self._read[key]
