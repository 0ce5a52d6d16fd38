"""Remote: a function or an object of the peer."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol

__all__ = ["Remote"]


class _Link(Protocol):
    """The session of a remote, as it needs it."""

    answers: bool

    def call(self, number: int, arguments: tuple[Any, ...]) -> Awaitable[Any]:
        """Call what the peer exports under `number`."""
        ...

    def retain(self, number: int) -> None:
        """Count one more reference."""
        ...

    def release(self, number: int) -> None:
        """Count one less; after the last the peer is told."""
        ...


class Remote:
    """A value that the peer passed by reference. Calling it returns an awaitable of the peer's answer.

    One that came as an argument is released when the call is over: to keep it, keep a `dup()`, and close that.
    """

    __slots__ = ("_closed", "link", "number")

    def __init__(self, link: _Link, number: int) -> None:
        self.link = link
        self.number = number
        self._closed = False

    def __call__(self, *arguments: Any) -> Awaitable[Any]:
        """Call it. Awaiting raises the peer's error, or that the session is over."""
        return self.link.call(self.number, arguments)

    @property
    def answers(self) -> bool:
        """Whether it can be called at all: the client of an HTTP batch cannot."""
        return self.link.answers

    def dup(self) -> Remote:
        """A second reference, to be closed by itself."""
        self.link.retain(self.number)
        return Remote(self.link, self.number)

    def close(self) -> None:
        """Release the reference: the peer may forget it. Idempotent."""
        if not self._closed:
            self._closed = True
            self.link.release(self.number)

    def __repr__(self) -> str:
        return f"<Remote {self.number}>"
