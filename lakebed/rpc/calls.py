"""What travels between a stub and its object: calls, their outcomes, and the transport that carries them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

__all__ = ["Call", "Outcome", "Ref", "Step", "Transport", "Unsent", "copied"]

Step = str | int
_PLAIN = frozenset({str, int, float, bool, type(None), bytes})


class Ref(msgspec.Struct, frozen=True):
    """In a call's arguments: the outcome of an earlier call of the same batch, and a path into it."""

    call: int
    path: tuple[Step, ...] = ()


class Call(msgspec.Struct, frozen=True):
    """One step of a batch, as in Cap'n Web's `["pipeline", target, path, args]`.

    Attributes:
        target: 0 is the object; n > 0 is the outcome of the batch's n-th call, which comes before this one.
        path: attributes, keys and indexes to follow from there.
        args: positional arguments; None reads the value at the path and calls nothing.
        kwargs: named arguments.
        needs: the calls that `Ref`s in the arguments name, so that a batch without any is not searched for them.
    """

    target: int
    path: tuple[Step, ...]
    args: tuple[Any, ...] | None = None
    kwargs: dict[str, Any] = {}
    needs: frozenset[int] = frozenset()


class Outcome(msgspec.Struct, frozen=True):
    """What became of one call: `error` if it failed, else `value`."""

    value: Any = None
    error: BaseException | None = None


class Unsent(Exception):
    """When a transport was cancelled before any call of the batch began, so that it may be sent again."""


class Transport(Protocol):
    """How batches reach an object."""

    async def send(self, batch: Sequence[Call], settle: Callable[[int, Outcome], None]) -> None:
        """Make the calls of `batch`; `settle(n, outcome)` once for each, n from 0, when its outcome is there.

        Calls on the object begin in the order of the batch, and batches in the order in which they were sent. A call
        on or with an earlier call's outcome begins when that is there; if that failed, this has the same error. A slow
        call need not hold up the outcomes of others; over a transport that answers once for a batch, it does.

        Raises:
            Unsent: nothing of the batch began.
            Exception: any other; it is the outcome of every call that has none yet.
        """
        ...


def copied(value: Any, swap: Callable[[Any], Any]) -> Any:
    """`value` with its dicts, lists and tuples copied, and each other value in them replaced by `swap` of it."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        return {key: copied(item, swap) for key, item in value.items()}
    if kind is list:
        return [copied(item, swap) for item in value]
    if kind is tuple:
        return tuple([copied(item, swap) for item in value])
    return swap(value)
