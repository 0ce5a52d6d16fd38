"""Errors of a session, and `Fault`: how an error travels. No stack trace and no cause goes with it."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = [
    "CALLER_ERRORS",
    "MAX_MESSAGE",
    "Fault",
    "NotReachable",
    "Overloaded",
    "ProtocolError",
    "TooLarge",
    "Unreachable",
    "Unsupported",
    "javascript_class",
]

MAX_MESSAGE = 2000
"""Characters of an error's message that are sent or read."""

# Raised for bad arguments: the caller must act on the message, so it is sent. The message of any other error is not.
CALLER_ERRORS: dict[str, type[Exception]] = {
    kind.__name__: kind for kind in (TypeError, ValueError, KeyError, IndexError, OverflowError)
}
_JAVASCRIPT = ((TypeError, "TypeError"), (AttributeError, "TypeError"), (LookupError, "RangeError"))


class ProtocolError(Exception):
    """When a message breaks the protocol or a limit of the session. The session ends."""


class TooLarge(ValueError):
    """When a value has more parts or characters than a session may send or pass on."""


class Unsupported(TypeError):
    """When a peer sends a kind of value that is not supported: a stream, a blob, a request."""


class _SessionError(Exception):
    def __init__(self, message: str, *, hint: str = "", **facts: Any) -> None:
        self.facts = facts
        super().__init__(f"{message}. {hint}" if hint else message)


class NotReachable(_SessionError, AttributeError):
    """When a path names a member that a value does not have or does not offer."""


class Unreachable(_SessionError):
    """When the session is over, or the peer cannot answer."""


class Overloaded(_SessionError):
    """When too many calls are pending."""


class Fault(msgspec.Struct, frozen=True):
    """An error as it travels: Cap'n Web's `["error", name, message, null, properties]`.

    Attributes:
        name: the JavaScript class.
        message: text for people.
        properties: `type` is the Python class; `code`, `hint` and facts are beside it.
    """

    name: str
    message: str
    properties: dict[str, Any]

    @classmethod
    def of(cls, error: BaseException) -> Fault:
        """The fault of an error that the protocol or bad arguments raised. That of any other error says nothing."""
        if isinstance(error, (ProtocolError, _SessionError)):
            return cls(javascript_class(error), str(error)[:MAX_MESSAGE], {"type": type(error).__name__})
        # Exactly these classes: the message of a subclass may say what must not leave the process.
        if type(error) in (TooLarge, Unsupported, *CALLER_ERRORS.values()):
            text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
            kind = next(kind for kind in type(error).__mro__ if kind in CALLER_ERRORS.values())
            return cls(javascript_class(error), text[:MAX_MESSAGE], {"type": kind.__name__})
        return cls("Error", "The call could not be carried out", {"type": "Exception", "code": "INTERNAL"})

    def exception(self) -> Exception:
        """The exception for this fault: of the class of bad arguments that it names, or Exception."""
        return CALLER_ERRORS.get(str(self.properties.get("type", "")), Exception)(self.message)


def javascript_class(error: BaseException) -> str:
    """The name of the JavaScript class that an error becomes."""
    return next((name for kind, name in _JAVASCRIPT if isinstance(error, kind)), "Error")
