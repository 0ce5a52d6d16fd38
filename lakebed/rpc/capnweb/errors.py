"""Errors of a session, and `Fault`, the form in which an error is sent: without its stack trace and its cause."""

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
    """Raised if a message breaks the protocol or a limit of the session. The session ends."""


class TooLarge(ValueError):
    """Raised if a value has more parts or characters than a session may send or pass on."""


class Unsupported(TypeError):
    """Raised if the peer sends a kind of value that is not supported: a stream, a blob, a request."""


class _SessionError(Exception):
    def __init__(self, message: str, *, hint: str = "", **facts: Any) -> None:
        self.facts = facts
        super().__init__(f"{message}. {hint}" if hint else message)


class NotReachable(_SessionError, AttributeError):
    """Raised if a path names a member that a value does not have or does not offer."""


class Unreachable(_SessionError):
    """Raised if the session has ended or the peer cannot answer."""


class Overloaded(_SessionError):
    """Raised if too many calls are pending."""


class Fault(msgspec.Struct, frozen=True):
    """An error in the form in which it is sent: Cap'n Web's `["error", name, message, null, properties]`.

    Attributes:
        name: the JavaScript class.
        message: text for people.
        properties: `type` (the Python class), `code`, `hint` and the error's facts.
    """

    name: str
    message: str
    properties: dict[str, Any]

    @classmethod
    def of(cls, error: BaseException) -> Fault:
        """The fault for an error. Only errors of the protocol and of bad arguments keep their message."""
        if isinstance(error, (ProtocolError, _SessionError)):
            return cls(javascript_class(error), str(error)[:MAX_MESSAGE], {"type": type(error).__name__})
        # Exactly these classes: the message of a subclass may say what must not leave the process.
        if type(error) in (TooLarge, Unsupported, *CALLER_ERRORS.values()):
            text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
            kind = next(kind for kind in type(error).__mro__ if kind in CALLER_ERRORS.values())
            return cls(javascript_class(error), text[:MAX_MESSAGE], {"type": kind.__name__})
        return cls("Error", "The call could not be carried out", {"type": "Exception", "code": "INTERNAL"})

    def exception(self) -> Exception:
        """The exception for this fault: of the class that it names if bad arguments raise it, else Exception."""
        return CALLER_ERRORS.get(str(self.properties.get("type", "")), Exception)(self.message)


def javascript_class(error: BaseException) -> str:
    """The name of the JavaScript class as which an error is sent."""
    return next((name for kind, name in _JAVASCRIPT if isinstance(error, kind)), "Error")
