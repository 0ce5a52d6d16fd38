"""Target: an object that travels by reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["Target"]


class Target:
    """An object that travels by reference: a peer may reach its members, and nothing else.

    Args:
        name: its name in messages.
        members: values, functions and further targets by name.
        function: the function that a call of the target itself calls.
        released: called once, when no peer holds it any more.
    """

    __slots__ = ("__weakref__", "_members", "_released", "function", "name")

    def __init__(
        self,
        name: str,
        members: Mapping[str, Any] | None = None,
        *,
        function: Callable[..., Any] | None = None,
        released: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.function = function
        self._members = dict(members or {})
        self._released = released

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its members, sorted."""
        return tuple(sorted(self._members))

    def add(self, name: str, member: Any) -> None:
        """Add a member."""
        self._members[name] = member

    def member(self, name: str) -> Any:
        """The member of that name. Raises KeyError."""
        # A dictionary of our own: no attribute of a Python object is ever looked up by a name from the network.
        return self._members[name]

    def release(self) -> None:
        """Call `released`, once."""
        released, self._released = self._released, None
        if released is not None:
            released()

    def __repr__(self) -> str:
        return f"<Target {self.name}>"
