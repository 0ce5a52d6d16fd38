"""The catalog and the files of the archive: durable file IO for pyiceberg, and the SQLite or external catalog."""

from __future__ import annotations

import io
import weakref
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.io import InputFile, OutputFile
from sqlalchemy import URL

from lakebed.disk import Disk
from lakebed.errors import ArchiveUnavailable, LakebedError
from lakebed.settings import Settings
from lakebed.tiers.archive.pyiceberg_internals import PyArrowFile, PyArrowFileIO, limit_rest_requests, open_sql_catalog

__all__ = ["local_path", "open_catalog", "open_external", "unavailable"]

_DISK = "lakebed.disk"
_BUFFER_BYTES = 1 << 20
_disks: weakref.WeakValueDictionary[str, Disk] = weakref.WeakValueDictionary()


def properties_for(disk: Disk) -> dict[str, str]:
    """Catalog properties that make pyiceberg write through `disk`. The caller keeps `disk` alive."""
    key = str(id(disk))
    _disks[key] = disk
    return {"py-io-impl": f"{__name__}.{DurableFileIO.__name__}", _DISK: key}


def local_path(location: str) -> Path | None:
    """The path of a location on this machine; None if the location is elsewhere."""
    scheme, _, path = PyArrowFileIO.parse_location(location)
    return Path(path) if scheme == "file" else None


def unavailable(failure: str, error: Exception) -> LakebedError:
    """The error to raise for an error of pyiceberg, SQLAlchemy, PyArrow or the system; a LakebedError is returned."""
    if isinstance(error, LakebedError):
        return error
    return ArchiveUnavailable(
        f"{failure}: {type(error).__name__}: {error}",
        hint="Nothing was lost: the log keeps the events until a commit is verified. Running it again is safe",
    )


def make_directory(path: Path, disk: Disk) -> None:
    """Create `path` and its missing parents. Each creation is durable when this returns."""
    if path.is_dir():
        return
    make_directory(path.parent, disk)
    path.mkdir(exist_ok=True)
    disk.sync_directory(path.parent)


class DurableFileIO(PyArrowFileIO):
    """PyArrowFileIO whose local files are synced through a `Disk`. Object stores are durable by themselves."""

    def __init__(self, properties: dict[str, str] | None = None) -> None:
        properties = properties or {}
        super().__init__(properties)
        self._disk = _disks.get(properties.get(_DISK, "")) or Disk()

    def new_output(self, location: str) -> PyArrowFile:
        """A file to write, for a `location` at which there is no file yet."""
        path = local_path(location)
        if path is None:
            return super().new_output(location)
        return _DurableFile(location, str(path), self.fs_by_scheme("file", ""), self._disk)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Delete a metadata.json that left the metadata log; any other file is left to Lakebed's garbage collector.

        pyiceberg deletes the manifests of a refused commit. But a server, or a proxy that repeats a request, may refuse
        a commit that was already applied: the table would lose manifests that the commit needs.
        """
        name = location if isinstance(location, str) else location.location
        if not name.endswith(".metadata.json"):
            return
        path = local_path(name)
        if path is None:
            super().delete(name)
            return
        self._disk.remove(path)
        self._disk.sync_directory(path.parent)


class _DurableFile(PyArrowFile):
    def __init__(self, location: str, path: str, filesystem: Any, disk: Disk) -> None:
        super().__init__(location, path, filesystem)
        self._disk = disk

    def create(self, overwrite: bool = False) -> Any:  # noqa: ARG002, FBT002 - the signature is pyiceberg's
        """A stream to write to. Raises FileExistsError, even with `overwrite`: Iceberg's files never change."""
        path = Path(self._path)
        make_directory(path.parent, self._disk)
        return io.BufferedWriter(_DurableStream(path, self._disk), _BUFFER_BYTES)


class _DurableStream(io.RawIOBase):
    def __init__(self, path: Path, disk: Disk) -> None:
        super().__init__()
        self._disk = disk
        self._directory = path.parent
        self._offset = 0
        self._descriptor = disk.create(path)

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._offset

    def write(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        self._disk.write(self._descriptor, [view], self._offset)
        self._offset += len(view)
        return len(view)

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        try:
            self._disk.sync(self._descriptor)
        finally:
            self._disk.close(self._descriptor)
        self._disk.sync_directory(self._directory)


_NAME = "lakebed"


def open_catalog(path: Path, warehouse: str, disk: Disk) -> Catalog:
    """The SQLite catalog at `path`, created if missing. A commit to the catalog is durable when it returns."""
    make_directory(path.parent, disk)
    uri = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    catalog = open_sql_catalog(_NAME, uri, warehouse, _io_properties(warehouse, disk), _make_durable)
    disk.sync_directory(path.parent)
    return catalog


def open_external(settings: Settings, disk: Disk) -> Catalog:
    """The catalog of `settings.catalog`, opened by pyiceberg's `load_catalog`; its `name` defaults to "lakebed"."""
    properties: dict[str, Any] = dict(settings.catalog)
    if settings.warehouse:
        properties["warehouse"] = settings.warehouse
    if properties.get("type") == "rest" or str(properties.get("uri", "")).startswith("http"):
        limit_rest_requests()
    if "py-io-impl" not in properties:
        properties = _io_properties(properties.get("warehouse", ""), disk) | properties
    return load_catalog(properties.pop("name", _NAME), **properties)


def _io_properties(warehouse: str, disk: Disk) -> dict[str, str]:
    """Properties that select Lakebed's file IO; none for schemes that pyiceberg reads with fsspec."""
    scheme = urlparse(warehouse).scheme
    return {} if scheme in ("abfs", "abfss", "wasb", "wasbs", "hf") else properties_for(disk)


def _make_durable(connection: Any) -> None:
    # FULL syncs the database. EXTRA also syncs the directory after the rollback journal is unlinked; else a power loss
    # may undo a commit.
    connection.execute("PRAGMA synchronous=EXTRA")
