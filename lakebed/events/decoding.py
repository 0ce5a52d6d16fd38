"""From what a client sent to `Event`s, with one reason for each that cannot be taken.

JSON bytes are decoded in C into `Event`s, which leaves their objects as raw text, and admitted column by column. Only
where that does not take all of a batch is it taken apart, item by item, to say what is wrong with each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import msgspec
from msgspec import Raw

from lakebed.errors import InvalidEvent
from lakebed.events.batch import EventBatch
from lakebed.events.event import EMPTY, MAX_EVENT_BYTES, Event, encode_object
from lakebed.events.json_split import split
from lakebed.events.validation import admit, admit_all

__all__ = [
    "Batch",
    "Rejected",
    "decode_batch",
    "decode_items",
    "decode_letter",
    "decode_mappings",
    "from_call",
    "items_as_sent",
]


class Rejected(msgspec.Struct, frozen=True):
    """An item that was refused, and why. `message_id` if it could be read."""

    reason: str
    message_id: str | None = None


class Batch(msgspec.Struct, frozen=True):
    """What was sent: the events that are taken, in order and at most `CHUNK` a part, and the others by position."""

    parts: list[EventBatch | Sequence[Event]]  # a few events become columns with others that are committed together
    rejected: dict[int, Rejected]

    def __len__(self) -> int:
        return sum(map(len, self.parts)) + len(self.rejected)

    @classmethod
    def of(cls, items: Sequence[Event | Rejected]) -> Batch:
        """The batch of items that were admitted one by one."""
        good = [item for item in items if isinstance(item, Event)]
        rejected = {at: item for at, item in enumerate(items) if isinstance(item, Rejected)}
        if 0 < len(good) < _FEW:
            return cls([good], rejected)
        return cls([EventBatch.of(chunk) for chunk in _chunks(good)], rejected)


CHUNK = 5_000  # events that a batch hands to the log at once: bounds a frame, and lets other calls in between
_FEW = 24  # with fewer events, columns cost more than they spare


def _chunks(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    return (events[start : start + CHUNK] for start in range(0, len(events), CHUNK))


class _Envelope(msgspec.Struct, rename="camel"):
    """Segment's batch body: what it says once holds for each item that does not say it."""

    batch: Raw
    sent_at: str | int | float | None = None
    context: Raw = EMPTY


class _Shared(msgspec.Struct, rename="camel", omit_defaults=True):
    """What an envelope says besides its events."""

    sent_at: str | int | float | None = None
    context: Raw = EMPTY


class _Sent(msgspec.Struct, rename="camel"):
    """The same, when all of it reads as it should."""

    batch: list[Event]
    sent_at: str | int | float | None = None
    context: Raw = EMPTY


class _Identified(msgspec.Struct, rename="camel"):
    message_id: str | None = None


_events = msgspec.json.Decoder(list[Event])
_event = msgspec.json.Decoder(Event)
_sent = msgspec.json.Decoder(_Sent)
_any = msgspec.json.Decoder()
_NO_ENVELOPE = _Envelope(batch=Raw(b"[]"))
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_HAS_BATCH = re.compile(rb'^\s*\{.*?"batch"\s*:', re.DOTALL)
# An event may have texts beside its objects, each with a limit of its own; what is longer than this breaks one of them.
_MAX_ITEM_BYTES = 4 * MAX_EVENT_BYTES


def from_call(kind: str, properties: Any, context: Any = None, timestamp: Any = None, **fields: Any) -> Event:
    """The event of a Python call, to be admitted.

    Args:
        kind: one of `events.TYPES`.
        properties: a mapping or None; the traits of identify and group.
        fields: names of `Event`; unknown ones are a TypeError.

    Raises:
        InvalidEvent: where a value has the wrong type, or is no Unicode text.
    """
    for name, value in fields.items():
        _check_text(name, value)
    if isinstance(timestamp, date):  # datetimes are dates too
        timestamp = timestamp.isoformat()
    elif timestamp is not None and (isinstance(timestamp, bool) or not isinstance(timestamp, (str, int, float))):
        raise InvalidEvent(f"timestamp must be a time, text or a number, not {type(timestamp).__name__}")
    objects = "traits" if kind in ("identify", "group") else "properties"
    fields[objects] = encode_object(objects, properties)
    return Event(type=kind, source="python", timestamp=timestamp, context=encode_object("context", context), **fields)


def _check_text(name: str, value: Any) -> None:
    if value is None or (isinstance(value, int) and name.endswith("_id") and name != "message_id"):
        return
    if not isinstance(value, str):
        raise InvalidEvent(f"{name} must be text, not {type(value).__name__}")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise InvalidEvent(f"{name} holds a lone surrogate") from None


def decode_batch(body: bytes, now_us: int, *, source: str | None = None) -> Batch:
    """Decode and admit a JSON array, a Segment envelope `{"batch": […]}`, one JSON object, or NDJSON lines.

    Args:
        body: the bytes, inflated.
        now_us: when they were received.
        source: what the `source` column says of events that do not say it themselves.

    Raises:
        InvalidEvent: when the whole body is unreadable; nothing of it was taken.
    """
    sent = _decode_whole(body)
    if sent is not None and len(sent.batch) >= _FEW:
        blocks = [admit_all(chunk, now_us, sent_at=sent.sent_at, source=source) for chunk in _chunks(sent.batch)]
        taken: list[EventBatch | Sequence[Event]] = [block for block in blocks if block is not None]
        if len(taken) == len(blocks):
            return Batch(taken, {})
    return Batch.of(decode_items(body, now_us, source=source))


def _decode_whole(body: bytes) -> _Sent | None:
    """The events of a body in which nothing is wrong; their objects may still hold numbers that do not exist."""
    text = body.strip()
    try:
        if not text.isascii():
            text.decode()
        if text[:1] == b"[":
            return _Sent(_events.decode(text))
        if _HAS_BATCH.match(text):
            sent = _sent.decode(text)
            return sent if bytes(sent.context) in _NO_CONTEXT else None
        return _Sent(_event.decode_lines(text))
    except _UNREADABLE:
        return None


_NO_CONTEXT = (b"{}", b"null")


def decode_items(body: bytes, now_us: int, *, source: str | None = None) -> list[Event | Rejected]:
    """`decode_batch` item by item: slower, and says of each that is refused why."""
    text = body.strip()
    envelope = _read_envelope(text) if _HAS_BATCH.match(text) else None
    if envelope is not None:
        items = _decode_array(bytes(envelope.batch))
    elif text[:1] != b"[" and _is_lines(lines := text.splitlines()):
        items = [_decode_item(line) for line in lines if line.strip()]
    else:
        items = _decode_array(b"[" + text + b"]" if text[:1] == b"{" else text)
    return _admit_each(items, envelope or _NO_ENVELOPE, now_us, source)


def items_as_sent(body: bytes) -> tuple[list[bytes], bytes]:
    """The items of a body that `decode_items` took apart, as they were sent, and what its envelope says of all of them.

    The latter is a JSON object. Bytes are the sender's, but for white space around an item.
    """
    text = body.strip()
    envelope = _read_envelope(text) if _HAS_BATCH.match(text) else None
    if envelope is not None:
        shared = msgspec.json.encode(_Shared(envelope.sent_at, envelope.context))
        return split(bytes(envelope.batch)) or [], shared
    if text[:1] != b"[" and _is_lines(lines := text.splitlines()):
        return [line.strip() for line in lines if line.strip()], b"{}"
    return split(b"[" + text + b"]" if text[:1] == b"{" else text) or [], b"{}"


def decode_letter(raw: bytes, shared: bytes, now_us: int, *, source: str | None = None) -> list[Event | Rejected]:
    """One item of `items_as_sent`, or a whole body if `shared` is empty, decoded and admitted.

    Args:
        now_us: when it was received first: by that its times are corrected.

    Raises:
        InvalidEvent: as `decode_batch`.
    """
    if not shared:
        return decode_items(raw, now_us, source=source)
    said = msgspec.json.decode(shared, type=_Shared)
    envelope = _Envelope(Raw(b"[]"), said.sent_at, said.context)
    return _admit_each([_decode_item(raw)], envelope, now_us, source)


def decode_mappings(items: Iterable[Any], now_us: int, *, source: str | None = None) -> list[Event | Rejected]:
    """Admit Python mappings (Segment's names, or ours in snake_case) and `Event`s, one by one."""
    return _admit_each(map(_from_mapping, items), _NO_ENVELOPE, now_us, source)


def _from_mapping(item: Any) -> Event | Rejected:
    if isinstance(item, Event):  # a copy, checked as any other: the caller may hand the same one in again
        item = msgspec.structs.asdict(item)
    if not isinstance(item, Mapping):  # what untyped callers may give
        return Rejected(f"an event must be a mapping, not {type(item).__name__}")
    try:
        return _decode_item(bytes(encode_object("event", {_wire_name(key): value for key, value in item.items()})))
    except InvalidEvent as error:
        return Rejected(error.reason)


def _wire_name(key: str) -> str:
    return _WIRE_NAMES.get(key, key)


_WIRE_NAMES = dict(zip(Event.__struct_fields__, Event.__struct_encode_fields__, strict=True))


def _is_lines(lines: list[bytes]) -> bool:
    """Whether a body is NDJSON rather than one object over several lines, however bad single lines are."""
    filled = [line for line in map(bytes.lstrip, lines) if line]
    if len(filled) < 2:  # noqa: PLR2004 - one line is one object
        return False
    if filled[0][:1] != b"{":
        return any(line[:1] == b"{" for line in filled)
    return split(filled[0]) is not None or all(line[:1] == b"{" for line in filled)


def _read_envelope(text: bytes) -> _Envelope | None:
    try:
        return msgspec.json.decode(text, type=_Envelope)
    except _UNREADABLE:
        pass  # one bad item must not spoil the others: the envelope is taken apart
    found = (_MEMBER.match(member) for member in split(text) or [])
    members = {member[1]: member[2] for member in found if member is not None}
    if b"batch" not in members:
        return None
    rest = b",".join(b'"%s":%s' % (name, members[name]) for name in (b"sentAt", b"context") if name in members)
    try:
        envelope = msgspec.json.decode(b'{"batch":[]%s}' % (rest and b"," + rest), type=_Envelope)
    except _UNREADABLE as error:
        raise InvalidEvent(f"what the batch says of all its events cannot be read: {error}") from None
    envelope.batch = Raw(members[b"batch"])
    return envelope


_MEMBER = re.compile(rb'\s*"([^"\\]*)"\s*:\s*(.*)', re.DOTALL)


def _decode_array(text: bytes) -> list[Event | Rejected]:
    try:
        text.decode()
        return [_with_numbers(event) for event in _events.decode(text)]
    except _UNREADABLE:
        items = split(text) if text[:1] == b"[" else None
        if items is None:
            reason = "the body is not a JSON array of events: it is cut short or not balanced"
            raise InvalidEvent(reason) from None
        return [_decode_item(item) for item in items]


def _decode_item(text: bytes) -> Event | Rejected:
    if len(text) > _MAX_ITEM_BYTES:
        return Rejected(f"event has {len(text)} bytes, the limit is {MAX_EVENT_BYTES}")
    try:
        text.decode()
        return _with_numbers(_event.decode(text))
    except UnicodeDecodeError as error:
        return Rejected(f"event is not valid UTF-8: {error.reason} at byte {error.start}")
    except RecursionError:
        return Rejected("event is nested too deep")
    except msgspec.ValidationError as error:
        return Rejected(f"event has a field of the wrong type: {error}", _message_id(text))
    except msgspec.DecodeError as error:
        reason = "a lone surrogate" if _LONE_SURROGATE.search(text) else str(error)
        return Rejected(f"event is not valid JSON: {reason}", _message_id(text))


def _with_numbers(event: Event) -> Event | Rejected:
    """The event, if each number that is stored of it can be read. All else was checked when it was decoded."""
    try:
        _any.decode(event.traits if event.type in ("identify", "group") else event.properties)
        _any.decode(event.context)
    except _UNREADABLE as error:
        return Rejected(f"event is not valid JSON: {error}", event.message_id)
    return event


_LONE_SURROGATE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)


def _message_id(text: bytes) -> str | None:
    try:
        return msgspec.json.decode(text, type=_Identified).message_id
    except _UNREADABLE:
        return None


def _admit_each(
    items: Iterable[Event | Rejected], envelope: _Envelope, now_us: int, source: str | None
) -> list[Event | Rejected]:
    context = bytes(envelope.context)
    try:
        shared = _read_context(context) if context != b"{}" else {}
    except InvalidEvent as error:
        return [item if isinstance(item, Rejected) else Rejected(error.reason, item.message_id) for item in items]
    return [
        item if isinstance(item, Rejected) else _admitted(item, envelope.sent_at, shared, now_us, source)
        for item in items
    ]


def _admitted(
    item: Event, sent_at: str | float | None, context: dict[str, Any], now_us: int, source: str | None
) -> Event | Rejected:
    if item.sent_at is None:
        item.sent_at = sent_at
    if item.source is None:
        item.source = source
    try:
        if context:
            item.context = Raw(msgspec.json.encode(context | _read_context(bytes(item.context))))
        admit(item, now_us)
    except InvalidEvent as error:
        return Rejected(error.reason, item.message_id)
    return item


def _read_context(raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_EVENT_BYTES:
        raise InvalidEvent(f"context has {len(raw)} bytes, the limit of an event is {MAX_EVENT_BYTES}")
    try:
        raw.decode()
        found = _any.decode(raw or b"null")
    except _UNREADABLE as error:
        raise InvalidEvent(f"context cannot be read: {error}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidEvent("context must be a JSON object")
    return found
