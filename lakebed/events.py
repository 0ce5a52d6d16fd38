"""What an event is: the struct, its receipt, its Arrow schema, and what is refused.

The wire names are Segment's (`userId`, `messageId` …); a batch of JSON bytes is decoded straight into `Event` structs.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import pyarrow as pa
from msgspec import Raw

from lakebed.clock import to_us
from lakebed.errors import InvalidEvent

__all__ = [
    "BASE_COLUMNS",
    "MAX_DEPTH",
    "MAX_EVENT_BYTES",
    "MAX_ID",
    "MAX_MESSAGE_ID",
    "MAX_NAME",
    "SCHEMA",
    "TYPES",
    "Event",
    "Receipt",
    "admit",
    "encode_object",
    "to_record_batch",
]

TYPES = ("track", "page", "screen", "identify", "group", "alias")
MAX_NAME = 200
MAX_ID = 256
MAX_MESSAGE_ID = 100
MAX_DEPTH = 32
MAX_EVENT_BYTES = 32 * 1024
MAX_AHEAD_US = 24 * 3600 * 1_000_000
_MAX_NUMBER = 1e15
_SECONDS_BELOW = 1e12  # a number below this is epoch seconds, else milliseconds (Segment's collectors agree on this)
_TIME = pa.timestamp("us", tz="UTC")


def _field(number: int, name: str, kind: pa.DataType, *, nullable: bool = True) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={b"PARQUET:field_id": str(number).encode()})


# Field ids are Iceberg's: they never change and are never reused. Promoted properties take the numbers after these.
SCHEMA = pa.schema(
    [
        _field(1, "seq", pa.int64(), nullable=False),
        _field(2, "message_id", pa.string(), nullable=False),
        _field(3, "type", pa.string(), nullable=False),
        _field(4, "event", pa.string()),
        _field(5, "user_id", pa.string()),
        _field(6, "anonymous_id", pa.string()),
        _field(7, "group_id", pa.string()),
        _field(8, "session_id", pa.string()),
        _field(9, "timestamp", _TIME, nullable=False),
        _field(10, "received_at", _TIME, nullable=False),
        _field(11, "source", pa.string()),
        _field(12, "properties", pa.string(), nullable=False),
        _field(13, "context", pa.string(), nullable=False),
    ]
)
BASE_COLUMNS = tuple(SCHEMA.names)

_EMPTY = Raw(b"{}")


class Event(msgspec.Struct, rename="camel", gc=False, kw_only=True):
    """One Segment-style message. `admit` brings it from what a client sent to what the log stores.

    Attributes:
        type: one of `TYPES`.
        event: the track name; `admit` puts the page or screen name here too.
        user_id: known id, at most 256 characters; numbers become text. The other ids likewise.
        timestamp: when it happened: ISO 8601 text, epoch seconds or milliseconds; after `admit`, microseconds or None
            (None becomes `received_at`).
        sent_at: the client's clock when it sent; with it, `timestamp` is corrected for the client's clock skew.
        properties: a JSON object as bytes. Traits of identify and group end up here.
    """

    type: str = "track"
    event: str | None = None
    name: str | None = None
    category: str | None = None
    user_id: str | int | None = None
    anonymous_id: str | int | None = None
    previous_id: str | int | None = None
    group_id: str | int | None = None
    session_id: str | int | None = None
    message_id: str | None = None
    timestamp: str | int | float | None = None
    original_timestamp: str | int | float | None = None
    sent_at: str | int | float | None = None
    source: str | None = None
    properties: Raw = _EMPTY
    traits: Raw = _EMPTY
    context: Raw = _EMPTY


class Receipt(msgspec.Struct, frozen=True):
    """What became of one event.

    Attributes:
        seq: its position in the log; of a duplicate, the position of the event it repeats; None if rejected.
        message_id: the client's, or the one that Lakebed gave it.
        status: "stored" and "duplicate" are durable; "rejected" stored nothing.
        reason: why it was rejected, else None.
    """

    seq: int | None
    message_id: str | None
    status: Literal["stored", "duplicate", "rejected"]
    reason: str | None = None


def admit(event: Event, now_us: int) -> None:
    """Validate `event` and bring it, in place, to the form that the log stores.

    Args:
        event: its raw fields must be valid JSON (`decoding` and `encode_object` see to that). Admit it once only.
        now_us: when it was received, microseconds.

    Raises:
        InvalidEvent: with one reason.
    """
    kind = event.type
    if kind == "track":
        name = event.event
        if name is None:
            raise InvalidEvent("event name is missing")
    else:
        _settle_kind(event, kind)
        name = event.event
    if name is not None and (len(name) > MAX_NAME or not name or name.isspace()):
        raise InvalidEvent(
            f"event name has {len(name)} characters, the limit is {MAX_NAME}" if name.strip() else "event name is empty"
        )
    event.user_id = _settle_id("user_id", event.user_id)
    event.anonymous_id = _settle_id("anonymous_id", event.anonymous_id)
    event.group_id = _settle_id("group_id", event.group_id)
    event.session_id = _settle_id("session_id", event.session_id)
    event.source = _settle_id("source", event.source)
    if name is not None and not name.isascii():
        _check_text("event name", name)
    message_id = event.message_id
    if message_id is not None and not message_id.isascii():
        _check_text("message_id", message_id)
    if message_id is not None and not 0 < len(message_id) <= MAX_MESSAGE_ID:
        raise InvalidEvent(f"message_id has {len(message_id)} characters, it must have 1 to {MAX_MESSAGE_ID}")
    event.timestamp = _settle_time(event, now_us)
    _settle_objects(event)


def _settle_id(field: str, value: str | int | None) -> str | None:
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


def _settle_kind(event: Event, kind: str) -> None:
    """Move what the other five types carry elsewhere into the columns of the one schema."""
    if kind in ("page", "screen"):
        event.event = event.name if event.name is not None else event.event
        if event.category is not None:
            _check_text("category", event.category)
            _add_property(event, "category", event.category)
    elif kind == "identify":
        if event.user_id is None and event.anonymous_id is None:
            raise InvalidEvent("identify needs a user_id or an anonymous_id")
        event.properties = event.traits
    elif kind == "group":
        if event.group_id is None:
            raise InvalidEvent("group needs a group_id")
        event.properties = event.traits
    elif kind == "alias":
        previous = _settle_id("previous_id", event.previous_id)
        if previous is None or event.user_id is None:
            raise InvalidEvent("alias needs a user_id and a previous_id")
        _add_property(event, "previousId", previous)
    else:
        raise InvalidEvent(f"type {kind[:40]!r} is not one of {', '.join(TYPES)}")


def _add_property(event: Event, key: str, value: str) -> None:
    raw = bytes(event.properties)
    found = msgspec.json.decode(raw) if raw not in (b"", b"null") else {}
    if isinstance(found, dict):  # anything else is refused by _settle_objects
        event.properties = Raw(msgspec.json.encode(found | {key: value}))


def _settle_time(event: Event, now_us: int) -> int | None:
    """The event's own time, corrected by Segment's rule: received_at - (sent_at - original_timestamp)."""
    own = event.original_timestamp if event.original_timestamp is not None else event.timestamp
    if own is None:
        return None
    at = _read_time("timestamp", own)
    if event.sent_at is not None:
        at += now_us - _read_time("sent_at", event.sent_at)
    if at > now_us + MAX_AHEAD_US:
        raise InvalidEvent("timestamp lies more than 24 hours ahead of received_at")
    if at < _FIRST_US:
        raise InvalidEvent(f"timestamp {str(own)[:40]!r} lies before the year 1")
    return at


_FIRST_US = to_us(datetime(1, 1, 1, tzinfo=UTC))


def _read_time(field: str, value: str | float) -> int:
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            return to_us(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
        except (ValueError, OverflowError):
            raise InvalidEvent(f"{field} {value[:40]!r} is not an ISO 8601 time") from None
    if not -_MAX_NUMBER < value < _MAX_NUMBER:
        raise InvalidEvent(f"{field} {str(value)[:40]} is not a number of seconds or milliseconds since 1970")
    return round(value * 1_000_000) if abs(value) < _SECONDS_BELOW else round(value * 1_000)


def _settle_objects(event: Event) -> None:
    properties, context = bytes(event.properties), bytes(event.context)
    if properties[:1] != b"{":
        if properties not in (b"", b"null"):
            raise InvalidEvent("properties (or traits) must be a JSON object")
        event.properties = _EMPTY
    if context[:1] != b"{":
        if context not in (b"", b"null"):
            raise InvalidEvent("context must be a JSON object")
        event.context = _EMPTY
    size = len(properties) + len(context) + len(event.event or "")
    if size > MAX_EVENT_BYTES:
        raise InvalidEvent(f"event has {size} bytes, the limit is {MAX_EVENT_BYTES}")
    # Counting brackets is a bound from above that costs 0.1 us; only what passes it is walked.
    for field, raw in (("properties", properties), ("context", context)):
        if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and (depth := _depth(raw)) > MAX_DEPTH:
            raise InvalidEvent(f"{field} are nested {depth} deep, the limit is {MAX_DEPTH}")


def _depth(raw: bytes) -> int:
    level, deepest, waiting = 0, 0, [msgspec.json.decode(raw)]
    while waiting:
        level += 1
        below = [
            child
            for node in waiting
            if isinstance(node, (dict, list))
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        deepest = level if any(isinstance(node, (dict, list)) for node in waiting) else deepest
        waiting = below
    return deepest


def encode_object(field: str, value: Any) -> Raw:
    """JSON of a Python mapping, as an event's raw field.

    Raises:
        InvalidEvent: where it holds what JSON cannot: non-finite numbers, lone surrogates, unknown types, too deep.
    """
    if value is None:
        return _EMPTY
    try:
        encoded = msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidEvent(f"{field} cannot be written as JSON: {error}") from None
    # msgspec writes NaN and infinity as null; only an encoding with a null in it can hide one.
    if b"null" in encoded and _has_non_finite(value):
        raise InvalidEvent(f"{field} hold a non-finite number")
    return Raw(encoded)


def _has_non_finite(value: Any) -> bool:
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, float):
            if node - node != 0:  # NaN or infinite
                return True
        elif isinstance(node, dict):
            waiting.extend(node.values())
            waiting.extend(key for key in node if isinstance(key, float))
        elif isinstance(node, (list, tuple, set, frozenset)):
            waiting.extend(node)
        elif isinstance(node, msgspec.Struct):
            waiting.extend(msgspec.structs.astuple(node))
        elif dataclasses.is_dataclass(node):
            waiting.extend(getattr(node, field.name) for field in dataclasses.fields(node))
    return False


_row = operator.attrgetter(
    "message_id",
    "type",
    "event",
    "user_id",
    "anonymous_id",
    "group_id",
    "session_id",
    "timestamp",
    "source",
    "properties",
    "context",
)


def to_record_batch(events: Sequence[Event], first_seq: int, received_at: int) -> pa.RecordBatch:
    """The Arrow form of admitted events with message ids, in order.

    Args:
        events: at least one, each through `admit`.
        first_seq: position of the first.
        received_at: microseconds, one for the whole batch.
    """
    count = len(events)
    message_id, kind, event, user, anonymous, group, session, timestamps, source, properties, context = zip(
        *map(_row, events), strict=True
    )
    received = pa.array([received_at] * count, pa.int64())
    timestamp = pa.array([received_at if at is None else at for at in timestamps], pa.int64())
    text = pa.string()
    return pa.RecordBatch.from_arrays(
        [
            pa.array(range(first_seq, first_seq + count), pa.int64()),
            pa.array(message_id, text),
            pa.array(kind, text),
            pa.array(event, text),
            pa.array(user, text),
            pa.array(anonymous, text),
            pa.array(group, text),
            pa.array(session, text),
            timestamp.view(_TIME),
            received.view(_TIME),
            pa.array(source, text),
            pa.array(list(map(bytes, properties)), text),
            pa.array(list(map(bytes, context)), text),
        ],
        schema=SCHEMA,
    )
