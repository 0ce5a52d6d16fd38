"""The things that a program adds to a session: targets, a codec for its values and errors, and limits.

Also `follow` and `position`, which stubs use too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import msgspec

from lakebed.rpc.capnweb.errors import Fault, NotReachable, Overloaded, Unreachable

__all__ = ["Codec", "Limits", "Step", "Target", "Writer", "follow", "position"]


class Target:
    """An object that is sent by reference, not copied. The peer can reach its members, and nothing else.

    Args:
        name: its name in messages.
        members: values, functions and further targets by name.
        function: called when the peer calls the target itself.
        released: called once, when no peer holds a reference to the target any more.
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
        """The names of the target's members, sorted."""
        return tuple(sorted(self._members))

    def add(self, name: str, member: Any) -> None:
        """Add a member."""
        self._members[name] = member

    def member(self, name: str) -> Any:
        """The member with this name. Raises KeyError if there is none."""
        # A dictionary of our own: no attribute of a Python object is ever looked up by a name from the network.
        return self._members[name]

    def release(self) -> None:
        """Call `released`, unless it was called before."""
        released, self._released = self._released, None
        if released is not None:
            released()

    def __repr__(self) -> str:
        return f"<Target {self.name}>"


class Limits(msgspec.Struct, frozen=True):
    """Exceeding `message_bytes`, `depth`, `digits` or `entries` aborts the session; exceeding another rejects a call.

    Attributes:
        message_bytes: characters of one incoming message.
        depth: levels of nesting in a value.
        digits: digits of a bigint.
        entries: entries of the import and export tables together: results and references that are not yet released.
        pending: calls under way. At this number no message is read, unless a call waits for the peer; at four times
            this number a call is rejected.
        steps: instructions that one `.map()` may carry out, over all elements.
        argument_size: size of one call's arguments: values plus characters. Shared values count at each appearance.
        result_size: size of one answer, counted as for `argument_size`, plus the bytes of tables.
        held_size: size of all results that are not released. Exceeding it aborts the session.
        batch_size: characters of all answers to an HTTP batch. Beyond it the unanswered calls are rejected.
        batch_messages: messages of one HTTP batch.
        mistakes: wrong API keys that one session may present.
    """

    message_bytes: int = 1 << 20
    depth: int = 64
    digits: int = 1000
    entries: int = 10_000
    pending: int = 1000
    steps: int = 10_000
    argument_size: int = 2 << 20
    result_size: int = 8 << 20
    held_size: int = 16 << 20
    batch_size: int = 64 << 20
    batch_messages: int = 5000
    mistakes: int = 3


Step = str | int


class ValueWriter(Protocol):
    """Writes the parts of a value that has a type of the program's own. `Encoder` implements it."""

    @property
    def faithful(self) -> bool:
        """Whether the peer is a program with the same codec, which can read this program's own types."""
        ...

    def write(self, value: Any, depth: int) -> Any:
        """Write `value` as an expression of Cap'n Web."""
        ...

    def spend(self, size: int) -> None:
        """Count `size` more values or characters against the limit of the message."""
        ...


def follow(value: Any, path: Iterable[Step], member: Callable[[Any, Step], Any]) -> Any:
    """Follow `path`, starting at `value`. Returns the value at its end.

    Args:
        member: takes a value that is no list, tuple or dict, and a step; returns the member, or raises.

    Raises:
        IndexError, KeyError: an element does not exist.
        Exception: `member` raised it.
    """
    for step in path:
        if isinstance(value, (list, tuple)) and (index := position(step)) is not None:
            value = value[index]
        elif isinstance(value, dict) and isinstance(step, str):
            value = value[step]
        else:
            value = member(value, step)
    return value


def position(step: Step) -> int | None:
    """The index that `step` means; None if `step` is a name. Cap'n Web clients send indexes as text."""
    if isinstance(step, int):
        return step
    digits = step.removeprefix("-")
    return int(step) if len(digits) < 10 and digits.isascii() and digits.isdecimal() else None  # noqa: PLR2004 - fits 32 bits


class ErrorClass(Protocol):
    """A class of errors that are made from a message, a hint and facts."""

    def __call__(self, message: str, *, hint: str = "", **facts: Any) -> Exception:
        """Make an error."""
        ...


class Writer(Protocol):
    """The methods of an encoder that a codec uses."""

    faithful: bool

    def write(self, value: Any, depth: int = 0) -> Any:
        """Write `value` as an expression. Raises TooLarge, or TypeError if `value` has none."""
        ...

    def spend(self, amount: int) -> None:
        """Count `amount` more values and characters. Raises TooLarge."""
        ...


class Codec:
    """The values and errors that a program adds to the protocol. This one adds none; a subclass overrides.

    Attributes:
        trusting: whether the peer is a server that this side chose: facts of its errors are read.
        sequences: the types that `.map()` goes over, element by element.
        not_reachable, unreachable, overloaded: the classes of the errors that a session makes itself. Each takes a
            message, a `hint` and facts.
    """

    trusting: bool = False
    sequences: tuple[type[Iterable[Any]], ...] = (list, tuple)
    not_reachable: ErrorClass = NotReachable
    unreachable: ErrorClass = Unreachable
    overloaded: ErrorClass = Overloaded

    def fault(self, error: BaseException) -> Fault:
        """Make the fault that is sent to the peer for an error."""
        return Fault.of(error)

    def exception(self, fault: Fault) -> Exception:
        """Make the exception that is raised on this side for a fault sent by the peer."""
        return fault.exception()

    def write(self, value: Any, encoder: Writer, depth: int) -> Any:  # noqa: ARG002 - for subclasses
        """Write `value` as an expression. Returns NotImplemented if `value` is not of the program's own types."""
        return NotImplemented

    def read(self, parts: list[Any], read: Callable[[Any], Any]) -> Any:  # noqa: ARG002 - for subclasses
        """Read `parts`, `[tag, …]`; NotImplemented if the tag is none of the program's. `read` reads expressions."""
        return NotImplemented

    def member(self, value: Any, step: Step) -> Any:
        """The value one `step` from a value that is no list, tuple or dict: a Target's member or a Struct's field.

        Raises:
            NotReachable: the value has no such member, or does not offer it.
        """
        if isinstance(value, Target):
            if isinstance(step, str) and step in value.names:
                return value.member(step)
            hint = f"It has: {', '.join(value.names) or 'nothing'}"
            raise self.not_reachable(f"{value.name} has no {repr(step)[:80]}", hint=hint, step=str(step)[:80])
        if isinstance(value, msgspec.Struct) and step in value.__struct_fields__:
            return getattr(value, str(step))
        message = f"a {type(value).__name__} has no {repr(step)[:80]}"
        raise self.not_reachable(message, hint="Await it first", step=str(step)[:80])

    def size(self, value: Any, limit: int) -> int:
        """The number of values and characters in `value`, counted at each appearance. Stops above `limit`."""
        size, values = 0, [value]
        while values and size <= limit:
            size += 1
            value = values.pop()
            if isinstance(value, (str, bytes)):
                size += len(value)
            elif isinstance(value, Mapping):
                size += sum(len(name) for name in value if isinstance(name, str))
                values.extend(value.values())
            elif isinstance(value, (list, tuple)):
                values.extend(value)
            elif isinstance(value, msgspec.Struct):
                values.extend(getattr(value, name) for name in value.__struct_fields__)
            else:
                size += self.own_size(value, values)
        return size

    def own_size(self, value: Any, values: list[Any]) -> int:  # noqa: ARG002 - for subclasses
        """The size of a value whose type `size` does not know. Appends the values in it to `values`, uncounted."""
        return 0
