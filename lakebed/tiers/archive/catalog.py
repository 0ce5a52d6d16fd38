"""Opening the Iceberg catalog: SQLite in the object's directory, or whatever the settings name."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.utils.concurrent import ExecutorFactory
from sqlalchemy import URL, event

from lakebed.disk import Disk
from lakebed.settings import Settings
from lakebed.tiers.archive.file_io import make_directory, properties_for

__all__ = ["CATALOG_NAME", "open_catalog", "open_external", "work_inline"]

CATALOG_NAME = "lakebed"
_TIMEOUT_S = 60.0


def open_catalog(path: Path, warehouse: str, disk: Disk) -> Catalog:
    """The SQLite catalog at `path`, created if need be. Its commits are durable when they return."""
    make_directory(path.parent, disk)
    uri = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    catalog = SqlCatalog(CATALOG_NAME, uri=uri, warehouse=warehouse, **_io_properties(warehouse, disk))
    event.listen(catalog.engine, "connect", _make_durable)
    catalog.engine.dispose()  # the connection that made the tables does not have the pragma yet
    disk.sync_directory(path.parent)
    return catalog


def open_external(settings: Settings, disk: Disk) -> Catalog:
    """The catalog of `settings.catalog`, given to pyiceberg's `load_catalog`; its `name` defaults to "lakebed"."""
    given: dict[str, Any] = dict(settings.catalog)
    if settings.warehouse:
        given["warehouse"] = settings.warehouse
    if given.get("type") == "rest" or str(given.get("uri", "")).startswith("http"):
        _limit_requests()
    ours = {} if "py-io-impl" in given else _io_properties(given.get("warehouse", ""), disk)
    return load_catalog(given.pop("name", CATALOG_NAME), **(ours | given))


def _io_properties(warehouse: str, disk: Disk) -> dict[str, str]:
    """Ours where pyiceberg would take PyArrow's; its own choice for the schemes that it prefers fsspec for."""
    scheme = urlparse(warehouse).scheme
    return {} if scheme in ("abfs", "abfss", "wasb", "wasbs", "hf") else properties_for(disk)


def _make_durable(connection: Any, _: Any) -> None:
    # FULL syncs the database; EXTRA also the directory after the rollback journal is unlinked, without which a commit
    # may come undone in a power loss.
    connection.execute("PRAGMA synchronous=EXTRA")


class _Inline(Executor):
    """An executor that runs its jobs at once, on the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - it is raised again by result()
            future.set_exception(error)
        return future


def _limit_requests() -> None:
    """Let requests of pyiceberg's REST client, on threads that work inline, fail instead of waiting for ever."""
    from pyiceberg.catalog.rest import RestCatalog  # few need an HTTP client

    make = RestCatalog._create_session  # noqa: SLF001 - the client offers no timeout, and asks its server at once
    if getattr(make, "limits", False):
        return

    @functools.wraps(make)
    def create_session(catalog: Any) -> Any:
        session = make(catalog)
        if getattr(_here, "inline", False):
            session.request = functools.partial(session.request, timeout=_TIMEOUT_S)  # type: ignore[method-assign]
        return session

    create_session.limits = True  # type: ignore[attr-defined]
    RestCatalog._create_session = create_session  # type: ignore[method-assign,assignment]  # noqa: SLF001


_here = threading.local()
_inline = _Inline()
_shared = ExecutorFactory.get_or_create


def work_inline() -> None:
    """Let pyiceberg do its small jobs on the calling thread from now on.

    It would start a pool of threads that lives as long as the process, and whose writes come in no certain order.
    Shutting that pool down instead was rejected: the program around us may use pyiceberg too. Other threads keep it.
    """
    _here.inline = True


def _executor() -> Executor:
    return _inline if getattr(_here, "inline", False) else _shared()


ExecutorFactory.get_or_create = staticmethod(_executor)  # type: ignore[method-assign]
