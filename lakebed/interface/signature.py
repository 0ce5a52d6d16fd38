"""Reads the signature of a verb or report from its function, so that every interface takes the same arguments.

Also has all functions that change the casing of a name: snake_case (Python), camelCase (JSON, JavaScript), kebab-case
(commands), PascalCase (types).
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, Self

import msgspec

__all__ = ["Signature", "camel", "camel_keys", "each", "kebab", "pascal", "snake"]

# Parameters whose values are objects: an object in their position is their value, and not the options.
_OBJECTS = frozenset(
    {"properties", "traits", "context", "params", "items", "edit", "definition", "document", "mapping"}
)
_MAXIMA = {"days": 36_600, "limit": 10_000, "n": 10_000}
_ARGUMENT = re.compile(r"^ {4}(\w+): ")


class Signature(msgspec.Struct, frozen=True):
    """The parameters of a function.

    Attributes:
        name: the name by which callers know the function.
        types: annotations by parameter.
        positional: the parameters that can also be passed by position, in order.
        defaults: default values by parameter; a parameter without an entry is required.
        about: description of each parameter, from `Args:` in the docstring.
        doc: the docstring before its `Args:`.
    """

    name: str
    types: dict[str, Any]
    positional: tuple[str, ...]
    defaults: dict[str, Any]
    about: dict[str, str] = {}
    doc: str = ""

    @classmethod
    def of(cls, name: str, function: Callable[..., Any], *, only: Collection[str]) -> Self:
        """Read the signature of `function`, with only the parameters in `only`, in the function's order."""
        types_: dict[str, Any] = {}
        positional: list[str] = []
        defaults: dict[str, Any] = {}
        for parameter in inspect.signature(function, eval_str=True).parameters.values():
            if parameter.name not in only:
                continue
            types_[parameter.name] = parameter.annotation
            if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                positional.append(parameter.name)
            if parameter.default is not parameter.empty:
                defaults[parameter.name] = parameter.default
        doc, _, arguments = (inspect.getdoc(function) or "").partition("\nArgs:\n")
        return cls(name, types_, tuple(positional), defaults, _about(arguments), doc.rstrip())

    @property
    def required(self) -> frozenset[str]:
        """The parameters that have no default."""
        return frozenset(self.types.keys() - self.defaults.keys())

    def bind(self, arguments: list[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments by name. One object after (or in place of) positional arguments has the others by name.

        An argument None counts as not passed, unless its parameter allows None and has a default that is not None.

        Raises:
            TypeError: there are too many or too few arguments, or one has an unknown name or the wrong type.
            ValueError: an argument is out of range.
        """
        options: Mapping[str, Any] = {}
        if arguments and isinstance(arguments[-1], dict) and self._names_others(len(arguments) - 1):
            options = arguments.pop()
        if len(arguments) > len(self.positional):
            raise TypeError(f"{self!r} takes at most {len(self.positional)} arguments by position: name the others")
        bound = dict(zip(self.positional, arguments, strict=False))
        for name, value in [*options.items(), *named.items()]:
            if snake(name) not in self.types or snake(name) in bound:
                raise TypeError(f"{self!r} does not take {name[:80]!r}{' twice' * (snake(name) in bound)}")
            bound[snake(name)] = value
        bound = {name: value for name, value in bound.items() if value is not None or self._none_is_a_value(name)}
        if missing := self.required - bound.keys():
            raise TypeError(f"{self!r} needs {', '.join(sorted(missing))}")
        for name, value in bound.items():
            if value is not None:
                self._check(name, value)
        return bound

    def _none_is_a_value(self, name: str) -> bool:
        """Whether None is allowed and is not the default: `performance(grain=None)` gives one row, not one an hour."""
        return self.defaults.get(name) is not None and type(None) in typing.get_args(self.types[name])

    def _names_others(self, position: int) -> bool:
        return position >= len(self.positional) or self.positional[position] not in _OBJECTS

    def _check(self, name: str, value: Any) -> None:
        if not _fits(value, self.types[name]):
            raise TypeError(f"{self!r}: {name} must be {_type_names(self.types[name])}, not {type(value).__name__}")
        if name in _MAXIMA and isinstance(value, int) and not 0 <= value <= _MAXIMA[name]:
            raise ValueError(f"{self!r}: {name} must be from 0 to {_MAXIMA[name]}")

    def __repr__(self) -> str:
        others = [camel(name) for name in self.types if name not in self.positional]
        return f"{self.name}({', '.join([*self.positional, *(['{' + ', '.join(others) + '}'] if others else [])])})"


def each(annotation: Any) -> list[Any]:
    """The types in a union and in its nested unions, without None. An annotation that is no union is its only type."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return [kind for member in typing.get_args(annotation) for kind in each(member)]
    return [] if annotation is type(None) else [annotation]


def _fits(value: Any, annotation: Any) -> bool:
    """Whether `annotation` allows the type of `value`; for a sequence also the types of its items."""
    return any(_fits_type(value, kind) for kind in each(annotation))


def _fits_type(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    origin = typing.get_origin(kind) or kind
    if origin is Literal:
        return isinstance(value, str | int) and value in typing.get_args(kind)
    if origin is float:
        origin = (int, float)
    if not isinstance(value, origin) or (isinstance(value, bool) and origin is not bool):
        return False
    if origin is Sequence:
        return isinstance(value, list | tuple) and all(_fits(item, typing.get_args(kind)[0]) for item in value)
    return True


def _type_names(annotation: Any) -> str:
    names: list[str] = []
    for kind in each(annotation):
        if typing.get_origin(kind) is Literal:
            names += map(repr, typing.get_args(kind))
        else:
            names.append(str(getattr(kind, "__name__", kind)))
    return " or ".join(names)


def _about(arguments: str) -> dict[str, str]:
    """The description of each argument in the `Args:` of a Google-style docstring, as one line each."""
    about: dict[str, str] = {}
    name = ""
    for line in arguments.split("\n"):
        if match := _ARGUMENT.match(line):
            name = match[1]
            about[name] = line[match.end() :].strip()
        elif line.startswith("     ") and name:
            about[name] += " " + line.strip()
        else:
            break
    return about


def snake(name: str) -> str:
    """Convert a name to snake_case: `elapsedMs` to `elapsed_ms`. A name in snake_case stays as it is."""
    return "".join(f"_{letter.lower()}" if letter.isascii() and letter.isupper() else letter for letter in name)


def camel(name: str) -> str:
    """Convert a name to camelCase: `elapsed_ms` to `elapsedMs`. A name in camelCase stays as it is."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)


def kebab(name: str) -> str:
    """Convert a name to kebab-case: `session_list` to `session-list`."""
    return name.replace("_", "-")


def pascal(name: str) -> str:
    """Convert a name to PascalCase: `session_list` to `SessionList`."""
    return "".join(part.capitalize() for part in name.split("_"))


def camel_keys(record: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a record with its keys in camelCase. Keys of mappings inside the record stay as they are."""
    return {camel(name): value for name, value in record.items()}
