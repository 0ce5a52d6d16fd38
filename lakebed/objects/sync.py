"""connect(): opens an object for synchronous code and notebooks."""

from __future__ import annotations

import asyncio
import atexit
import functools
import inspect
import os
import threading
import warnings
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from pathlib import Path
from types import ModuleType
from typing import Any, Self, TypeVar

import msgspec

from lakebed.errors import NotReachable, ObjectClosed
from lakebed.objects.registry import class_named
from lakebed.rpc.members import members

__all__ = ["Connection", "connect"]

T = TypeVar("T")
_PLAIN = (str, bytes, int, float, type(None), Path, list, tuple, dict, set, frozenset, msgspec.Struct, type, ModuleType)


def connect(root: str | Path, name: str, cls: type[Any] | None = None, **settings: Any) -> Connection:
    """Open object `name` under `root` for synchronous code. Blocks until it is ready.

    Args:
        root: directory of the namespace.
        name: name of the object.
        cls: class of the object; by default `Analytics`.
        settings: further arguments of the class: single settings, `promote`, `on_error` …

    Raises:
        ObjectLocked: another object or process has it open; `pid` is the owner's process.
        Exception: opening the object failed for another reason.

    The object runs on its own event loop in its own thread, so a notebook, which runs a loop, can use it too.
    """
    object_class = cls if cls is not None else class_named("Analytics")
    return Connection(name, lambda: object_class(name, root=root, **settings), object_class)


class Connection:
    """An open object whose methods block until they have results. Use it as a context manager, or call `close`.

    The public methods and attributes are the object's; a coroutine method blocks and returns its result. Attributes
    that have methods of their own (`counters`) are used the same way. Several threads may use one connection; their
    calls run concurrently on the object's loop. Ctrl-C while waiting cancels the call.

    A connection that is still open is closed when the interpreter exits.
    """

    def __init__(self, name: str, make: Callable[[], Any], object_class: type[Any]) -> None:
        self._class = object_class
        self._label = f"{object_class.__name__}({name!r})"
        self._pid = os.getpid()
        self._loop = _LoopThread(f"lakebed-connect-{name}")
        self._target: Any = None
        self.__doc__ = object_class.__doc__
        try:
            self._target = self._loop.run(_opened(make))
        except BaseException:
            self._loop.stop()
            raise
        _open.add(self)

    def close(self) -> None:
        """Close the object and end its thread. Idempotent. Raises the error of closing the object."""
        if self._target is None or self._pid != os.getpid():
            return
        target, self._target = self._target, None
        _open.discard(self)
        try:
            self._loop.run(target.close())
        finally:
            self._loop.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        return self._reach(self._class, self._up, name)

    def __dir__(self) -> list[str]:
        return sorted({"close", *members(self._class)})

    def __repr__(self) -> str:
        return f"<{'closed connection' if self._target is None else 'connection'} to {self._label}>"

    def _up(self) -> Any:
        if self._target is None or self._pid != os.getpid():
            why = "is closed" if self._pid == os.getpid() else "belongs to the process that this one was forked from"
            raise ObjectClosed(f"the connection to {self._label} {why}", hint="connect() again")
        return self._target

    def _wait(self, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        self._up()
        return self._loop.run(begin())

    def _reach(self, owner: type[Any], target: Callable[[], Any], name: str) -> Any:
        """Get member `name` of the target: a method that blocks, a value, or a part with its own members."""
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in members(owner) and hasattr(owner, name):
            raise NotReachable(f"{owner.__name__}.{name} cannot be used here", hint="Use the connection's own close()")
        method = inspect.getattr_static(owner, name, None)
        if inspect.isfunction(method):
            return self._method(method, target, name)
        value = self._wait(lambda: _read(target, name))
        if inspect.isroutine(value):
            return self._method(value, target, name)
        return value if isinstance(value, _PLAIN) else _Part(self, lambda: getattr(target(), name), type(value), name)

    def _method(self, method: Any, target: Callable[[], Any], name: str) -> Callable[..., Any]:
        @functools.wraps(method)
        def blocking(*args: Any, **kwargs: Any) -> Any:
            return self._wait(lambda: _called(target, name, args, kwargs))

        if inspect.isfunction(method):  # the signature of the bound method
            blocking.__signature__ = _without_self(method)  # type: ignore[attr-defined]
        return blocking


class _Part:
    """A part of the object that has methods of its own, such as `counters`."""

    def __init__(self, connection: Connection, target: Callable[[], Any], kind: type[Any], name: str) -> None:
        self._connection = connection
        self._target = target
        self._class = kind
        self._name = name
        self.__doc__ = kind.__doc__

    def __getattr__(self, name: str) -> Any:
        return self._connection._reach(self._class, self._target, name)  # noqa: SLF001 - this module's own

    def __dir__(self) -> list[str]:
        return sorted(members(self._class))

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> int:
        if not hasattr(self._class, "__len__"):
            raise TypeError(f"{self._name} has no length")
        return int(self._connection._wait(lambda: _called(self._target, "__len__", (), {})))  # noqa: SLF001

    def __contains__(self, item: object) -> bool:
        return bool(self._connection._wait(lambda: _called(self._target, "__contains__", (item,), {})))  # noqa: SLF001

    def __repr__(self) -> str:
        return f"<{self._name} of {self._connection!r}>"


class _LoopThread:
    """An event loop that runs in a thread until `stop`."""

    def __init__(self, name: str) -> None:
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._calls: set[asyncio.Task[Any]] = set()
        self._results: set[Future[Any]] = set()  # the results that callers wait for
        started = threading.Event()
        # Daemon: the interpreter joins other threads before this one could be told to stop.
        self._thread = threading.Thread(target=self._main, args=(started,), name=name, daemon=True)
        self._thread.start()
        started.wait()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for its result. Ctrl-C cancels the coroutine."""
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a connection cannot be used in its own callbacks: call the object's methods there")
        # Not run_coroutine_threadsafe: an interrupt inside of it would leave a call that cannot be cancelled.
        result: Future[T] = Future()
        self._results.add(result)
        try:
            self._loop.call_soon_threadsafe(self._begin, work, result)
            return result.result()
        except BaseException as error:
            result.cancel()
            if self._stop.is_set():
                work.close()
                raise ObjectClosed("the connection is closed", hint="connect() again") from error
            raise
        finally:
            self._results.discard(result)

    def stop(self) -> None:
        """Stop the loop and wait for the thread to end."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        for result in list(self._results):  # results of calls that came too late for the loop
            result.cancel()

    def _main(self, started: threading.Event) -> None:
        asyncio.run(self._live(started))

    async def _live(self, started: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        started.set()
        await self._stop.wait()
        for task in self._calls:
            task.cancel()
        if self._calls:  # awaited here: asyncio.run would also cancel the tasks that finish their work
            await asyncio.wait(self._calls)

    def _begin(self, work: Coroutine[Any, Any, T], result: Future[T]) -> None:
        if result.cancelled() or self._stop.is_set():
            work.close()
            return
        task = self._loop.create_task(work)
        self._calls.add(task)
        result.add_done_callback(
            lambda done: self._loop.call_soon_threadsafe(task.cancel) if done.cancelled() else None
        )
        task.add_done_callback(lambda done: self._end(done, result))

    def _end(self, task: asyncio.Task[T], result: Future[T]) -> None:
        self._calls.discard(task)
        if task.cancelled():
            result.cancel()
            result.set_running_or_notify_cancel()  # wakes the waiting thread
        elif (error := task.exception()) is not None:  # read in any case: asyncio warns of unread ones
            if result.set_running_or_notify_cancel():
                result.set_exception(error)
        elif result.set_running_or_notify_cancel():
            result.set_result(task.result())


async def _opened(make: Callable[[], Any]) -> Any:
    return await make().open()


async def _read(target: Callable[[], Any], name: str) -> Any:
    return getattr(target(), name)


async def _called(target: Callable[[], Any], name: str, args: Any, kwargs: Any) -> Any:
    value = getattr(target(), name)(*args, **kwargs)
    return await value if inspect.isawaitable(value) else value


def _without_self(method: Any) -> inspect.Signature:
    signature = inspect.signature(method)
    return signature.replace(parameters=list(signature.parameters.values())[1:])


_open: set[Connection] = set()  # strong: a connection without other references must still be closed at the end


def _close_all() -> None:
    for connection in list(_open):
        try:
            connection.close()
        except Exception as error:  # noqa: BLE001 - the interpreter ends; the others must be closed too
            warnings.warn(f"{connection!r} did not close: {error!r}", RuntimeWarning, stacklevel=1)


# Before concurrent.futures forbids new work, which closing needs: it does so in the same hook, which runs last in first
# out; plain atexit functions come later. The hook has no public name (CPython 3.9 to 3.14 have it).
getattr(threading, "_register_atexit", atexit.register)(_close_all)
