"""LocalTransport: carries a stub's calls to an object of this process."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any

from lakebed.objects.pool import Enter
from lakebed.rpc.capnweb.results import Outcome
from lakebed.rpc.stub import Batch, Call

__all__ = ["LocalTransport"]


class LocalTransport:
    """The transport to an object of this process. Each call holds the object open until just before its result.

    Args:
        enter: opens the object for one call.
    """

    def __init__(self, enter: Enter) -> None:
        self._enter = enter

    def send(self, batch: Batch) -> Iterator[tuple[Batch, Coroutine[Any, Any, list[Outcome]]]]:
        """As `Transport.send`: one part a call. A call that waits for another holds the object meanwhile."""
        for result, call in batch.items():
            yield {result: call}, self._perform(call)

    async def _perform(self, call: Call) -> list[Outcome]:
        if call.source is not None and call.source.outcome is not None:  # a value that is here needs no object
            return [Outcome(await call.perform(None))]
        target, leave = await self._enter()
        try:
            return [Outcome(await call.perform(target))]
        finally:
            leave()
