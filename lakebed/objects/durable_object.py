"""DurableObject: one name, one directory, one owner. The base of the classes whose objects a namespace holds.

class Shop(DurableObject):
    async def _open(self): ...
    async def _close(self): ...

async with Shop("tom", root="data") as shop: ...
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

from lakebed.clock import Clock, SystemClock
from lakebed.concurrency import finish_despite_cancel, run_in_thread
from lakebed.disk import Disk
from lakebed.errors import LakebedError, ObjectClosed, ObjectUnavailable
from lakebed.objects.lock import DirectoryLock
from lakebed.objects.manifest import Manifest, directory_of
from lakebed.objects.namespace import Namespace
from lakebed.objects.registry import classes
from lakebed.rpc.stub import Stub
from lakebed.settings import Settings

__all__ = ["DurableObject", "Namespace"]


class DurableObject:
    """A named object that owns a directory, and nothing else. It is open in one process at a time.

    A subclass does its work in `_open` and `_close`; both are coroutines. `_close` always runs after `_open` was begun,
    also if `_open` failed or was cancelled: it must handle a half-open object. Only one of them runs at a time.

    Args:
        name: name of the object, `^[a-z0-9][a-z0-9_-]{0,62}$`; its directory is `<root>/<name>`.
        root: the namespace's directory; `open` makes it if it is missing.
        settings: settings of the object; None loads them with `Settings.load(root, **overrides)`.
        clock: the source of time.
        disk: performs the file operations that must be durable.
        on_error: called with each error of work that no caller awaited.
        overrides: settings, by name.

    Raises:
        InvalidName: the name is not allowed, or leads out of the root.
        InvalidSettings: a setting is unknown or out of range.

    An object belongs to the event loop that opened it, and after `os.fork` to the parent: a child must not use it.
    """

    hidden: ClassVar[frozenset[str]] = frozenset()
    """Public names of a subclass that stubs must not reach, beside those that DurableObject itself has."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        classes[cls.__name__] = cls

    def __init__(
        self,
        name: str,
        *,
        root: str | Path = "data",
        settings: Settings | None = None,
        clock: Clock | None = None,
        disk: Disk | None = None,
        on_error: Callable[[BaseException], None] | None = None,
        **overrides: Any,
    ) -> None:
        self.directory = directory_of(Path(root), name)
        self.name = name
        self.root = self.directory.parent
        self.settings = settings if settings is not None else Settings.load(self.root, **overrides)
        self.clock: Clock = clock if clock is not None else SystemClock()
        self.disk = disk if disk is not None else Disk()
        self.on_error = on_error
        self._lock = DirectoryLock(self.directory)
        self._opened = False
        self._turn = asyncio.Lock()  # one open or close at a time

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} in {self.root}, {'open' if self._opened else 'closed'}>"

    @property
    def is_open(self) -> bool:
        """Whether the object accepts calls: from the end of `open` until `close` begins."""
        return self._opened and self._lock.held

    async def open(self) -> Self:
        """Lock the directory and make the object ready. Does nothing if it is open. Concurrent calls open it once.

        If `open` fails or is cancelled, it closes the half-open object and releases the lock before raising the error.

        Raises:
            ObjectLocked: another object or process has the directory open; `pid` is the owner's process.
            ObjectUnavailable: the operating system refused an operation; the OSError is the cause.
            FormatTooNew: a newer Lakebed wrote the directory. It was not touched.
            WrongObject: the directory holds an object of an unrelated class.
        """
        async with self._turn:
            if not self._opened:
                await self._begin()
        return self

    async def close(self) -> None:
        """Finish the work under way and release the directory. Does nothing if the object is closed.

        A cancelled `close` still finishes before the cancellation is raised. The object can be opened again.
        """
        async with self._turn:
            if self._opened:
                self._opened = False
                await finish_despite_cancel(self._finish())

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __del__(self) -> None:
        if getattr(self, "_opened", False) and self._lock.held:
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=2)

    @classmethod
    def for_(cls, name: str, root: str | Path | None = None) -> Stub:
        """A stub of object `name` in the default namespace of `root`. The first use makes the namespace.

        Args:
            name: name of the object.
            root: directory of the namespace; by default `LAKEBED_ROOT`, else "data".

        Raises:
            InvalidName: the name is not allowed.
            RuntimeError: no event loop is running.

        There is one default namespace for each root and running loop. It closes itself when `asyncio.run` ends, after
        all calls are finished. `await Namespace.default(root).close()` closes it sooner, and is needed if the loop is
        closed without `loop.shutdown_asyncgens()`.
        """
        return Namespace.default(root).stub(cls, name)

    def check_open(self) -> None:
        """Raise ObjectClosed unless calls are accepted. Subclasses' methods that need their tiers call this first."""
        if not self.is_open:
            raise ObjectClosed(
                f"{type(self).__name__} {self.name!r} is not open",
                hint="Use it inside `async with`, or call open() first",
                name=self.name,
            )

    async def run_due(self) -> object:
        """Run all overdue scheduled jobs, and return when they are done. Subclasses override it."""

    async def _open(self) -> None:
        """Open the parts of the subclass. The directory exists and is locked."""

    async def _close(self) -> None:
        """Close every part that is open. Also called after `_open` failed at any step."""

    async def _begin(self) -> None:
        with self._unavailable():
            Manifest.read(self.directory)  # a newer format is refused before anything is touched
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(self.clock.now_us())
        try:
            with self._unavailable():
                await self._write_manifest(Manifest.read(self.directory))
            await self._open()
        except BaseException as error:
            await finish_despite_cancel(self._abandon(error))
            raise
        self._opened = True

    @contextmanager
    def _unavailable(self) -> Iterator[None]:
        """Raise ObjectUnavailable for an OSError. Used for this class's own files, not for those of a subclass."""
        try:
            yield
        except LakebedError:
            raise
        except OSError as error:
            hint = "Fix what the system reports, then open it again: no event was lost by this"
            message = f"{self.directory} cannot be opened: {error}"
            raise ObjectUnavailable(message, hint=hint, path=self.directory) from error

    async def _abandon(self, cause: BaseException) -> None:
        try:
            await self._finish()
        except Exception as error:  # noqa: BLE001 - the first error is raised; this one is its note
            cause.add_note(f"closing the half-open object failed too: {error!r}")

    async def _finish(self) -> None:
        since_us = self.clock.now_us()  # before closing: a schedule that falls due during closing counts as missed
        try:
            await self._close()
        finally:
            self._lock.release(since_us)

    async def _write_manifest(self, old: Manifest | None) -> None:
        lineage = [base.__name__ for base in type(self).__mro__ if issubclass(base, DurableObject)]
        new = Manifest(kind=lineage[0], bases=tuple(lineage[1:-1]))
        if old is not None:
            new = old.agree(new, self.directory)
        if new != old:
            await finish_despite_cancel(
                run_in_thread(f"open-{self.name}", lambda: new.write(self.directory, self.disk))
            )


DurableObject.hidden = frozenset(name for name in dir(DurableObject) if not name.startswith("_")) | {
    "clock",
    "directory",
    "disk",
    "on_error",
    "root",
    "settings",
}
