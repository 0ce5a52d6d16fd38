"""Signature: what a verb or report takes, read from the function itself: every way to call it takes the same."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, Self

import msgspec

from lakebed.rpc.capnweb.exported_object import camel, snake

__all__ = ["Signature", "each"]

# Parameters that take objects.
_OBJECTS = frozenset(
    {"properties", "traits", "context", "params", "items", "edit", "definition", "document", "mapping"}
)
_MOST = {"days": 36_600, "limit": 10_000, "n": 10_000}
_ARGUMENT = re.compile(r"^ {4}(\w+): ")


class Signature(msgspec.Struct, frozen=True):
    """What a function takes.

    Attributes:
        name: of the function, as its callers know it.
        types: annotations by parameter.
        positional: those that may also be given by position, in order.
        defaults: of the parameters that have one.
        about: what the docstring says of each in its `Args:`.
    """

    name: str
    types: dict[str, Any]
    positional: tuple[str, ...]
    defaults: dict[str, Any]
    about: dict[str, str] = {}

    @classmethod
    def of(cls, name: str, function: Callable[..., Any], *, without: Collection[str] = ()) -> Self:
        """The signature of `function`, without `self` or another parameter of its own, and without `**`."""
        types_: dict[str, Any] = {}
        positional: list[str] = []
        defaults: dict[str, Any] = {}
        for parameter in inspect.signature(function, eval_str=True).parameters.values():
            if parameter.name in without or parameter.kind is parameter.VAR_KEYWORD:
                continue
            types_[parameter.name] = parameter.annotation
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                positional.append(parameter.name)
            if parameter.default is not parameter.empty:
                defaults[parameter.name] = parameter.default
        return cls(name, types_, tuple(positional), defaults, _about(function))

    @property
    def required(self) -> frozenset[str]:
        """The parameters that have no default."""
        return frozenset(self.types.keys() - self.defaults.keys())

    def bind(self, arguments: list[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name. One object after, or instead of, the positional ones names the others.

        None is as if it had not been given, but for a parameter that can be None and is not by default.

        Raises:
            TypeError: there are too many or too few, one has no such name or not its type.
            ValueError: one is out of range.
        """
        options: Mapping[str, Any] = {}
        if arguments and isinstance(arguments[-1], dict) and self._names_others(len(arguments) - 1):
            options = arguments.pop()
        if len(arguments) > len(self.positional):
            raise TypeError(f"{self!r} takes {len(self.positional)} arguments and an object with the others")
        found = dict(zip(self.positional, arguments, strict=False))
        for name, value in [*options.items(), *named.items()]:
            if snake(name) not in self.types or snake(name) in found:
                raise TypeError(f"{self!r} does not take {name[:80]!r} like this")
            found[snake(name)] = value
        found = {name: value for name, value in found.items() if value is not None or self._differs_from_none(name)}
        if missing := self.required - found.keys():
            raise TypeError(f"{self!r} needs {', '.join(sorted(missing))}")
        for name, value in found.items():
            if value is not None:
                self._check(name, value)
        return found

    def _differs_from_none(self, name: str) -> bool:
        """Whether None says something: the rows of `performance` are by the hour, with None there is one for all."""
        return self.defaults.get(name) is not None and type(None) in typing.get_args(self.types[name])

    def _names_others(self, position: int) -> bool:
        return position >= len(self.positional) or self.positional[position] not in _OBJECTS

    def _check(self, name: str, value: Any) -> None:
        if not _fits(value, self.types[name]):
            raise TypeError(f"{self!r}: {name} is {_said(self.types[name])}, not {type(value).__name__}")
        if name in _MOST and isinstance(value, int) and not 0 <= value <= _MOST[name]:
            raise ValueError(f"{self!r}: {name} goes from 0 to {_MOST[name]}")

    def __repr__(self) -> str:
        others = [camel(name) for name in self.types if name not in self.positional]
        return f"{self.name}({', '.join([*self.positional, *(['{' + ', '.join(others) + '}'] if others else [])])})"


def each(annotation: Any) -> list[Any]:
    """The types that `annotation` is a choice of, without None."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return [kind for one in typing.get_args(annotation) for kind in each(one)]
    return [] if annotation is type(None) else [annotation]


def _fits(value: Any, annotation: Any) -> bool:
    """Whether `value` is of a type that `annotation` allows, and what is in a sequence too."""
    return any(_fits_one(value, kind) for kind in each(annotation))


def _fits_one(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    owner = typing.get_origin(kind) or kind
    if owner is Literal:
        return isinstance(value, str | int) and value in typing.get_args(kind)
    if owner is float:
        owner = (int, float)
    if not isinstance(value, owner) or (isinstance(value, bool) and owner is not bool):
        return False
    if owner is Sequence:
        return isinstance(value, list | tuple) and all(_fits(item, typing.get_args(kind)[0]) for item in value)
    return True


def _said(annotation: Any) -> str:
    names: list[str] = []
    for kind in each(annotation):
        if typing.get_origin(kind) is Literal:
            names += map(repr, typing.get_args(kind))
        else:
            names.append(str(getattr(kind, "__name__", kind)))
    return " or ".join(names)


def _about(function: Callable[..., Any]) -> dict[str, str]:
    """What the docstring (Google style) says of each argument, on one line."""
    _, _, rest = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    found: dict[str, str] = {}
    name = ""
    for line in rest.split("\n"):
        if match := _ARGUMENT.match(line):
            name = match[1]
            found[name] = line[match.end() :].strip()
        elif line.startswith("     ") and name:
            found[name] += " " + line.strip()
        else:
            break
    return found
