"""What is let in: one event checked field by field, or many column by column, with the same outcome.

Column by column costs a sixth of one by one. It does not say what is wrong: a batch that it does not let in whole is
taken apart, and each event checked by itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Raw

from lakebed.clock import to_us
from lakebed.errors import InvalidEvent
from lakebed.events.batch import EventBatch, people_of, raw_column
from lakebed.events.event import (
    EMPTY,
    MAX_AHEAD_US,
    MAX_DEPTH,
    MAX_EVENT_BYTES,
    MAX_ID,
    MAX_MESSAGE_ID,
    MAX_NAME,
    OPERATOR,
    TIME,
    TYPES,
    Event,
)
from lakebed.moments import parse_epoch, parse_moment

__all__ = ["admit", "admit_all"]


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
    if event.source == OPERATOR:
        raise InvalidEvent(f"source {OPERATOR} is reserved")
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
        event.properties = event.traits if bytes(event.traits) not in _NOTHING else _context_traits(event.context)
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


class _Context(msgspec.Struct):
    traits: Raw = EMPTY


_NOTHING = (b"{}", b"null", b"")
_context = msgspec.json.Decoder(_Context)


def _context_traits(context: Raw) -> Raw:
    """Where rudder-sdk-python puts what it identifies somebody with. A context that cannot be read is refused later."""
    if b'"traits"' not in bytes(context):
        return EMPTY
    try:
        traits = _context.decode(context).traits
    except (msgspec.DecodeError, RecursionError):
        return EMPTY
    return traits.copy()  # else the whole body stays in memory with it


def _add_property(event: Event, key: str, value: str) -> None:
    raw = bytes(event.properties)
    found = msgspec.json.decode(raw) if raw not in (b"", b"null") else {}
    if isinstance(found, dict):  # anything else is refused by _settle_objects
        event.properties = Raw(msgspec.json.encode(found | {key: value}))


def _settle_time(event: Event, now_us: int) -> int | None:
    """The event's own time, corrected by Segment's rule: received_at - (sent_at - original_timestamp).

    Where an original timestamp stands beside it, `timestamp` is final: somebody has corrected it already, or the caller
    has said it (RudderStack's client for Node).
    """
    own = event.timestamp if event.timestamp is not None else event.original_timestamp
    if own is None:
        return None
    at = _read_time("timestamp", own)
    if event.sent_at is not None and not _is_final(event):
        at += now_us - _read_time("sent_at", event.sent_at)
    if at > now_us + MAX_AHEAD_US:
        raise InvalidEvent("timestamp lies more than 24 hours ahead of received_at")
    if at < _FIRST_US:
        raise InvalidEvent(f"timestamp {str(own)[:40]!r} lies before the year 1")
    return at


def _is_final(event: Event) -> bool:
    return event.timestamp is not None and event.original_timestamp is not None


_FIRST_US = to_us(datetime(1, 1, 1, tzinfo=UTC))


def _read_time(field: str, value: str | float) -> int:
    try:
        return parse_moment(value) if isinstance(value, str) else parse_epoch(value)
    except ValueError as error:
        raise InvalidEvent(f"{field} {error}") from None


def _settle_objects(event: Event) -> None:
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


_TEXT = pa.string()
_any = msgspec.json.Decoder()


def admit_all(
    events: Sequence[Event], now_us: int, *, sent_at: Any = None, source: str | None = None
) -> EventBatch | None:
    """All of `events` as a block, as if each had been through `admit`; None where one of them needs a closer look.

    Args:
        events: as decoded from JSON that is valid UTF-8, at least one. After None they are spoilt: decode them again.
        now_us: when they were received, microseconds.
        sent_at, source: of those that do not say it themselves.

    None is no verdict: numbers where text is expected, times in another form than RFC 3339, names in other scripts
    that are near a limit, and what is really bad, all go the slower way.
    """
    kinds = [event.type for event in events]
    try:
        if kinds.count("track") != len(kinds):
            for event in events:
                if event.type != "track":
                    _settle_kind(event, event.type)
        return _as_block(events, kinds, now_us, sent_at, source)
    except (InvalidEvent, pa.ArrowException, UnicodeEncodeError, msgspec.DecodeError, RecursionError):
        return None


def _as_block(events: Sequence[Event], kinds: list[str], now_us: int, sent_at: Any, source: Any) -> EventBatch | None:
    """The block, when nothing is wrong. Raises ArrowException for texts and times that are none."""
    message_ids, names = [event.message_id for event in events], [event.event for event in events]
    users: list[Any] = [event.user_id for event in events]  # those that are no texts raise
    anonymous: list[Any] = [event.anonymous_id for event in events]
    others = ([event.group_id for event in events], [event.session_id for event in events])
    sources = [source if event.source is None else event.source for event in events]
    if OPERATOR in sources:
        return None
    given, name, *ids = (pa.array(column, _TEXT) for column in (message_ids, names, users, anonymous, *others, sources))
    nameless = name.null_count and any(one is None and kind == "track" for one, kind in zip(names, kinds, strict=True))
    if nameless or not (_within(given, MAX_MESSAGE_ID) and _within(name, MAX_NAME) and _all_within(ids, MAX_ID)):
        return None
    if _has_blank(name):
        return None
    timestamp = _timestamps(events, now_us, sent_at)
    objects = [event.properties for event in events], [event.context for event in events]
    raws = [raw_column(column) for column in objects]
    if not _objects_within(objects, raws):
        return None
    kind = pa.array(kinds, _TEXT)
    columns = [given, kind, name, *ids[:-1], timestamp, ids[-1], *raws]
    return EventBatch(message_ids, names, people_of(users, anonymous), columns)


def _all_within(columns: Sequence[pa.Array], longest: int) -> bool:
    return all(_within(column, longest) for column in columns)


def _within(column: pa.Array, longest: int) -> bool:
    """Whether each text has 1 to `longest` bytes: those that have more may still have as few characters."""
    if column.null_count == len(column):
        return True
    import pyarrow.compute as pc  # a quarter of what pyarrow costs to import

    bounds = pc.min_max(pc.binary_length(column))
    shortest: int = bounds["min"].as_py()
    return shortest > 0 and bounds["max"].as_py() <= longest


def _has_blank(column: pa.Array) -> bool:
    """Whether a text is nothing but white space."""
    import pyarrow.compute as pc  # a quarter of what pyarrow costs to import

    return pc.any(pc.utf8_is_space(column)).as_py() is True


def _timestamps(events: Sequence[Event], now_us: int, sent_at: Any) -> pa.Array:
    """`_settle_time` of all. Raises ArrowException where one is not RFC 3339 text, or out of bounds."""
    own = [event.original_timestamp if event.timestamp is None else event.timestamp for event in events]
    at = pa.array(own, _TEXT).cast(TIME).view(pa.int64())
    if at.null_count == len(at):
        return at
    import pyarrow.compute as pc  # a quarter of what pyarrow costs to import

    sents = [None if _is_final(event) else sent_at if event.sent_at is None else event.sent_at for event in events]
    if sents.count(None) != len(sents):
        sent = pa.array(sents, _TEXT).cast(TIME).view(pa.int64()).fill_null(now_us)
        at = pc.add(at, pc.subtract(now_us, sent))
    bounds = pc.min_max(at)
    if bounds["max"].as_py() > now_us + MAX_AHEAD_US or bounds["min"].as_py() < _FIRST_US:
        raise pa.ArrowInvalid("a timestamp is out of bounds")
    return at


# A separator that no JSON text can hold, not even between its tokens.
_BETWEEN = b"\x1e"
_BRACKETS = bytes.maketrans(b"[", b"{")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[{" + _BETWEEN))
_TOO_DEEP = b"{" * (MAX_DEPTH + 1)
_DIGITS = bytes.maketrans(b"123456789+E", b"0000000000e")
_LARGE = b"0e000"  # an exponent of three digits, or of two and a plus
_LONG = b"0" * 200  # with fewer digits, and an exponent of two, a number is finite


def _objects_within(objects: Sequence[Sequence[Raw]], columns: Sequence[pa.Array]) -> bool:
    """Whether all are objects, within the limits of size and depth, with numbers that exist."""
    import pyarrow.compute as pc  # a quarter of what pyarrow costs to import

    sizes = pc.add(*map(pc.binary_length, columns))
    if pc.max(sizes).as_py() > MAX_EVENT_BYTES - MAX_NAME:
        return False
    if not all(pc.all(pc.starts_with(column, "{")).as_py() for column in columns):
        return False
    text = _BETWEEN.join(itertools.chain(*objects))
    # Brackets opened are a bound from above of the depth.
    if _TOO_DEEP in text.translate(_BRACKETS, _NOT_BRACKETS):
        return False
    return _numbers_exist(text)


def _numbers_exist(text: bytes) -> bool:
    """Whether each number in these JSON texts, `_BETWEEN` each other, can be read. Ids look like large ones too."""
    digits = text.translate(_DIGITS)
    return all(_reads(one) for like in (_LARGE, _LONG) for one in _texts_with(like, digits, text))


def _texts_with(like: bytes, digits: bytes, text: bytes) -> Iterator[bytes]:
    at = digits.find(like)
    while at != -1:
        start, end = text.rfind(_BETWEEN, 0, at) + 1, text.find(_BETWEEN, at)
        end = len(text) if end == -1 else end
        yield text[start:end]
        at = digits.find(like, end)


def _reads(text: bytes) -> bool:
    try:
        _any.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
