"""Gathering: single events that arrive together go to their object together."""

from __future__ import annotations

import asyncio
from typing import Any

from lakebed.api.auth import Auth, Caller
from lakebed.events.event import Receipt

__all__ = ["MicroBatching"]

_Waiting = tuple[bytes, str | None, asyncio.Future[Receipt]]  # an event, its sender's key, its answer
_MOST = 1_000  # events at once: a request waits for no more than these


class MicroBatching:
    """Joins single events into one batch an object.

    Those of one turn of the loop go together, and those that come while the batch before them is stored. What a batch
    costs besides its events (Arrow arrays, a trip to the object, a commit) is then paid once for all: 64 connections
    are as good as a batch of 64. A lonely event goes at once.
    """

    def __init__(self, auth: Auth) -> None:
        self._auth = auth
        self._waiting: dict[str, list[_Waiting]] = {}
        self._sending: dict[str, asyncio.Task[None]] = {}

    def store(self, caller: Caller, event: bytes) -> asyncio.Future[Receipt]:
        """Store one event.

        Args:
            event: a JSON object, known to be one: what it holds of another event's text would spoil that.

        The future fails with what `batch` fails with.
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
        """Store what waits, until nothing does."""
        try:
            await asyncio.sleep(0)
            while waiting := self._waiting.pop(caller.object, None):
                for start in range(0, len(waiting), _MOST):
                    await self._store(caller, waiting[start : start + _MOST])
        finally:
            del self._sending[caller.object]

    async def _store(self, caller: Caller, waiting: list[_Waiting]) -> None:
        try:
            body = b"[%s]" % b",".join([event for event, _, _ in waiting])
            target: Any = self._auth.object(caller)
            receipts: list[Receipt] = await target.batch(
                body, source="http", keep_refused=True, key=[key for _, key, _ in waiting]
            )
            answered = list(zip(waiting, receipts, strict=True))
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - each of those who wait raises it
            for _, _, done in waiting:
                if not done.done():
                    done.set_exception(error)
            return
        for (_, _, done), receipt in answered:
            if not done.done():  # its client may have gone away
                done.set_result(receipt)
