"""The object's side of a batch: follow paths, make calls, gather outcomes.

What a path may reach is decided here, for every transport: public attributes of objects, keys of mappings, indexes of
sequences. Attributes of Python's own values (str, list, dict …) are not reachable, nor are classes and modules:
`"{0.__class__}".format(…)` would open the process.
"""

from __future__ import annotations

import asyncio
import decimal
import functools
import inspect
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from datetime import date, time, timedelta, tzinfo
from types import ModuleType
from typing import Any

from lakebed.errors import NotReachable
from lakebed.rpc.calls import Call, Outcome, Ref, Step, copied

__all__ = ["Begun", "begin", "finish", "members", "reach"]

Begun = list[Outcome | asyncio.Task[Outcome]]
"""The calls of a batch, in order: those that are done and those under way."""

_VALUES = (str, bytes, bytearray, int, float, complex, type(None), set, frozenset, decimal.Decimal)
_TIMES = (date, time, timedelta, tzinfo)


def members(kind: type) -> tuple[str, ...]:
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
    kind: type = type(value)
    closed = isinstance(value, (*_VALUES, *_TIMES, list)) or (isinstance(value, tuple) and not hasattr(kind, "_fields"))
    if closed:
        raise NotReachable(
            f"{name!r} of a {kind.__name__} cannot be reached through a stub", hint="Await it first", step=name
        )
    if not name.startswith("_") and name not in _hidden(kind):
        try:
            found = getattr(value, name)
        except AttributeError as error:
            # An object with names of its own (a row) knows best which there are.
            raise _absent(kind, name, str(error) if hasattr(kind, "__getattr__") else None) from error
        if not isinstance(found, (type, ModuleType)):
            return found
    raise _absent(kind, name)


def _absent(kind: type, name: str, hint: str | None = None) -> NotReachable:
    hint = hint or f"It has: {', '.join(members(kind)) or 'nothing'}"
    return NotReachable(f"{kind.__name__} has no {name!r}", hint=hint, step=name)


@functools.lru_cache(256)
def _hidden(kind: Hashable) -> frozenset[str]:
    declared = (base.__dict__.get("hidden") for base in inspect.getmro(kind))  # type: ignore[arg-type]  # it is a type; mypy thinks none can be hashed
    return frozenset[str]().union(*(names for names in declared if isinstance(names, frozenset)))


async def begin(target: Any, batch: Sequence[Call]) -> Begun:
    """Begin the calls of `batch` on `target`, as `Transport.send` promises, and return before they are done.

    Cancelling this does not keep any call from beginning; the cancellation is raised after the last.
    """
    cancelled: asyncio.CancelledError | None = None
    outcomes: Begun = []
    for call in batch:
        waited = {n: outcomes[n - 1] for n in (call.target, *call.needs) if n}
        if any(isinstance(outcome, asyncio.Task) for outcome in waited.values()):
            outcomes.append(asyncio.ensure_future(_after(waited, target, call)))
            continue
        begun = _begin(target, call, waited)  # type: ignore[arg-type]  # none is a task
        if isinstance(begun, Outcome):
            outcomes.append(begun)
            continue
        outcomes.append(asyncio.ensure_future(_outcome(begun)))
        if inspect.iscoroutine(begun) and cancelled is None:
            try:
                await asyncio.sleep(0)  # its first step, before the next call begins
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled
    return outcomes


async def finish(begun: Begun, settle: Callable[[int, Outcome], None]) -> None:
    """Call `settle(n, outcome)` for each call that `begin` began, as their outcomes come; return when all are there."""
    tasks = []
    for number, outcome in enumerate(begun):
        if isinstance(outcome, Outcome):
            settle(number, outcome)
        else:
            outcome.add_done_callback(lambda task, number=number: settle(number, _done(task)))  # type: ignore[misc]
            tasks.append(outcome)
    if tasks:
        await asyncio.wait(tasks)
        await asyncio.sleep(0)  # callbacks run after what waits for the task


def _begin(target: Any, call: Call, needed: Mapping[int, Outcome]) -> Outcome | Awaitable[Any]:
    """Make one call whose needs have outcomes. Gives its outcome, or what must be awaited for it."""
    for outcome in needed.values():
        if outcome.error is not None:
            return outcome
    try:
        found = reach(needed[call.target].value if call.target else target, call.path)
        if call.args is None:
            return Outcome(found)
        if not callable(found):
            dotted = ".".join(map(str, call.path)) or "this value"
            raise NotReachable(f"{dotted} is not a method", hint="Read it without calling it")  # noqa: TRY301
        value = found(*_filled(call.args, call, needed), **_filled(call.kwargs, call, needed))
    except Exception as error:  # noqa: BLE001 - it is the outcome; whoever awaits the call gets it
        return Outcome(error=error)
    return value if inspect.isawaitable(value) else Outcome(value)


def _filled(arguments: Any, call: Call, needed: Mapping[int, Outcome]) -> Any:
    if not call.needs:
        return arguments
    return copied(
        arguments, lambda value: reach(needed[value.call].value, value.path) if isinstance(value, Ref) else value
    )


async def _outcome(begun: Awaitable[Any]) -> Outcome:
    try:
        return Outcome(await begun)
    except Exception as error:  # noqa: BLE001 - it is the outcome
        return Outcome(error=error)


async def _after(waited: Mapping[int, Outcome | asyncio.Task[Outcome]], target: Any, call: Call) -> Outcome:
    begun = _begin(target, call, {n: await _settled(outcome) for n, outcome in waited.items()})
    return begun if isinstance(begun, Outcome) else await _outcome(begun)


async def _settled(outcome: Outcome | asyncio.Task[Outcome]) -> Outcome:
    if isinstance(outcome, Outcome):
        return outcome
    await asyncio.wait([outcome])
    return _done(outcome)


def _done(task: asyncio.Task[Outcome]) -> Outcome:
    return Outcome(error=asyncio.CancelledError()) if task.cancelled() else task.result()
