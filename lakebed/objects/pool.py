"""The objects of a namespace that are awake: opened by the first call, closed when idle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

from lakebed.clock import Clock
from lakebed.errors import WrongObject
from lakebed.settings import Settings

__all__ = ["ObjectPool", "PooledObject"]


class PooledObject(Protocol):
    """What an object must be to live here: a DurableObject."""

    name: str
    settings: Settings

    async def open(self) -> Any:
        """Make it ready."""
        ...

    async def close(self) -> None:
        """Finish and give its directory up."""
        ...

    async def run_due(self) -> Any:
        """Run what its schedules owe."""
        ...


class _Slot:
    """One object that is opening, awake or closing."""

    __slots__ = ("calls", "closing", "opening", "resident", "used_at")

    def __init__(self, resident: Any, used_at: float) -> None:
        self.resident = resident
        self.calls = 0  # under way; while there is one it stays awake
        self.used_at = used_at
        self.opening: asyncio.Task[None]
        self.closing: asyncio.Task[Exception | None] | None = None  # gives what closing raised

    @property
    def idle(self) -> bool:
        return not self.calls and self.opening.done() and self.closing is None


class ObjectPool:
    """Wakes an object once for all who want it, and lets nobody in while it goes to sleep.

    Args:
        make: gives a closed object of a name and class.
        clock: measures idleness.
        failed: called with what closing an object raised, when nobody waits for it.

    Attributes:
        watchers: called with each object that was closed.
    """

    def __init__(
        self,
        make: Callable[[str, type[Any]], Any],
        clock: Clock,
        failed: Callable[[BaseException], None],
    ) -> None:
        self.watchers: list[Callable[[Any], None]] = []
        self._make = make
        self._clock = clock
        self._failed = failed
        self._rooms: dict[str, _Slot] = {}
        self._left = asyncio.Event()  # set when the last call in a room is over

    def __iter__(self) -> Any:
        return iter([room.resident for room in self._rooms.values() if room.opening.done() and room.closing is None])

    def names(self) -> frozenset[str]:
        """The names of all that are not asleep: opening, awake or closing."""
        return frozenset(self._rooms)

    @asynccontextmanager
    async def use(self, name: str, kind: type[Any]) -> AsyncIterator[Any]:
        """The object, awake for as long as the context lasts.

        Raises:
            WrongObject: it is awake as another class that is not a `kind`.
            Exception: what opening it raised; everyone who waited for it gets it.
        """
        resident, leave = await self.enter(name, kind)
        try:
            yield resident
        finally:
            leave()

    async def enter(self, name: str, kind: type[Any]) -> tuple[Any, Callable[[], None]]:
        """The object, awake until the function beside it is called, once. Raises what `use` raises."""
        room = await self._enter(name, kind)

        def leave() -> None:
            room.calls -= 1
            room.used_at = self._clock.monotonic()
            self._left.set()

        return room.resident, leave

    async def sleep_idle(self, now: float) -> list[str]:
        """Close what was idle for its `idle_s` at `now`, and give the names when that is done."""
        idle = [name for name, room in self._rooms.items() if room.idle and self._rests_at(room) <= now]
        await self.sleep(*idle)
        return idle

    async def sleep(self, *names: str) -> None:
        """Close those of `names` that are awake and not in use."""
        closing = [self._let_go(room) for name in names if (room := self._rooms.get(name)) is not None and room.idle]
        for error in await asyncio.gather(*closing):
            if error is not None:
                self._failed(error)

    async def close(self) -> None:
        """Close all, each when its calls are done. Nobody may enter meanwhile.

        Raises:
            Exception: the first that closing an object raised, when all are closed; the others are its notes.
        """
        failures: list[Exception] = []
        while self._rooms:
            self._left.clear()
            await asyncio.gather(*(room.opening for room in self._rooms.values()), return_exceptions=True)
            closing = [room.closing or self._let_go(room) for room in self._rooms.values() if not room.calls]
            failures += [error for error in await asyncio.gather(*closing) if error is not None]
            if not closing and self._rooms:
                await self._left.wait()
        if failures:
            for other in failures[1:]:
                failures[0].add_note(f"also: {other!r}")
            raise failures[0]

    def next_rest(self) -> float | None:
        """The monotonic second at which the first of them will have been idle for long enough."""
        return min((self._rests_at(room) for room in self._rooms.values() if room.idle), default=None)

    def _rests_at(self, room: _Slot) -> float:
        return room.used_at + float(room.resident.settings.idle_s)

    async def _enter(self, name: str, kind: type[Any]) -> _Slot:
        while (room := self._rooms.get(name)) is not None and room.closing is not None:
            await asyncio.wait([room.closing])
        if room is None:
            room = self._rooms[name] = _Slot(self._make(name, kind), self._clock.monotonic())
            room.opening = asyncio.ensure_future(self._open(name, room))
        elif not isinstance(room.resident, kind):
            raise WrongObject(
                f"{name!r} is awake as {type(room.resident).__name__}, which is not a {kind.__name__}",
                hint=f"Use one class for one object, or let it sleep before it wakes as {kind.__name__}",
                name=name,
            )
        room.calls += 1
        try:
            await asyncio.shield(room.opening)
        except BaseException:
            room.calls -= 1
            self._left.set()
            raise
        return room

    async def _open(self, name: str, room: _Slot) -> None:
        try:
            await room.resident.open()
        except BaseException:
            del self._rooms[name]
            raise

    def _let_go(self, room: _Slot) -> asyncio.Task[Exception | None]:
        room.closing = asyncio.ensure_future(self._close(room))
        return room.closing

    async def _close(self, room: _Slot) -> Exception | None:
        try:
            await room.resident.close()
        except Exception as error:  # noqa: BLE001 - given to whoever sent it to sleep, who may be a timer
            return error
        finally:
            del self._rooms[room.resident.name]
            for watcher in self.watchers:
                watcher(room.resident)
        return None
