"""Templates: named questions, each an .sql file whose header declares what it takes."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Literal

import msgspec

from lakebed.clock import from_us
from lakebed.errors import QueryRefused
from lakebed.moments import MOMENT_HINT, parse_moment

__all__ = ["Parameter", "Template", "library"]

Kind = Literal["text", "integer", "number", "timestamp"]
_PARAMETER = re.compile(r"(\w+) (text|integer|number|timestamp)(?: = (.+?))?: (.+)")


class Parameter(msgspec.Struct, frozen=True):
    """What a template takes.

    Attributes:
        type: text, integer, number, or timestamp (ISO 8601 with a zone; a date is its midnight in UTC).
        default: as JSON has it; None where it must be given.
        about: what it means.
    """

    name: str
    type: Kind
    about: str
    default: str | int | float | None = None

    def read(self, value: Any) -> Any:
        """`value` as it is bound; text is parsed, as a command line gives it. Raises QueryRefused, which names it."""
        if self.type == "timestamp":
            return from_us(self._moment(value))
        try:
            if self.type == "text":
                if isinstance(value, str):
                    return value
            elif not isinstance(value, bool) and isinstance(value, (int, float, str)):
                if self.type == "number":
                    return float(value)
                if not isinstance(value, float):
                    return int(value)
        except (ValueError, OverflowError):
            pass
        message = f"parameter {self.name} is {str(value)[:40]!r}, which is no {self.type}"
        raise QueryRefused(message, hint=self.about, parameter=self.name)

    def _moment(self, value: Any) -> int:
        try:
            return parse_moment(value)
        except ValueError as error:
            raise QueryRefused(f"parameter {self.name}: {error}", hint=MOMENT_HINT, parameter=self.name) from error


class Template(msgspec.Struct, frozen=True):
    """A named question.

    Attributes:
        name: of the file, without `.sql`.
        category: what it is about: time series, performance, errors, users, billing, cohorts, anomalies.
        sql: one SELECT that takes each parameter as `$name`.
    """

    name: str
    title: str
    description: str
    category: str
    parameters: tuple[Parameter, ...]
    sql: str

    @classmethod
    def parse(cls, name: str, text: str) -> Template:
        """Read a file: comment lines `title:`, `category:`, `description:`, `param: NAME TYPE = DEFAULT: MEANING`.

        Raises:
            ValueError: a line of the header cannot be read, or one is missing.
        """
        said: dict[str, str] = {}
        parameters: list[Parameter] = []
        for line in text.splitlines():
            if not line.startswith("-- "):
                break
            key, _, value = line[3:].partition(": ")
            if key == "param":
                match = _PARAMETER.fullmatch(value)
                if match is None:
                    raise ValueError(f"{name}.sql: {line!r} declares no parameter")
                called, kind, default, about = match.groups()
                parameters.append(
                    Parameter(called, kind, about, None if default is None else msgspec.json.decode(default))  # type: ignore[arg-type]  # one of four, says the pattern
                )
            else:
                said[key] = value
        if said.keys() != {"title", "category", "description"}:
            raise ValueError(f"{name}.sql: its header says {', '.join(said)}")
        sql = "\n".join(line for line in text.splitlines() if not line.startswith("-- ")).strip()
        return cls(name, said["title"], said["description"], said["category"], tuple(parameters), sql)

    def bind(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The values of all parameters.

        Raises:
            QueryRefused: one is missing, unknown or not of its type; the message names it.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in given:
            if name not in known:
                hint = f"It takes {', '.join(known) or 'none'}"
                raise QueryRefused(f"template {self.name} has no parameter {name[:40]!r}", hint=hint, parameter=name)
        found = {}
        for name, parameter in known.items():
            value = given.get(name)
            value = parameter.default if value is None else value
            if value is None:
                message = f"template {self.name} needs the parameter {name}"
                raise QueryRefused(message, hint=parameter.about, parameter=name)
            found[name] = parameter.read(value)
        return found


@functools.cache
def library() -> Mapping[str, Template]:
    """All templates by name, in order of it. Read once."""
    found = {}
    for path in sorted(files("lakebed.query.templates").iterdir(), key=lambda one: one.name):
        if path.name.endswith(".sql"):
            name = path.name.removesuffix(".sql")
            found[name] = Template.parse(name, path.read_text("utf-8"))
    return found
