"""Opening the Iceberg catalog: SQLite in the object's directory, or the one that the settings name."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from pyiceberg.catalog import Catalog, load_catalog
from sqlalchemy import URL

from lakebed.disk import Disk
from lakebed.settings import Settings
from lakebed.tiers.archive.file_io import make_directory, properties_for
from lakebed.tiers.archive.pyiceberg_internals import limit_rest_requests, open_sql_catalog

__all__ = ["open_catalog", "open_external"]

_NAME = "lakebed"


def open_catalog(path: Path, warehouse: str, disk: Disk) -> Catalog:
    """The SQLite catalog at `path`, created if missing. Its commits are durable when they return."""
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
    """Our file IO instead of PyArrow's; for schemes that pyiceberg reads with fsspec, pyiceberg's choice."""
    scheme = urlparse(warehouse).scheme
    return {} if scheme in ("abfs", "abfss", "wasb", "wasbs", "hf") else properties_for(disk)


def _make_durable(connection: Any) -> None:
    # FULL syncs the database; EXTRA also the directory after the rollback journal is unlinked, without which a power
    # loss may undo a commit.
    connection.execute("PRAGMA synchronous=EXTRA")
