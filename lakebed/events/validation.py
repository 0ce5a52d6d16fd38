"""One event: from the arguments of a Python call, or from a decoded message, to the form that the log stores."""

from __future__ import annotations

import dataclasses
from datetime import date, datetime
from typing import Any

import msgspec
from msgspec import Raw

from lakebed.clock import YEAR_1_US, parse_epoch, parse_moment
from lakebed.errors import InvalidEvent
from lakebed.events.event import (
    EMPTY,
    MAX_AHEAD_US,
    MAX_DEPTH,
    MAX_EVENT_BYTES,
    MAX_ID,
    MAX_MESSAGE_ID,
    MAX_NAME,
    OPERATOR,
    TYPES,
    Event,
)

__all__ = ["check_aware", "encode_object", "from_call", "has_final_timestamp", "normalize_type", "validate"]


def from_call(kind: str, properties: Any, context: Any = None, timestamp: Any = None, **fields: Any) -> Event:
    """The event of a Python call, not yet validated.

    Args:
        kind: one of `event.TYPES`.
        properties: a mapping or None; the traits of identify and group.
        fields: other fields of `Event`; an unknown name raises a TypeError.

    Raises:
        InvalidEvent: a value has the wrong type, is not valid Unicode text, or is a time without a zone.
    """
    for name, value in fields.items():
        _check_argument(name, value)
    check_aware("timestamp", timestamp)
    if isinstance(timestamp, date):  # datetimes are dates too
        timestamp = timestamp.isoformat()
    elif timestamp is not None and (isinstance(timestamp, bool) or not isinstance(timestamp, (str, int, float))):
        raise InvalidEvent(f"timestamp must be a time, text or a number, not {type(timestamp).__name__}")
    objects = "traits" if kind in ("identify", "group") else "properties"
    fields[objects] = encode_object(objects, properties)
    return Event(type=kind, source="python", timestamp=timestamp, context=encode_object("context", context), **fields)


def _check_argument(name: str, value: Any) -> None:
    if value is None or (isinstance(value, int) and name.endswith("_id") and name != "message_id"):
        return
    if not isinstance(value, str):
        raise InvalidEvent(f"{name} must be text, not {type(value).__name__}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidEvent(f"{name} holds a lone surrogate") from None


def encode_object(field: str, value: Any) -> Raw:
    """The JSON of a Python mapping, for a raw field of an event.

    Raises:
        InvalidEvent: JSON cannot hold the value: a non-finite number, lone surrogate, unknown type or deep nesting.
    """
    if value is None:
        return EMPTY
    try:
        encoded = msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidEvent(f"{field} cannot be written as JSON: {error}") from None
    # msgspec writes NaN and infinity as null, so only a JSON text with a null can hide a NaN or an infinity.
    if b"null" in encoded and _has_non_finite(value):
        raise InvalidEvent(f"{field} hold a non-finite number")
    return Raw(encoded)


def _has_non_finite(value: Any) -> bool:
    pending = [value]
    while pending:
        node = pending.pop()
        if isinstance(node, float):
            if node - node != 0:  # NaN or infinite
                return True
        elif isinstance(node, dict):
            pending.extend(node.values())
            pending.extend(key for key in node if isinstance(key, float))
        elif isinstance(node, (list, tuple, set, frozenset)):
            pending.extend(node)
        elif isinstance(node, msgspec.Struct):
            pending.extend(msgspec.structs.astuple(node))
        elif dataclasses.is_dataclass(node):
            pending.extend(getattr(node, field.name) for field in dataclasses.fields(node))
    return False


def check_aware(field: str, value: Any) -> None:
    """Raise InvalidEvent if `value` is a naive datetime: the intended time zone is unknown."""
    if isinstance(value, datetime) and value.utcoffset() is None:
        raise InvalidEvent(f"{field} {value.isoformat()} has no time zone: give it one, for example tzinfo=UTC")


def validate(event: Event, now_us: int) -> None:
    """Check `event` and change it, in place, to the form that the log stores.

    Args:
        event: an event whose raw fields are valid JSON (`decoding` and `encode_object` ensure that). Not idempotent:
            validate an event only once.
        now_us: the time at which the event was received, microseconds.

    Raises:
        InvalidEvent: the event breaks a rule; the reason names the first broken rule.
    """
    kind = event.type
    if kind == "track":
        name = event.event
        if name is None:
            raise InvalidEvent("event name is missing")
    else:
        normalize_type(event)
        name = event.event
    if name is not None and (len(name) > MAX_NAME or not name or name.isspace()):
        raise InvalidEvent(
            f"event name has {len(name)} characters, the limit is {MAX_NAME}" if name.strip() else "event name is empty"
        )
    event.user_id = _normalized_id("user_id", event.user_id)
    event.anonymous_id = _normalized_id("anonymous_id", event.anonymous_id)
    event.group_id = _normalized_id("group_id", event.group_id)
    event.session_id = _normalized_id("session_id", event.session_id)
    event.source = _normalized_id("source", event.source)
    if event.source == OPERATOR:
        raise InvalidEvent(f"source {OPERATOR} is reserved")
    if name is not None and not name.isascii():
        _check_text("event name", name)
    message_id = event.message_id
    if message_id is not None and not message_id.isascii():
        _check_text("message_id", message_id)
    if message_id is not None and not 0 < len(message_id) <= MAX_MESSAGE_ID:
        raise InvalidEvent(f"message_id has {len(message_id)} characters, it must have 1 to {MAX_MESSAGE_ID}")
    event.timestamp = _event_time(event, now_us)
    _check_objects(event)


def _normalized_id(field: str, value: str | int | None) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else str(value)
    if not 0 < len(text) <= MAX_ID:
        raise InvalidEvent(f"{field} has {len(text)} characters, it must have 1 to {MAX_ID}")
    if not text.isascii():
        _check_text(field, text)
    return text


def _check_text(field: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidEvent(f"{field} is not valid Unicode: {error.reason} at character {error.start}") from None


def normalize_type(event: Event) -> None:
    """Move the fields that only page, screen, identify, group and alias have into the columns that all types share.

    Raises:
        InvalidEvent: the type is unknown, or the event lacks a field that its type needs.
    """
    kind = event.type
    if kind in ("page", "screen"):
        event.event = event.name if event.name is not None else event.event
        if event.category is not None:
            _check_text("category", event.category)
            _add_property(event, "category", event.category)
    elif kind == "identify":
        if event.user_id is None and event.anonymous_id is None:
            raise InvalidEvent("identify needs a user_id or an anonymous_id")
        event.properties = event.traits if bytes(event.traits) not in _NOTHING else _context_traits(event.context)
    elif kind == "group":
        if event.group_id is None:
            raise InvalidEvent("group needs a group_id")
        event.properties = event.traits
    elif kind == "alias":
        previous = _normalized_id("previous_id", event.previous_id)
        if previous is None or event.user_id is None:
            raise InvalidEvent("alias needs a user_id and a previous_id")
        _add_property(event, "previousId", previous)
    else:
        raise InvalidEvent(f"type {kind[:40]!r} is not one of {', '.join(TYPES)}")


class _Context(msgspec.Struct):
    traits: Raw = EMPTY


_NOTHING = (b"{}", b"null", b"")
_context = msgspec.json.Decoder(_Context)


def _context_traits(context: Raw) -> Raw:
    """The traits in the context of an identify event: rudder-sdk-python sends traits in the context.

    Returns `EMPTY` if the context has no traits, or cannot be read. (An unreadable context is rejected later.)
    """
    if b'"traits"' not in bytes(context):
        return EMPTY
    try:
        traits = _context.decode(context).traits
    except (msgspec.DecodeError, RecursionError):
        return EMPTY
    return traits.copy()  # a view would keep the whole body in memory


def _add_property(event: Event, key: str, value: str) -> None:
    raw = bytes(event.properties)
    properties = msgspec.json.decode(raw) if raw not in (b"", b"null") else {}
    if isinstance(properties, dict):  # _check_objects rejects anything else
        event.properties = Raw(msgspec.json.encode(properties | {key: value}))


def _event_time(event: Event, now_us: int) -> int | None:
    """The time of an event in microseconds, corrected by Segment's rule: received_at - (sent_at - original_timestamp).

    `timestamp` is final if the event has an original timestamp too: a proxy has corrected `timestamp` already, or the
    caller has set it (RudderStack's client for Node). Returns None if the event has no time.
    """
    own = event.timestamp if event.timestamp is not None else event.original_timestamp
    if own is None:
        return None
    time_us = _time_us("timestamp", own)
    if event.sent_at is not None and not has_final_timestamp(event):
        time_us += now_us - _time_us("sent_at", event.sent_at)
    if time_us > now_us + MAX_AHEAD_US:
        raise InvalidEvent("timestamp lies more than 24 hours ahead of received_at")
    if time_us < YEAR_1_US:
        raise InvalidEvent(f"timestamp {str(own)[:40]!r} lies before the year 1")
    return time_us


def has_final_timestamp(event: Event) -> bool:
    """Whether the event's `timestamp` is used without a correction for the client's clock."""
    return event.timestamp is not None and event.original_timestamp is not None


def _time_us(field: str, value: str | float) -> int:
    try:
        return parse_moment(value) if isinstance(value, str) else parse_epoch(value)
    except ValueError as error:
        raise InvalidEvent(f"{field} {error}") from None


def _check_objects(event: Event) -> None:
    properties, context = bytes(event.properties), bytes(event.context)
    if properties[:1] != b"{":
        if properties not in (b"", b"null"):
            raise InvalidEvent("properties (or traits) must be a JSON object")
        event.properties = EMPTY
    if context[:1] != b"{":
        if context not in (b"", b"null"):
            raise InvalidEvent("context must be a JSON object")
        event.context = EMPTY
    size = len(properties) + len(context) + len(event.event or "")
    if size > MAX_EVENT_BYTES:
        raise InvalidEvent(f"event has {size} bytes, the limit is {MAX_EVENT_BYTES}")
    # The number of brackets is an upper bound of the depth and costs 0.1 us; only an object that exceeds it is walked.
    for field, raw in (("properties", properties), ("context", context)):
        if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and (depth := _depth(raw)) > MAX_DEPTH:
            raise InvalidEvent(f"{field} are nested {depth} deep, the limit is {MAX_DEPTH}")


def _depth(raw: bytes) -> int:
    depth, level = 0, [msgspec.json.decode(raw)]
    while containers := [node for node in level if isinstance(node, (dict, list))]:
        depth += 1
        level = [child for node in containers for child in (node.values() if isinstance(node, dict) else node)]
    return depth
