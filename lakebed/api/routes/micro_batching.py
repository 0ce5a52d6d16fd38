"""MicroBatching: single events that arrive together are stored together."""

from __future__ import annotations

import asyncio
from typing import Any

from lakebed.api.auth import Auth, Caller
from lakebed.events.event import Receipt

__all__ = ["MicroBatching"]

_Waiting = tuple[bytes, str | None, asyncio.Future[Receipt]]  # an event, its key, its receipt
_MAX_EVENTS = 1_000  # at once: a request waits for at most these


class MicroBatching:
    """Joins single events into one batch per object.

    Events of one turn of the event loop go together, and so do events that arrive while the previous batch is stored.
    The fixed cost of a batch (Arrow arrays, a call of the object, a commit) is then paid once for all: 64 connections
    cost as little as a batch of 64. A single event goes at once.
    """

    def __init__(self, auth: Auth) -> None:
        self._auth = auth
        self._waiting: dict[str, list[_Waiting]] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}

    def store(self, caller: Caller, event: bytes) -> asyncio.Future[Receipt]:
        """Store one event.

        Args:
            event: a valid JSON object. The caller has validated it: anything else would corrupt the other events.

        The future fails with the errors of `batch`.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Receipt] = loop.create_future()
        waiting = self._waiting.get(caller.object)
        if waiting is None:
            waiting = self._waiting[caller.object] = []
            if caller.object not in self._sending:
                self._sending[caller.object] = loop.create_task(self._send(caller))
        waiting.append((event, caller.key, done))
        return done

    async def _send(self, caller: Caller) -> None:
        """Store the waiting events until there are none."""
        try:
            await asyncio.sleep(0)
            while waiting := self._waiting.pop(caller.object, None):
                for start in range(0, len(waiting), _MAX_EVENTS):
                    await self._store(caller, waiting[start : start + _MAX_EVENTS])
        finally:
            del self._sending[caller.object]

    async def _store(self, caller: Caller, waiting: list[_Waiting]) -> None:
        try:
            body = b"[%s]" % b",".join([event for event, _, _ in waiting])
            target: Any = self._auth.object(caller)
            receipts: list[Receipt] = await target.batch(
                body, source="http", keep_refused=True, key=[key for _, key, _ in waiting]
            )
            pairs = list(zip(waiting, receipts, strict=True))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - each of those who wait raises it
            for _, _, done in waiting:
                if not done.done():
                    done.set_exception(error)
            return
        for (_, _, done), receipt in pairs:
            if not done.done():  # its client may have disconnected
                done.set_result(receipt)
