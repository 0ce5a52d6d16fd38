"""From a row to an event: which column is which field, and which are properties."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from lakebed.cli.exit_codes import Failure
from lakebed.moments import parse_iso

__all__ = ["FIELDS", "RowMapping"]

FIELDS = {
    "type": "type",
    "event": "event",
    "name": "name",
    "user_id": "userId",
    "anonymous_id": "anonymousId",
    "previous_id": "previousId",
    "group_id": "groupId",
    "session_id": "sessionId",
    "message_id": "messageId",
    "timestamp": "timestamp",
    "source": "source",
}
"""Fields of an event, as options name them, and what they are called in JSON."""
_OBJECTS = ("properties", "traits", "context")
_TAKEN = FIELDS | {wire: wire for wire in FIELDS.values()}
_OWN = {"seq", "received_at", "receivedAt"}  # columns of our own exports that the log gives anew
_UNIX_MS = 1_000
_ABSENT: Any = object()


def _integer(value: Any) -> int:
    number = float(value) if isinstance(value, str) and not value.strip().lstrip("+-").isdigit() else value
    if isinstance(number, float) and not number.is_integer():
        raise ValueError(f"{value!r} is not a whole number")
    return int(number)


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a number")
    return number


def _truth(value: Any) -> bool:
    said = str(value).strip().lower()
    if said not in _TRUTHS:
        raise ValueError(f"{value!r} is neither true nor false")
    return _TRUTHS[said]


_TRUTHS = dict.fromkeys(("true", "t", "yes", "y", "1"), True) | dict.fromkeys(("false", "f", "no", "n", "0"), False)
_TYPES: dict[str, Callable[[Any], Any]] = {
    "str": str,
    "int": _integer,
    "float": _number,
    "bool": _truth,
    "json": lambda value: msgspec.json.decode(value) if isinstance(value, str) else value,
}


class Column(msgspec.Struct, frozen=True):
    """A column and what its values become. A name with dots also means a path into objects."""

    name: str
    convert: Callable[[Any], Any] | None = None

    @classmethod
    def read(cls, text: str) -> Column:
        """From `column` or `column:type`."""
        name, _, kind = text.rpartition(":")
        return cls(name, _TYPES[kind]) if name and kind in _TYPES else cls(text)

    def of(self, row: Mapping[str, Any]) -> Any:
        """Its value in `row`; `_ABSENT` where there is none, or an empty text."""
        value = row.get(self.name, _ABSENT)
        if value is _ABSENT and "." in self.name:
            value = _follow(row, self.name.split("."))
        if value is _ABSENT or value is None or value == "":
            return _ABSENT
        if self.convert is None:
            return value
        try:
            return self.convert(value)
        except (ValueError, TypeError, OverflowError, msgspec.DecodeError) as error:
            raise ValueError(f"column {self.name!r}: {error}") from None


def _follow(row: Any, path: Sequence[str]) -> Any:
    for step in path:
        if not isinstance(row, Mapping) or step not in row:
            return _ABSENT
        row = row[step]
    return row


class RowMapping:
    """How rows become events.

    Args:
        fields: `FIELD=COLUMN[:TYPE]` each. Without any, columns that are named as a field are that field.
        properties: `[NAME=]COLUMN[:TYPE]` each; without any, all columns that are no field.
        event: the name of events that have none.
        kind: their type.
        time_format: "iso", "unix", "unix_ms", or as strptime has it.
        zone: of times that do not say theirs.

    Raises:
        Failure: one of them cannot be read.
    """

    def __init__(
        self,
        fields: Sequence[str] = (),
        properties: Sequence[str] = (),
        *,
        event: str = "",
        kind: str = "",
        time_format: str = "iso",
        zone: str = "UTC",
    ) -> None:
        self._fields = dict(_field(text) for text in fields)
        self._properties = dict(_property(text) for text in properties)
        self.event_name = event
        self.kind = kind
        self._format = time_format
        try:
            self._zone: tzinfo = UTC if zone == "UTC" else ZoneInfo(zone)
        except (ZoneInfoNotFoundError, ValueError):
            raise Failure(f"{zone!r} is not a time zone", hint="Say it as Europe/Berlin") from None
        self.has_columns = bool(fields or properties)
        self.is_given = self.has_columns or bool(event or kind) or (time_format, zone) != ("iso", "UTC")

    def require(self, columns: Sequence[str]) -> None:
        """Raise Failure where a column that was asked for is none of `columns`."""
        asked = [*self._fields.values(), *self._properties.values()]
        for one in asked:
            if one.name not in columns and one.name.split(".")[0] not in columns:
                raise Failure(f"there is no column {one.name!r}", hint=f"There are {', '.join(columns)}")

    def event(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The event that `row` is, in Segment's names.

        Raises:
            ValueError: a value is not of the type, or the time not in the format, that was asked for.
        """
        fields = self._fields or {wire: Column(name) for name, wire in _TAKEN.items() if name in row}
        found = {wire: value for wire, column in fields.items() if (value := column.of(row)) is not _ABSENT}
        if "timestamp" in found:
            found["timestamp"] = self._time(found["timestamp"])
        for name in ("userId", "anonymousId", "previousId", "groupId", "sessionId", "messageId", "event", "type"):
            if name in found and not isinstance(found[name], str):
                found[name] = str(found[name])
        self._add_objects(found, row)
        for name, value in (("event", self.event_name), ("type", self.kind)):
            if value:
                found.setdefault(name, value)
        return found

    def _add_objects(self, found: dict[str, Any], row: Mapping[str, Any]) -> None:
        rest: dict[str, Any] = {}
        if self._properties:
            rest = {name: value for name, one in self._properties.items() if (value := one.of(row)) is not _ABSENT}
        else:
            taken = {one.name.split(".")[0] for one in self._fields.values()} or _TAKEN.keys() | _OWN
            rest = {name: value for name, value in row.items() if name not in taken and name not in _OBJECTS}
            rest = {name: value for name, value in rest.items() if value is not None and value != ""}
        for name in _OBJECTS:
            if name in row and not self._fields and not self._properties:
                whole = Column(name, _TYPES["json"]).of(row)
                if whole is not _ABSENT:
                    found[name] = whole
        kind = found.get("type", self.kind)
        if kind == "alias" and "previousId" not in found:
            found |= _previous(found)
        holder = "traits" if kind in ("identify", "group") else "properties"
        if holder == "traits" and "properties" in found:
            found.setdefault("traits", found.pop("properties"))  # where the log keeps them, and an export has them
        if rest:
            found[holder] = {**found.get(holder, {}), **rest}

    def _time(self, value: Any) -> Any:
        if isinstance(value, datetime):
            at = value
        elif isinstance(value, date):
            return value.isoformat() + "T00:00:00Z"
        elif self._format in ("unix", "unix_ms"):
            seconds = float(value) / (_UNIX_MS if self._format == "unix_ms" else 1)
            at = datetime.fromtimestamp(seconds, UTC)
        elif not isinstance(value, str):
            return float(value) if isinstance(value, Decimal) else value
        elif self._format == "iso":
            return parse_iso(value, self._zone).isoformat()
        else:
            at = datetime.strptime(value, self._format)  # noqa: DTZ007 - the zone is added below
        return (at if at.tzinfo is not None else at.replace(tzinfo=self._zone)).isoformat()


def _previous(alias: dict[str, Any]) -> dict[str, Any]:
    """The former id of an alias, where the log keeps it: an export has it there."""
    said = alias.get("properties")
    return {"previousId": said.pop("previousId")} if isinstance(said, dict) and "previousId" in said else {}


def _field(text: str) -> tuple[str, Column]:
    name, equals, column = text.partition("=")
    if not equals or not column or name not in FIELDS:
        raise Failure(f"--map {text!r} is not FIELD=COLUMN", hint=f"Fields are {', '.join(FIELDS)}")
    return FIELDS[name], Column.read(column)


def _property(text: str) -> tuple[str, Column]:
    name, equals, column = text.partition("=")
    found = Column.read(column if equals else text)
    return (name if equals else found.name), found
