"""Faults: how an error travels, and comes back as the same class. No stack trace and no cause goes with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from lakebed import errors
from lakebed.errors import InvalidEvent, LakebedError, LogCorrupted

__all__ = ["Fault", "ProtocolError", "Tell", "TooLarge", "Unsupported", "raised", "tell"]

_OWN = {name: getattr(errors, name) for name in errors.__all__}
# What bad arguments raise: the caller must act on the message, so it goes along. Any other error's stays here.
_CALLERS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (TypeError, ValueError, KeyError, IndexError, OverflowError)
}
_JAVASCRIPT = ((TypeError, "TypeError"), (AttributeError, "TypeError"), (LookupError, "RangeError"))
_LONGEST = 2000


class ProtocolError(Exception):
    """When a message breaks the protocol or a limit of the session. The session ends."""


class TooLarge(ValueError):
    """When a value has more parts or characters than a session may send or pass on."""


class Unsupported(TypeError):
    """When a peer sends a value that Lakebed takes no part in: streams, blobs, requests."""


class Fault(msgspec.Struct, frozen=True):
    """An error as it travels: Cap'n Web's `["error", name, message, null, properties]`.

    Attributes:
        name: the JavaScript class.
        message: for people.
        properties: `type` is the Python class; `code`, `hint` and facts lie beside it.
    """

    name: str
    message: str
    properties: dict[str, Any]


Tell = Callable[[BaseException], Fault]
"""What an error says to the peer."""


def tell(error: BaseException) -> Fault:
    """The fault of `error`: our own errors with their facts, what bad arguments raise with its message, no other."""
    name = next((name for kind, name in _JAVASCRIPT if isinstance(error, kind)), "Error")
    if isinstance(error, LakebedError):
        facts = {key: fact for key, fact in error.facts.items() if isinstance(fact, (str, int, float, bool))}
        told = {"hint": error.hint} if error.hint else {}
        return Fault(name, error.message[:_LONGEST], facts | told | {"type": type(error).__name__})
    if isinstance(error, ProtocolError):
        return Fault(name, str(error)[:_LONGEST], {"type": "ProtocolError"})
    if isinstance(error, (TooLarge, Unsupported)) or type(error) in _CALLERS.values():
        text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        kind = next(kind for kind in type(error).__mro__ if kind in _CALLERS.values())
        return Fault(name, text[:_LONGEST], {"type": kind.__name__})
    return Fault("Error", "The call could not be carried out", {"type": "LakebedError", "code": "INTERNAL"})


def raised(fault: Fault) -> Exception:
    """The error that a peer told of: our own class with its facts, a builtin one, or LakebedError."""
    facts = dict(fault.properties)
    name, hint = str(facts.pop("type", "")), str(facts.pop("hint", ""))
    if name in _CALLERS:
        return _CALLERS[name](fault.message)
    kind: type[LakebedError] = _OWN.get(name, LakebedError)
    if issubclass(kind, (InvalidEvent, LogCorrupted)):  # these make their messages themselves
        return _refilled(kind, fault.message, hint, facts)
    return kind(fault.message, hint=hint, **_named(facts))


def _refilled(kind: type[LakebedError], message: str, hint: str, facts: Mapping[str, Any]) -> LakebedError:
    error = kind.__new__(kind)
    LakebedError.__init__(error, message, hint=hint, **_named(facts))
    return error


def _named(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fact for name, fact in facts.items() if name not in ("message", "self")}
