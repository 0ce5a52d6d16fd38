"""The object's side of a batch: follow paths, make calls, gather outcomes.

What a path may reach is decided here, for every transport: public attributes of objects, keys of mappings, indexes of
sequences. Attributes of Python's own values (str, list, dict …) are not reachable, nor are classes and modules:
`"{0.__class__}".format(…)` would open the process.
"""

from __future__ import annotations

import asyncio
import datetime
import decimal
import inspect
from collections.abc import Awaitable, Mapping, Sequence
from types import ModuleType
from typing import Any

from lakebed.calls import Call, Outcome, Ref, Step, copied
from lakebed.errors import NotReachable

__all__ = ["deliver", "members", "reach"]

_VALUES = (str, bytes, bytearray, int, float, complex, type(None), set, frozenset, decimal.Decimal)
_TIMES = (datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo)


def members(kind: type[Any]) -> tuple[str, ...]:
    """The names of `kind` that a stub may call or read, sorted. Attributes that only instances have are not listed."""
    hidden = _hidden(kind)
    return tuple(name for name in dir(kind) if not name.startswith("_") and name not in hidden)


def reach(value: Any, path: Sequence[Step]) -> Any:
    """What lies at the end of `path` from `value`.

    Raises:
        NotReachable: a name does not exist or is private; the message says which exist.
        IndexError, KeyError: an element does not exist.
    """
    for step in path:
        value = _step(value, step)
    return value


def _step(value: Any, step: Step) -> Any:
    if isinstance(value, Mapping):
        return value[step]
    if isinstance(value, (list, tuple)) and (isinstance(step, int) or step.lstrip("-").isdecimal()):
        return value[int(step)]  # Cap'n Web clients send indexes as text
    if isinstance(step, int):
        if isinstance(value, _VALUES) or not hasattr(type(value), "__getitem__"):
            raise NotReachable(f"a {type(value).__name__} has no element {step}", hint="Await it first", step=step)
        return value[step]
    return _attribute(value, step)


def _attribute(value: Any, name: str) -> Any:
    kind = type(value)
    closed = isinstance(value, (*_VALUES, *_TIMES, list)) or (isinstance(value, tuple) and not hasattr(kind, "_fields"))
    if closed:
        raise NotReachable(
            f"{name!r} of a {kind.__name__} cannot be reached through a stub", hint="Await it first", step=name
        )
    missing = object()
    found = missing if name.startswith("_") or name in _hidden(kind) else getattr(value, name, missing)
    if found is missing or isinstance(found, (type, ModuleType)):
        known = ", ".join(members(kind)) or "nothing"
        raise NotReachable(f"{kind.__name__} has no {name!r}", hint=f"It has: {known}", step=name)
    return found


def _hidden(kind: type[Any]) -> frozenset[str]:
    return frozenset().union(*(base.__dict__.get("hidden", ()) for base in kind.__mro__ if _declares_hidden(base)))


def _declares_hidden(base: type[Any]) -> bool:
    return isinstance(base.__dict__.get("hidden"), frozenset)


async def deliver(target: Any, batch: Sequence[Call]) -> list[Outcome]:
    """Make the calls of `batch` on `target`, as `Transport.send` promises; what they raise is their outcome."""
    outcomes: list[Outcome | asyncio.Task[Outcome]] = []
    for call in batch:
        waited = [
            outcomes[n - 1] for n in {call.target, *call.needs} if n and isinstance(outcomes[n - 1], asyncio.Task)
        ]
        if waited:
            outcomes.append(asyncio.ensure_future(_after(waited, target, call, outcomes)))
            continue
        begun = _begin(target, call, outcomes)
        if isinstance(begun, Outcome):
            outcomes.append(begun)
            continue
        outcomes.append(asyncio.ensure_future(_finish(begun)))
        if inspect.iscoroutine(begun):
            await asyncio.sleep(0)  # its first step, before the next call begins
    return [await _settled(outcome) for outcome in outcomes]


def _begin(target: Any, call: Call, outcomes: Sequence[Any]) -> Outcome | Awaitable[Any]:
    """Make one call whose needs have outcomes. Gives its outcome, or what must be awaited for it."""
    for needed in (call.target, *call.needs):
        if needed and outcomes[needed - 1].error is not None:
            return Outcome(error=outcomes[needed - 1].error)
    try:
        start = outcomes[call.target - 1].value if call.target else target
        found = reach(start, call.path)
        if call.args is None:
            return Outcome(found)
        args, kwargs = call.args, call.kwargs
        if call.needs:
            args, kwargs = copied((args, kwargs), lambda value: _looked_up(value, outcomes))
        if not callable(found):
            raise NotReachable(f"{_dotted(call.path)} is not a method", hint="Read it without calling it")  # noqa: TRY301
        value = found(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - it is the outcome; whoever awaits the call gets it
        return Outcome(error=error)
    return value if inspect.isawaitable(value) else Outcome(value)


def _looked_up(value: Any, outcomes: Sequence[Any]) -> Any:
    return reach(outcomes[value.call - 1].value, value.path) if isinstance(value, Ref) else value


def _dotted(path: Sequence[Step]) -> str:
    return ".".join(map(str, path)) or "this value"


async def _finish(begun: Awaitable[Any]) -> Outcome:
    try:
        return Outcome(await begun)
    except Exception as error:  # noqa: BLE001 - it is the outcome
        return Outcome(error=error)


async def _after(
    waited: Sequence[Any], target: Any, call: Call, outcomes: list[Outcome | asyncio.Task[Outcome]]
) -> Outcome:
    await asyncio.wait(waited)
    needed = {n: await _settled(outcomes[n - 1]) for n in (call.target, *call.needs) if n}
    begun = _begin(target, call, _Sparse(needed))
    return begun if isinstance(begun, Outcome) else await _finish(begun)


class _Sparse(Sequence[Outcome]):
    """The outcomes that one call needs, at their places in the batch."""

    def __init__(self, found: Mapping[int, Outcome]) -> None:
        self._found = found

    def __getitem__(self, index: Any) -> Any:
        return self._found[index + 1]

    def __len__(self) -> int:
        return max(self._found, default=0)


async def _settled(outcome: Outcome | asyncio.Task[Outcome]) -> Outcome:
    if isinstance(outcome, Outcome):
        return outcome
    await asyncio.wait([outcome])
    return Outcome(error=asyncio.CancelledError()) if outcome.cancelled() else outcome.result()
