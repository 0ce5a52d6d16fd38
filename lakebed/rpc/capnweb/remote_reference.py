"""Remote: a function or an object that lies at the peer."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Protocol

__all__ = ["Remote"]


class _Link(Protocol):
    """What a remote stands on: its session."""

    answers: bool

    def call(self, number: int, arguments: tuple[Any, ...]) -> Awaitable[Any]:
        """Call what the peer exports under `number`."""
        ...

    def retain(self, number: int) -> None:
        """One more of us holds it."""
        ...

    def let_go(self, number: int) -> None:
        """One less; after the last the peer is told."""
        ...


class Remote:
    """What the peer passed by reference. Calling it gives an awaitable of what the peer answers.

    One that came as an argument is gone when the call is over: who keeps it keeps a `dup()`, and closes that.
    """

    __slots__ = ("_closed", "link", "number")

    def __init__(self, link: _Link, number: int) -> None:
        self.link = link
        self.number = number
        self._closed = False

    def __call__(self, *arguments: Any) -> Awaitable[Any]:
        """Call it. Awaiting raises what the peer raised, or that the session is over."""
        return self.link.call(self.number, arguments)

    @property
    def answers(self) -> bool:
        """Whether it can be called at all: the client of an HTTP batch cannot."""
        return self.link.answers

    def dup(self) -> Remote:
        """One more, to be closed by itself."""
        self.link.retain(self.number)
        return Remote(self.link, self.number)

    def close(self) -> None:
        """Let go: the peer may forget it. Idempotent."""
        if not self._closed:
            self._closed = True
            self.link.let_go(self.number)

    def __repr__(self) -> str:
        return f"<Remote {self.number}>"
