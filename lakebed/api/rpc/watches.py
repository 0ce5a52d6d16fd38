"""Watches: calls back to clients when something changed. Any number of clients share one look at it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from lakebed.rpc.capnweb.exported_object import Target
from lakebed.rpc.capnweb.remote_reference import Remote

__all__ = ["Watches"]

_log = logging.getLogger("lakebed.api")

State = Mapping[str, Any]


class _Listener:
    """One client's callback."""

    __slots__ = ("admitted", "busy", "callback", "seen")

    def __init__(self, callback: Remote, admitted: Callable[[], bool]) -> None:
        self.callback = callback
        self.admitted = admitted
        self.seen: State | None = None  # what the client knows; None: nothing yet
        self.busy = False  # it has not answered the last call: it gets no other meanwhile


class _Watch:
    """One thing that is looked at."""

    def __init__(self, key: tuple[str, str], sample: Callable[[], Awaitable[Any]]) -> None:
        self.key = key
        self.sample = sample
        self.listeners: dict[_Listener, None] = {}
        self.state: State = {}
        self.task: asyncio.Task[None] | None = None


class Watches:
    """All watches of a server.

    Args:
        interval_s: between two looks at the same thing.
    """

    def __init__(self, interval_s: float = 1.0) -> None:
        self._interval_s = interval_s
        self._watches: dict[tuple[str, str], _Watch] = {}
        self._calls: set[asyncio.Task[None]] = set()

    def add(
        self,
        key: tuple[str, str],
        sample: Callable[[], Awaitable[Any]],
        callback: Remote,
        admitted: Callable[[], bool],
    ) -> Target:
        """Call `callback` with the state of what `key` names, then with what changed, until the target is released.

        Args:
            key: the object's name, and what is looked at in it.
            sample: looks.
            admitted: whether the client may still know.
        """
        watch = self._watches.get(key)
        if watch is None:
            watch = self._watches[key] = _Watch(key, sample)
        listener = _Listener(callback.dup(), admitted)
        watch.listeners[listener] = None
        if watch.task is None:
            watch.task = asyncio.get_running_loop().create_task(self._look(watch))
        elif watch.state:
            self._notify(watch, listener, watch.state)

        def stop() -> None:
            self._drop(watch, listener)

        return Target("a watch", {"stop": stop}, released=stop)

    def __len__(self) -> int:
        """Callbacks that are alive."""
        return sum(len(watch.listeners) for watch in self._watches.values())

    @property
    def looks(self) -> int:
        """Things that are looked at."""
        return len(self._watches)

    async def close(self) -> None:
        """Stop all. Nothing of them runs afterwards."""
        watches, self._watches = self._watches, {}
        tasks = {watch.task for watch in watches.values() if watch.task is not None} | self._calls
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _look(self, watch: _Watch) -> None:
        loop = asyncio.get_running_loop()
        try:
            while watch.listeners:
                due = loop.time() + self._interval_s
                before, watch.state = watch.state, _state(await watch.sample())
                self._tell_all(watch, before)
                await asyncio.sleep(max(0.0, due - loop.time()))
        except Exception:  # noqa: BLE001 - it is logged; the clients' watches end, and nothing else does
            _log.exception("%s of %r cannot be watched any more", watch.key[1], watch.key[0])
            for listener in list(watch.listeners):
                self._drop(watch, listener)

    def _tell_all(self, watch: _Watch, before: State) -> None:
        shared = _changes(before, watch.state)
        for listener in list(watch.listeners):
            if listener.busy:
                continue  # it will get all that changed meanwhile at once
            if listener.seen is None:
                self._notify(watch, listener, watch.state)
            elif changes := shared if listener.seen is before else _changes(listener.seen, watch.state):
                self._notify(watch, listener, changes)
            else:
                listener.seen = watch.state

    def _notify(self, watch: _Watch, listener: _Listener, changes: State) -> None:
        if not listener.admitted():
            self._drop(watch, listener)
            return
        listener.seen, listener.busy = watch.state, True
        call = asyncio.get_running_loop().create_task(self._call(watch, listener, changes))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _call(self, watch: _Watch, listener: _Listener, changes: State) -> None:
        try:
            await listener.callback(changes)
        except Exception as error:  # noqa: BLE001 - whatever it is, this client is not called again
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
    """What a client that knows `old` must hear: new values, and None for what is gone."""
    changed: dict[str, Any] = {name: value for name, value in new.items() if name not in old or old[name] != value}
    return changed | {name: None for name in old if name not in new}
