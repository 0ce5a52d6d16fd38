"""Namespace: a directory of objects. It makes stubs of the objects, and opens objects for calls and schedules."""

from __future__ import annotations

import asyncio
import os
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from lakebed.clock import HOUR_US, SECOND_US, Clock, SystemClock
from lakebed.concurrency import run_in_thread
from lakebed.errors import ObjectClosed, ObjectLocked
from lakebed.objects.manifest import Manifest, directory_of, names_in
from lakebed.objects.pool import Enter, LocalTransport, ObjectHandle, ObjectPool
from lakebed.objects.registry import class_named, classes
from lakebed.objects.wakeups import SleepingObject, is_due, next_due, sleepers
from lakebed.rpc.members import members
from lakebed.rpc.stub import Session, Stub
from lakebed.settings import Settings

if TYPE_CHECKING:
    from lakebed.objects.remote_namespace import RemoteNamespace

__all__ = ["Namespace"]

_WAKING_AT_ONCE = 4
_MAX_ROUND_S = 60.0  # the wall clock may be set, and another process may add objects
_MAX_SCAN_US = HOUR_US  # another process may have added objects of classes that were not seen yet
_MAX_FAILURES = 100


class Namespace:
    """The objects under one root directory. Use it as an async context manager, or directly and `close` it later.

    An object is opened (wakes) at its first call, and closed (sleeps) when idle for `idle_s`; then it needs no memory.
    When a schedule of a sleeping object is due, the object wakes (at most four at a time), makes up for missed runs,
    and sleeps again. Its class must be known: import the class's module, or pass the class as `object_class`.

    Args:
        root: the directory; made by the first object.
        object_class: the class of `get`, and of objects whose own class is not known. By default the class that an
            object was last opened as, or `Analytics`.
        clock: the source of time for the namespace and its objects.
        on_error: called on the loop with each error that no caller received. Objects of the namespace get it too.
        overrides: settings for the objects, by name.

    A namespace belongs to the event loop that first used it.
    """

    _defaults: ClassVar[dict[tuple[asyncio.AbstractEventLoop, str], Namespace]] = {}

    def __init__(
        self,
        root: str | Path = "data",
        object_class: type[Any] | None = None,
        *,
        clock: Clock | None = None,
        on_error: Callable[[BaseException], None] | None = None,
        **overrides: Any,
    ) -> None:
        self.root = Path(os.path.realpath(root))
        self._settings = Settings.load(self.root, **overrides)
        self._class = object_class
        self._on_error = on_error
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._pool = ObjectPool(self._make, self._clock, self._failed)
        self._sessions: weakref.WeakValueDictionary[tuple[str, type[Any]], Session] = weakref.WeakValueDictionary()
        # A session lives as long as a stub of it, as it has work, and as the object stays open that it opened.
        self._awake_sessions: weakref.WeakKeyDictionary[Any, Session] = weakref.WeakKeyDictionary()
        self._busy: set[Session] = set()
        self._tasks: set[asyncio.Task[Any]] = set()  # calls of handles
        self._failures: deque[BaseException] = deque(maxlen=_MAX_FAILURES)
        self._timer: asyncio.TimerHandle | None = None
        self._round: asyncio.Task[None] | None = None
        self._scanned_us: int | None = None  # the time up to which schedules of sleeping objects were run
        self._classes: set[type[Any]] = set()  # of the objects that are or were open, or sleep with a known class
        self._unknown: dict[str, str] = {}  # names of classes that are not known here, each with an object of it
        self._loop: asyncio.AbstractEventLoop | None = None  # while open
        self._watcher: asyncio.Task[None] | None = None  # closes a default namespace with its loop
        self._closed = False

    @classmethod
    def default(cls, root: str | Path | None = None) -> Namespace:
        """The process-wide namespace of `root` (by default `LAKEBED_ROOT`, else "data") for the running loop.

        The namespace is made at the first use. When `asyncio.run` ends, it finishes all calls and closes itself.

        Raises:
            RuntimeError: no event loop is running.
        """
        loop = asyncio.get_running_loop()
        path = os.path.realpath(root if root is not None else os.environ.get("LAKEBED_ROOT") or "data")
        for key in [key for key in cls._defaults if key[0].is_closed()]:
            del cls._defaults[key]
        namespace = cls._defaults.get((loop, path))
        if namespace is None:
            namespace = cls._defaults[loop, path] = cls(path)
            namespace._close_with_loop()
        return namespace

    @staticmethod
    def connect(url: str, *, key: str | None = None, **options: Any) -> RemoteNamespace:
        """A namespace on a server, with the same stubs as a local one. Needs the extra `client`.

        Args:
            url: address of the server. `https://`: one request for each trip; `wss://`: one lasting connection.
            key: API key, which decides the object that can be reached.
            options: further arguments of `RemoteNamespace`.

        Raises:
            InvalidSettings: the URL is not valid.
            ImportError: the extra is not installed.
        """
        from lakebed.objects.remote_namespace import RemoteNamespace  # an app that embeds Lakebed needs no network

        return RemoteNamespace(url, key=key, **options)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> Self:
        """Start running schedules, including those missed while no namespace was open. Idempotent."""
        self._closed = False
        self._start()
        return self

    def get(self, name: str) -> Stub:
        """A stub of object `name`, which need not exist yet.

        Raises:
            InvalidName: the name is not allowed.
            NotReachable: the class as which the object was last opened is not known in this process.
        """
        return self.stub(self._class or self._recorded_class(name), name)

    def handle(self, name: str) -> ObjectHandle:
        """A handle of object `name`, to call its methods: simpler than a stub, but no promises. Raises as `get`."""
        awake = self._pool.class_of(name)
        if awake is None:
            directory_of(self.root, name)
        object_class = self._class or awake or self._recorded_class(name)
        return ObjectHandle(self._entering(name, object_class), self._tasks, self._failed)

    def _recorded_class(self, name: str) -> type[Any]:
        """The class as which object `name` was last opened; `Analytics` for a new object."""
        manifest = Manifest.read(directory_of(self.root, name))
        return class_named(manifest.kind if manifest is not None else "Analytics")

    def _entering(self, name: str, object_class: type[Any]) -> Enter:
        async def enter() -> tuple[Any, Callable[[], None]]:
            self._start()
            return await self._pool.enter(name, object_class)

        return enter

    def __getattr__(self, name: str) -> Callable[[str], Stub]:
        if name.startswith("_"):
            raise AttributeError(name)
        object_class = class_named(name)
        return lambda object_name: self.stub(object_class, object_name)

    def stub(self, object_class: type[Any], name: str) -> Stub:
        """A stub of object `name` as `object_class`. `ns.stub(Shop, "tom")` means the same as `ns.Shop("tom")`.

        Raises:
            InvalidName: the name is not allowed.
        """
        session = self._sessions.get((name, object_class))
        if session is None:
            directory_of(self.root, name)
            transport = LocalTransport(self._entering(name, object_class))
            label = f"{object_class.__name__}({name!r})"
            session = Session(transport, self._failed, self._busy, label, members(object_class))
            self._sessions[name, object_class] = session
        return Stub(session)

    def names(self) -> list[str]:
        """The names of all objects under the root, open or not, sorted."""
        return names_in(self.root)

    def exists(self, name: str) -> bool:
        """Whether object `name` was ever opened. Raises InvalidName."""
        return self._pool.class_of(name) is not None or Manifest.read(directory_of(self.root, name)) is not None

    @property
    def is_open(self) -> bool:
        """Whether the namespace runs schedules: from `open` or the first call, until `close`."""
        return self._loop is not None

    def awake(self) -> list[str]:
        """The names of the objects that are open in this namespace, sorted."""
        return sorted(pooled.name for pooled in self._pool)

    @property
    def pool(self) -> ObjectPool:
        """The open objects. A reference to an object does not keep it open: it may be closed during any await."""
        return self._pool

    residents = pool  # the former name of `pool`

    async def flush(self) -> None:
        """Wait until all calls made so far are resolved, then flush every open object that has a `flush`."""
        await self._settle()
        for pooled in self._pool:
            if callable(getattr(pooled, "flush", None)):
                async with self._pool.use(pooled.name, type(pooled)) as awake:
                    await awake.flush()

    async def close(self) -> None:
        """Finish all calls, then flush and close every object. Idempotent. Calls made later raise ObjectClosed.

        No task, thread or descriptor of the namespace or its objects is left.

        Raises:
            Exception: flushing or closing an object failed. All other objects are closed as well.
        """
        if self._round is not None:
            await asyncio.wait([self._round])
        if self._timer is not None:
            self._timer.cancel()
        try:
            await self.flush()
        finally:
            self._closed = True
            await self._settle()
            try:
                await self._pool.close()
            finally:
                await self._forget()

    async def _forget(self) -> None:
        self._loop = self._timer = self._round = self._scanned_us = None
        for key in [key for key, namespace in self._defaults.items() if namespace is self]:
            del self._defaults[key]
        watcher, self._watcher = self._watcher, None
        if watcher is not None and watcher is not asyncio.current_task():
            watcher.cancel()
            await asyncio.wait([watcher])

    async def sleep_idle(self) -> list[str]:
        """Close the objects that have been idle for their `idle_s`. Returns their names. The timer calls this too."""
        return await self._pool.sleep_idle(self._clock.monotonic())

    async def wake_due(self) -> list[str]:
        """Wake each sleeping object that missed a schedule, run its jobs, and close it. Returns the objects' names.

        The timer calls this too. An error of one object is kept for `check()`, and the others still run.
        """
        now_us = self._clock.now_us()
        sleeping, unreadable = await run_in_thread("scan", lambda: sleepers(self.root, self._pool.names()))
        for error in unreadable:
            self._failed(error)
        self._unknown = {}
        due = [(sleeper.name, due) for sleeper in sleeping if (due := self._due_class(sleeper, now_us)) is not None]
        self._scanned_us = now_us
        waiting = iter(due)
        await asyncio.gather(*(self._run_due(waiting) for _ in range(_WAKING_AT_ONCE)))
        return [name for name, _ in due]

    def check(self) -> list[str]:
        """Errors that no caller received: of calls that were not awaited, and of objects that could not be woken."""
        failures = [f"{type(failure).__name__}: {failure}" for failure in self._failures]
        return failures + [
            f"schedules of {name!r} do not run: its class {unknown} is not known here; import its module"
            for unknown, name in self._unknown.items()
        ]

    def __del__(self) -> None:
        if getattr(self, "_loop", None) is not None and list(self._pool):
            warnings.warn(f"Namespace {str(self.root)!r} was not closed", ResourceWarning, source=self, stacklevel=2)

    def _make(self, name: str, object_class: type[Any]) -> Any:
        self._classes.add(object_class)
        made = object_class(name, root=self.root, settings=self._settings, clock=self._clock, on_error=self._on_error)
        if (session := self._sessions.get((name, object_class))) is not None:
            self._awake_sessions[made] = session
        return made

    def _failed(self, error: BaseException) -> None:
        self._failures.append(error)
        # A promise may be collected in any thread; and an error of on_error must reach the loop's handler, not a call.
        if self._on_error is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_error, error)

    async def _settle(self) -> None:
        while self._busy or self._tasks:
            await asyncio.gather(*(session.settle() for session in list(self._busy)))
            if self._tasks:
                await asyncio.wait(self._tasks)

    def _start(self) -> None:
        if self._closed:
            raise ObjectClosed(f"namespace {str(self.root)!r} is closed", hint="Open a new one", path=self.root)
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._arm(0.0)

    def _arm(self, delay: float) -> None:
        if self._loop is not None:
            self._timer = self._loop.call_later(delay, self._tick)

    def _tick(self) -> None:
        self._round = asyncio.ensure_future(self._run_round())

    async def _run_round(self) -> None:
        try:
            await self.sleep_idle()
            if self._schedules_due():
                await self.wake_due()
        except Exception as error:  # noqa: BLE001 - a timer has no caller; check() lists it
            self._failed(error)
        self._arm(self._delay())

    def _schedules_due(self) -> bool:
        if self._scanned_us is None or self._clock.now_us() - self._scanned_us >= _MAX_SCAN_US:
            return True
        due = next_due(self._classes, self._scanned_us, self._settings.schedule_timezone)
        return due is not None and due <= self._clock.now_us()

    def _delay(self) -> float:
        delays = [_MAX_ROUND_S, self._settings.idle_s]
        if (sleeps_at := self._pool.next_sleep()) is not None:
            delays.append(sleeps_at - self._clock.monotonic())
        now_us = self._clock.now_us()
        if (due := next_due(self._classes, now_us, self._settings.schedule_timezone)) is not None:
            delays.append((due - now_us) / SECOND_US)
        return max(min(delays), 0.05)

    def _due_class(self, sleeper: SleepingObject, now_us: int) -> type[Any] | None:
        """The class with which to open `sleeper`; None if it missed no schedule since its last close."""
        object_class = classes.get(sleeper.kind, self._class)
        if object_class is None:
            self._unknown[sleeper.kind] = sleeper.name
            return None
        self._classes.add(object_class)
        is_late = is_due(object_class, sleeper.since_us, now_us, self._settings.schedule_timezone)
        return object_class if is_late else None

    async def _run_due(self, waiting: Iterator[tuple[str, type[Any]]]) -> None:
        for name, object_class in waiting:
            try:
                async with self._pool.use(name, object_class) as awake:
                    await awake.run_due()
            except ObjectLocked:
                continue  # its owner runs its schedules
            except Exception as error:  # noqa: BLE001 - one object must not stop the others; check() lists it
                self._failed(error)
            await self._pool.sleep(name)

    def _close_with_loop(self) -> None:
        # It closes when the loop cancels its tasks, as `asyncio.run` does at its end. When the loop ends its
        # asynchronous generators it would be too late: closing may need some.
        watch = self._watch()
        watch.send(None)  # to its first pause: if it were cancelled before, it would never begin
        self._watcher = asyncio.get_running_loop().create_task(watch)

    async def _watch(self) -> None:
        try:
            await asyncio.sleep(0)
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if not self._closed:
                await self.close()
