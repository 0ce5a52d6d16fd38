"""Target: what a peer reaches by reference, and the steps that a path may take from a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from lakebed.errors import NotReachable
from lakebed.interface.casing import snake
from lakebed.query.result import Result, Row
from lakebed.rpc.calls import Step

__all__ = ["Target", "follow"]

_OF_RESULT = frozenset({"as_of", "columns", "elapsed_ms", "rows", "scalar", "seq", "tiers", "watermark"})


class Target:
    """An object that travels by reference: a peer may reach its members, and nothing else.

    Args:
        name: what messages call it.
        members: values, functions and further targets by name.
        function: what calling the target itself does.
        released: called when no peer holds it any more.
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
        """What it offers, sorted."""
        return tuple(sorted(self._members))

    def add(self, name: str, member: Any) -> None:
        """Have it offer `member` too."""
        self._members[name] = member

    def member(self, name: Step) -> Any:
        """What lies under `name`.

        Raises:
            NotReachable: nothing does.
        """
        # A dictionary of our own: no attribute of a Python object is ever looked up by a name from the network.
        if not isinstance(name, str) or name not in self._members:
            shown = repr(name)[:80]
            hint = f"It has: {', '.join(self.names) or 'nothing'}"
            raise NotReachable(f"{self.name} has no {shown}", hint=hint, step=str(name)[:80])
        return self._members[name]

    def release(self) -> None:
        """No peer holds it any more."""
        released, self._released = self._released, None
        if released is not None:
            released()

    def __repr__(self) -> str:
        return f"<Target {self.name}>"


def follow(value: Any, path: tuple[Step, ...]) -> Any:
    """What lies at the end of `path` from `value`. Which types may be entered, and how, is listed here and closed.

    Raises:
        NotReachable: there is no such member, or the value has none.
        IndexError, KeyError: an element does not exist.
    """
    for step in path:
        value = _entered(value, step)
    return value


def _entered(value: Any, step: Step) -> Any:
    if isinstance(value, Target):
        return value.member(step)
    index = _index(step)
    if isinstance(value, (list, tuple, Result, Row)) and index is not None:
        return value[index]
    if isinstance(step, str):
        if isinstance(value, Result) and snake(step) in _OF_RESULT:
            return getattr(value, snake(step))
        if isinstance(value, Row) and step in (columns := value._asdict()):
            return columns[step]
        if isinstance(value, dict):
            return value[step]
        if isinstance(value, msgspec.Struct) and snake(step) in value.__struct_fields__:
            return getattr(value, snake(step))
    shown = repr(step)[:80]
    raise NotReachable(f"a {type(value).__name__} has no {shown}", hint="Await it first", step=str(step)[:80])


def _index(step: Step) -> int | None:
    """`step` as a position: Cap'n Web clients send it as text."""
    if isinstance(step, int):
        return step
    digits = step.removeprefix("-")
    return int(step) if len(digits) < 10 and digits.isascii() and digits.isdecimal() else None  # noqa: PLR2004 - fits 32 bits
