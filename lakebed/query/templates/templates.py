"""Templates: named queries. Each is an .sql file whose header declares its parameters, and runs as untrusted SQL."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any, Literal

import msgspec

from lakebed.clock import MOMENT_HINT, from_us, parse_moment
from lakebed.errors import QueryRefused
from lakebed.query.result import Result
from lakebed.query.sandbox.untrusted_queries import UntrustedQueries

__all__ = ["Template", "Templates", "library"]

Kind = Literal["text", "integer", "number", "timestamp"]
_PARAMETER = re.compile(r"(\w+) (text|integer|number|timestamp)(?: = (.+?))?: (.+)")


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of a template.

    Attributes:
        name: name in the SQL, after `$`.
        type: text, integer, number, or timestamp (ISO 8601; a date is its midnight UTC).
        about: meaning of the value.
        default: JSON value; None if the caller must pass a value.
    """

    name: str
    type: Kind
    about: str
    default: str | int | float | None = None

    def read(self, value: Any) -> Any:
        """Convert `value` to the parameter's type. Text, from a command line, is parsed. Raises QueryRefused."""
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
        message = f"parameter {self.name} must be of type {self.type}, not {str(value)[:40]!r}"
        raise QueryRefused(message, hint=self.about, parameter=self.name)

    def _moment(self, value: Any) -> int:
        try:
            return parse_moment(value)
        except ValueError as error:
            raise QueryRefused(f"parameter {self.name}: {error}", hint=MOMENT_HINT, parameter=self.name) from error


class Template(msgspec.Struct, frozen=True):
    """A named query.

    Attributes:
        name: name of the file, without `.sql`.
        title: a few words.
        description: a sentence.
        category: time series, performance, errors, users, billing, cohorts or anomalies.
        parameters: in the order of the header.
        sql: one SELECT, in which each parameter is `$name`.
    """

    name: str
    title: str
    description: str
    category: str
    parameters: tuple[Parameter, ...]
    sql: str

    @classmethod
    def parse(cls, name: str, text: str) -> Template:
        """Parse a file: comment lines `title:`, `category:`, `description:`, `param: NAME TYPE = DEFAULT: MEANING`.

        Raises:
            ValueError: a line of the header is invalid or missing.
        """
        header: dict[str, str] = {}
        parameters: list[Parameter] = []
        for line in text.splitlines():
            if not line.startswith("-- "):
                break
            key, _, value = line[3:].partition(": ")
            if key == "param":
                match = _PARAMETER.fullmatch(value)
                if match is None:
                    raise ValueError(f"{name}.sql: {line!r} is not a declaration of a parameter")
                parameter, kind, default, about = match.groups()
                parameters.append(
                    Parameter(parameter, kind, about, None if default is None else msgspec.json.decode(default))  # type: ignore[arg-type]  # the pattern matches only these four
                )
            else:
                header[key] = value
        if header.keys() != {"title", "category", "description"}:
            raise ValueError(
                f"{name}.sql: the header must have title, category and description; it has {', '.join(header)}"
            )
        sql = "\n".join(line for line in text.splitlines() if not line.startswith("-- ")).strip()
        return cls(name, header["title"], header["description"], header["category"], tuple(parameters), sql)

    def bind(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The values of all parameters: the value in `arguments` if there is one, else the default.

        Raises:
            QueryRefused: a parameter is missing, unknown or of another type. The message names it.
        """
        known = {parameter.name: parameter for parameter in self.parameters}
        for name in arguments:
            if name not in known:
                hint = f"It takes {', '.join(known) or 'none'}"
                raise QueryRefused(f"template {self.name} has no parameter {name[:40]!r}", hint=hint, parameter=name)
        values = {}
        for name, parameter in known.items():
            value = arguments.get(name)
            value = parameter.default if value is None else value
            if value is None:
                message = f"template {self.name} needs the parameter {name}"
                raise QueryRefused(message, hint=parameter.about, parameter=name)
            values[name] = parameter.read(value)
        return values


@functools.cache
def library() -> Mapping[str, Template]:
    """All templates by name, sorted. The files are read once."""
    templates = {}
    for path in sorted(files("lakebed.query.templates").iterdir(), key=lambda path: path.name):
        if path.name.endswith(".sql"):
            name = path.name.removesuffix(".sql")
            templates[name] = Template.parse(name, path.read_text("utf-8"))
    return templates


class Templates:
    """Runs named queries over the events of one object. docs/sql.md lists the queries."""

    def __init__(self, untrusted: UntrustedQueries) -> None:
        self._untrusted = untrusted

    def templates(self) -> list[Template]:
        """All named queries, with their parameters and their SQL."""
        return list(library().values())

    async def template(self, /, name: str, params: Mapping[str, Any] | None = None, **named: Any) -> Result:
        """Run a named query by `query_untrusted`.

        Args:
            name: name of the template.
            params: values by parameter, like `named`; parameters without a value have their default. Each template also
                takes `as_of`: the answer as it was at that moment.

        Raises:
            QueryRefused: there is no such template, or a parameter is missing, unknown or of another type. The message
                names it. Also all errors of `query_untrusted`.
        """
        template = library().get(name)
        if template is None:
            hint = f"There are {', '.join(library())}"
            raise QueryRefused(f"there is no template {str(name)[:40]!r}", hint=hint)
        values = {**(params or {}), **named}
        as_of = values.pop("as_of", None)
        return await self._untrusted.run(template.sql, template.bind(values), as_of=as_of)
