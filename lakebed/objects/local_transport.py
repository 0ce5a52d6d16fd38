"""InProcess: how a stub's calls reach an object of a namespace in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from lakebed.objects.pool import ObjectPool
from lakebed.rpc.calls import Call, Outcome, Unsent
from lakebed.rpc.dispatch import Begun, begin, finish

__all__ = ["LocalTransport"]


class LocalTransport:
    """The transport to an object of a namespace in this process: wakes it for each batch, and lets it sleep after.

    Args:
        start: called before each batch; raises when the namespace is closed.
        residents: the objects that are awake.
        name: the object's.
        object_class: what it is woken as.
    """

    def __init__(self, start: Callable[[], None], residents: ObjectPool, name: str, object_class: type[Any]) -> None:
        self._start = start
        self._residents = residents
        self._name = name
        self._class = object_class
        self._turn = asyncio.Lock()  # fair: batches begin in the order in which they came

    async def send(self, batch: Sequence[Call], settle: Callable[[int, Outcome], None]) -> None:
        """As `Transport.send`."""
        self._start()
        try:
            await self._turn.acquire()
        except asyncio.CancelledError:
            raise Unsent from None
        try:
            begun, leave = await self._begin(batch)
        finally:
            self._turn.release()
        waited = _Waited(len(batch), leave, settle)
        try:
            await finish(begun, waited.settle)
        finally:
            waited.end()

    async def _begin(self, batch: Sequence[Call]) -> tuple[Begun, Callable[[], None]]:
        try:
            target, leave = await self._residents.enter(self._name, self._class)
        except asyncio.CancelledError:
            raise Unsent from None
        try:
            return await begin(target, batch), leave
        except BaseException:
            leave()
            raise


class _Waited:
    """Leaves the object just before its last answer is given: whoever gets that finds the object idle."""

    def __init__(self, missing: int, leave: Callable[[], None], settle: Callable[[int, Outcome], None]) -> None:
        self._missing = missing
        self._leave: Callable[[], None] | None = leave
        self._settle = settle

    def settle(self, number: int, outcome: Outcome) -> None:
        self._missing -= 1
        if not self._missing:
            self.end()
        self._settle(number, outcome)

    def end(self) -> None:
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()
