"""Watches: callbacks to clients when a watched state changes. All clients that watch one state share its samples."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from lakebed.rpc.capnweb.codec import Target
from lakebed.rpc.capnweb.results import Remote

__all__ = ["Watches"]

_log = logging.getLogger("lakebed.api")

State = Mapping[str, Any]


class _Listener:
    """One client's callback."""

    __slots__ = ("admitted", "busy", "callback", "sent")

    def __init__(self, callback: Remote, admitted: Callable[[], bool]) -> None:
        self.callback = callback
        self.admitted = admitted
        self.sent: State | None = None  # the state that the client has; None before the first call
        self.busy = False  # whether the client has yet to answer the last call; until then it is not called again


class _Watch:
    """One watched state, and its listeners."""

    def __init__(self, key: tuple[str, str], sample: Callable[[], Awaitable[Any]]) -> None:
        self.key = key
        self.sample = sample
        self.listeners: dict[_Listener, None] = {}
        self.state: State = {}
        self.task: asyncio.Task[None] | None = None


class Watches:
    """All watches of a server.

    Args:
        interval_s: seconds between two samples of one watched state.
    """

    def __init__(self, interval_s: float = 1.0) -> None:
        self._interval_s = interval_s
        self._watches: dict[tuple[str, str], _Watch] = {}
        self._calls: set[asyncio.Task[None]] = set()

    def add(
        self, key: tuple[str, str], sample: Callable[[], Awaitable[Any]], callback: Remote, admitted: Callable[[], bool]
    ) -> Target:
        """Call `callback` with the whole state, then with each change, until the returned target is released.

        Args:
            key: the name of the object, and of the watched state in it.
            sample: reads the state.
            callback: the function of the client.
            admitted: whether the client may still read the state.
        """
        watch = self._watches.get(key)
        if watch is None:
            watch = self._watches[key] = _Watch(key, sample)
        listener = _Listener(callback.dup(), admitted)
        watch.listeners[listener] = None
        if watch.task is None:
            watch.task = asyncio.get_running_loop().create_task(self._run(watch))
        elif watch.state:
            self._notify(watch, listener, watch.state)

        def stop() -> None:
            self._drop(watch, listener)

        return Target("a watch", {"stop": stop}, released=stop)

    def __len__(self) -> int:
        """The number of callbacks."""
        return sum(len(watch.listeners) for watch in self._watches.values())

    @property
    def looks(self) -> int:
        """The number of watched states."""
        return len(self._watches)

    async def close(self) -> None:
        """Stop all watches, and wait until their tasks have ended."""
        watches, self._watches = self._watches, {}
        tasks = {watch.task for watch in watches.values() if watch.task is not None} | self._calls
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _run(self, watch: _Watch) -> None:
        loop = asyncio.get_running_loop()
        try:
            while watch.listeners:
                due = loop.time() + self._interval_s
                previous, watch.state = watch.state, _state(await watch.sample())
                self._notify_all(watch, previous)
                await asyncio.sleep(max(0.0, due - loop.time()))
        except Exception:  # noqa: BLE001 - it is logged, and ends these watches only
            _log.exception("%s of %r cannot be watched any more", watch.key[1], watch.key[0])
            for listener in list(watch.listeners):
                self._drop(watch, listener)

    def _notify_all(self, watch: _Watch, previous: State) -> None:
        shared = _changes(previous, watch.state)
        for listener in list(watch.listeners):
            if listener.busy:
                continue  # when it has answered, one call gives it all changes since the last
            if listener.sent is None:
                self._notify(watch, listener, watch.state)
            elif changes := shared if listener.sent is previous else _changes(listener.sent, watch.state):
                self._notify(watch, listener, changes)
            else:
                listener.sent = watch.state

    def _notify(self, watch: _Watch, listener: _Listener, changes: State) -> None:
        if not listener.admitted():
            self._drop(watch, listener)
            return
        listener.sent, listener.busy = watch.state, True
        call = asyncio.get_running_loop().create_task(self._call(watch, listener, changes))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _call(self, watch: _Watch, listener: _Listener, changes: State) -> None:
        try:
            await listener.callback(changes)
        except Exception as error:  # noqa: BLE001 - any error ends the watch of this client
            _log.info("a callback ended: %s", error)
            self._drop(watch, listener)
        else:
            listener.busy = False

    def _drop(self, watch: _Watch, listener: _Listener) -> None:
        if listener in watch.listeners:
            del watch.listeners[listener]
            listener.callback.close()
        if not watch.listeners and self._watches.get(watch.key) is watch:
            del self._watches[watch.key]
            if watch.task is not None:
                watch.task.cancel()


def _state(sample: Any) -> State:
    if isinstance(sample, msgspec.Struct):
        return msgspec.structs.asdict(sample)
    return dict(sample)


def _changes(old: State, new: State) -> State:
    """The changes from `old` to `new`: new values, and None for names that are gone."""
    changed: dict[str, Any] = {name: value for name, value in new.items() if name not in old or old[name] != value}
    return changed | {name: None for name in old if name not in new}
