"""Calls that a stub makes, and the transport that carries them to the object."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from lakebed.errors import NotReachable
from lakebed.rpc.capnweb.codec import Step, follow
from lakebed.rpc.capnweb.pending import Outcome, PendingResult, Reference, gather, replaced
from lakebed.rpc.members import member

__all__ = ["Batch", "Call", "Transport"]


class Call(msgspec.Struct, eq=False):
    """One call, as in Cap'n Web's `["pipeline", target, path, args]`.

    Attributes:
        source: the result that the path starts from; None for the object itself.
        path: attributes, keys and indexes to follow from there.
        args: positional arguments, with a `Reference` for each result of another call; None reads the value at the
            path and calls nothing.
        kwargs: named arguments, likewise.
        references: the references in the arguments.
        begun: whether it was begun. A call that was cancelled before may be sent again.
    """

    source: PendingResult | None
    path: tuple[Step, ...]
    args: tuple[Any, ...] | None = None
    kwargs: dict[str, Any] = {}
    references: list[Reference] = []
    begun: bool = False

    @property
    def needs(self) -> list[PendingResult]:
        """The results that must be resolved before it begins."""
        needs = [reference.result for reference in self.references]
        return needs if self.source is None else [self.source, *needs]

    async def ready(self) -> None:
        """Return when its needs are resolved. Raises the first failure among them, which is then its own."""
        if needs := self.needs:
            outcome = await gather(needs).wait()
            self.begun = True
            outcome.unwrap()

    async def perform(self, target: Any) -> Any:
        """Make the call on `target`, or on what its source gave, when its needs are resolved.

        Raises:
            NotReachable: the path leads to nothing, or to what cannot be called.
            Exception: what the call, or one that it needs, raised.
        """
        await self.ready()
        self.begun = True
        if self.source is not None and self.source.outcome is not None:
            target = self.source.outcome.value
        value = follow(target, self.path, member)
        if self.args is None:
            return value
        if not callable(value):
            dotted = ".".join(map(str, self.path)) or "this value"
            raise NotReachable(f"{dotted} is not a method", hint="Read it without calling it")
        value = value(*self.filled(self.args), **self.filled(self.kwargs))
        return await value if inspect.isawaitable(value) else value

    def filled(self, arguments: Any) -> Any:
        """`arguments` with the values of their references, which are resolved."""
        return replaced(arguments, _dereferenced) if self.references else arguments


def _dereferenced(value: Any) -> Any:
    if isinstance(value, Reference) and value.result.outcome is not None:
        return follow(value.result.outcome.unwrap(), value.path, member)
    return value


Batch = Mapping[PendingResult, Call]
"""Calls in order, by their results."""


class Transport(Protocol):
    """Carries batches to an object."""

    def send(self, batch: Batch) -> Iterator[tuple[Batch, Coroutine[Any, Any, list[Outcome]]]]:
        """The work of carrying `batch`, in parts: coroutines that make the calls of their part.

        Calls on the object begin in the order of the batch, and batches in the order in which they were sent. A call
        with an earlier call's result begins when that is resolved; if that failed, it fails with the same error. A
        slow call need not hold up others; over a transport that answers once for a batch, it does.

        A coroutine returns the outcomes of its part in order; it may also resolve results itself, earlier. What it
        raises is the outcome of every call that is not resolved then.
        """
        ...
