"""Members: the attributes and elements of an object of this process that a path may reach.

Public attributes of objects, keys of mappings, indexes of sequences. Attributes of Python's own values (str, list,
dict …) cannot be reached, nor classes and modules: `"{0.__class__}".format(…)` would open the process.
"""

from __future__ import annotations

import decimal
import functools
import inspect
from collections.abc import Hashable, Mapping
from datetime import date, time, timedelta, tzinfo
from types import ModuleType
from typing import Any

from lakebed.errors import NotReachable
from lakebed.rpc.capnweb.codec import Step

__all__ = ["member", "members"]

_VALUES = (str, bytes, bytearray, int, float, complex, type(None), set, frozenset, decimal.Decimal)
_TIMES = (date, time, timedelta, tzinfo)


def members(kind: type) -> tuple[str, ...]:
    """The names in class `kind` that a stub may call or read, sorted. Attributes set on instances are not listed."""
    hidden = _hidden(kind)
    return tuple(name for name in dir(kind) if not name.startswith("_") and name not in hidden)


def member(value: Any, step: Step) -> Any:
    """The member of `value` that `step`, one step of a path, names.

    Raises:
        NotReachable: the name does not exist or is private; the message lists those that exist.
        IndexError, KeyError: there is no such element.
    """
    if isinstance(value, Mapping):
        return value[step]
    if isinstance(step, str):
        return _attribute(value, step)
    if isinstance(value, _VALUES) or not hasattr(type(value), "__getitem__"):
        raise NotReachable(f"a {type(value).__name__} has no element {step}", hint="Await it first", step=step)
    return value[step]


def _attribute(value: Any, name: str) -> Any:
    kind: type = type(value)
    if isinstance(value, (*_VALUES, *_TIMES, list)) or (isinstance(value, tuple) and not hasattr(kind, "_fields")):
        message = f"{name!r} of a {kind.__name__} cannot be reached through a stub"
        raise NotReachable(message, hint="Await it first", step=name)
    if not name.startswith("_") and name not in _hidden(kind):
        try:
            attribute = getattr(value, name)
        except AttributeError as error:
            # The error of an object with names of its own (a row) lists them.
            raise _absent(kind, name, str(error) if hasattr(kind, "__getattr__") else None) from error
        if not isinstance(attribute, (type, ModuleType)):
            return attribute
    raise _absent(kind, name)


def _absent(kind: type, name: str, hint: str | None = None) -> NotReachable:
    hint = hint or f"It has: {', '.join(members(kind)) or 'nothing'}"
    return NotReachable(f"{kind.__name__} has no {name!r}", hint=hint, step=name)


@functools.lru_cache(256)
def _hidden(kind: Hashable) -> frozenset[str]:
    declared = (base.__dict__.get("hidden") for base in inspect.getmro(kind))  # type: ignore[arg-type]  # it is a type; mypy thinks none can be hashed
    return frozenset[str]().union(*(names for names in declared if isinstance(names, frozenset)))
