"""RowMapping: makes an event of a row; defines which columns are fields of the event, and which are properties."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, tzinfo
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from lakebed.clock import parse_iso
from lakebed.errors import InvalidImport

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
"""Fields of an event: their names in options, and in JSON."""
_OBJECTS = ("properties", "traits", "context")
_TAKEN = FIELDS | {wire: wire for wire in FIELDS.values()}
_OWN = {"seq", "received_at", "receivedAt"}  # columns of Lakebed's own exports; the log assigns new values
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
    word = str(value).strip().lower()
    if word not in _TRUTHS:
        raise ValueError(f"{value!r} is neither true nor false")
    return _TRUTHS[word]


_TRUTHS = dict.fromkeys(("true", "t", "yes", "y", "1"), True) | dict.fromkeys(("false", "f", "no", "n", "0"), False)
_TYPES: dict[str, Callable[[Any], Any]] = {
    "str": str,
    "int": _integer,
    "float": _number,
    "bool": _truth,
    "json": lambda value: msgspec.json.decode(value) if isinstance(value, str) else value,
}


class Column(msgspec.Struct, frozen=True):
    """A column and the conversion of its values. A name with dots is also a path into objects."""

    name: str
    convert: Callable[[Any], Any] | None = None

    @classmethod
    def read(cls, text: str) -> Column:
        """Parse a column as options name it: `column` or `column:type`."""
        name, _, kind = text.rpartition(":")
        return cls(name, _TYPES[kind]) if name and kind in _TYPES else cls(text)

    def of(self, row: Mapping[str, Any]) -> Any:
        """The column's value in `row`; `_ABSENT` if the row has no value, or an empty text."""
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
    """Makes events of rows.

    Args:
        fields: texts `FIELD=COLUMN[:TYPE]`. If empty, a column with the name of a field is that field.
        properties: texts `[NAME=]COLUMN[:TYPE]`. If empty, all columns that are not fields are properties.
        event: the name of events that have no name.
        kind: the type of events that have no type.
        time_format: "iso", "unix", "unix_ms", or a format of strptime.
        zone: the time zone of times that name no zone.

    Attributes:
        event_name: the argument `event`.
        kind: the argument `kind`.
        has_columns: whether `fields` or `properties` name a column.
        is_given: whether any argument differs from its default.

    Raises:
        InvalidImport: an argument is not valid.
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
            hint = "Use an IANA name, such as Europe/Berlin"
            raise InvalidImport(f"{zone!r} is not a time zone", hint=hint) from None
        self.has_columns = bool(fields or properties)
        self.is_given = self.has_columns or bool(event or kind) or (time_format, zone) != ("iso", "UTC")

    def require(self, columns: Sequence[str]) -> None:
        """Raise InvalidImport if a column that an argument names is not in `columns`."""
        for column in [*self._fields.values(), *self._properties.values()]:
            if column.name not in columns and column.name.split(".")[0] not in columns:
                raise InvalidImport(f"there is no column {column.name!r}", hint=f"There are {', '.join(columns)}")

    def event(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The event of `row`, in Segment's names.

        Raises:
            ValueError: a value is not of its column's type, or the time is not in the format.
        """
        fields = self._fields or {wire: Column(name) for name, wire in _TAKEN.items() if name in row}
        event = {wire: value for wire, column in fields.items() if (value := column.of(row)) is not _ABSENT}
        if "timestamp" in event:
            event["timestamp"] = self._time(event["timestamp"])
        for name in ("userId", "anonymousId", "previousId", "groupId", "sessionId", "messageId", "event", "type"):
            if name in event and not isinstance(event[name], str):
                event[name] = str(event[name])
        self._add_objects(event, row)
        for name, value in (("event", self.event_name), ("type", self.kind)):
            if value:
                event.setdefault(name, value)
        return event

    def _add_objects(self, event: dict[str, Any], row: Mapping[str, Any]) -> None:
        rest: dict[str, Any] = {}
        if self._properties:
            values = ((name, column.of(row)) for name, column in self._properties.items())
            rest = {name: value for name, value in values if value is not _ABSENT}
        else:
            taken = {column.name.split(".")[0] for column in self._fields.values()} or _TAKEN.keys() | _OWN
            rest = {name: value for name, value in row.items() if name not in taken and name not in _OBJECTS}
            rest = {name: value for name, value in rest.items() if value is not None and value != ""}
        for name in _OBJECTS:
            if name in row and not self._fields and not self._properties:
                whole = Column(name, _TYPES["json"]).of(row)
                if whole is not _ABSENT:
                    event[name] = whole
        kind = event.get("type", self.kind)
        if kind == "alias" and "previousId" not in event:
            event |= _previous(event)
        holder = "traits" if kind in ("identify", "group") else "properties"
        if holder == "traits" and "properties" in event:
            event.setdefault("traits", event.pop("properties"))  # the log and exports keep traits in `properties`
        if rest:
            event[holder] = {**event.get(holder, {}), **rest}

    def _time(self, value: Any) -> Any:
        if isinstance(value, datetime):
            moment = value
        elif isinstance(value, date):
            return value.isoformat() + "T00:00:00Z"
        elif self._format in ("unix", "unix_ms"):
            seconds = float(value) / (_UNIX_MS if self._format == "unix_ms" else 1)
            moment = datetime.fromtimestamp(seconds, UTC)
        elif not isinstance(value, str):
            return float(value) if isinstance(value, Decimal) else value
        elif self._format == "iso":
            return parse_iso(value, self._zone).isoformat()
        else:
            moment = datetime.strptime(value, self._format)  # noqa: DTZ007 - the zone is added below
        return (moment if moment.tzinfo is not None else moment.replace(tzinfo=self._zone)).isoformat()


def _previous(alias: dict[str, Any]) -> dict[str, Any]:
    """The former id of an alias, from its properties, where the log and exports keep it."""
    properties = alias.get("properties")
    if isinstance(properties, dict) and "previousId" in properties:
        return {"previousId": properties.pop("previousId")}
    return {}


def _field(text: str) -> tuple[str, Column]:
    name, equals, column = text.partition("=")
    if not equals or not column or name not in FIELDS:
        raise InvalidImport(f"--map {text!r} is not FIELD=COLUMN", hint=f"Fields are {', '.join(FIELDS)}")
    return FIELDS[name], Column.read(column)


def _property(text: str) -> tuple[str, Column]:
    name, equals, column = text.partition("=")
    source = Column.read(column if equals else text)
    return (name if equals else source.name), source
