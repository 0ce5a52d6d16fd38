"""Request bodies and Python mappings, decoded to validated events, with a reason for each item that is rejected.

JSON bytes are decoded in C into `Event`s, whose objects stay raw text, and validated column by column. If this does not
accept the whole batch, the batch is decoded again, item by item, to find the reason for each rejected item. Text is
split into items without decoding: an item that cannot be decoded does not affect the other items.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from lakebed.errors import InvalidEvent
from lakebed.events.batch import EventBatch
from lakebed.events.batch_validation import validate_batch
from lakebed.events.event import EMPTY, MAX_EVENT_BYTES, Event
from lakebed.events.validation import check_aware, encode_object, validate

__all__ = [
    "DecodedBatch",
    "Rejected",
    "decode_batch",
    "decode_dead_letter",
    "decode_items",
    "decode_mappings",
    "items_as_sent",
]


def split(text: bytes) -> list[bytes] | None:
    """The items of a JSON array, or the members of an object. Returns None if the brackets do not balance or end early.

    Only brackets and strings are examined, so one bad item does not spoil another. `list[Raw]` was rejected: it
    refuses the whole array for one lone surrogate or one deep item.
    """
    depth, items, start, position = 0, [], 0, 0
    while True:
        token = (_INSIDE if depth > 1 else _OUTSIDE).match(text, position)
        kind, position = (token[1], token.end()) if token is not None else (b"", position)
        if kind in (b"[", b"{"):
            depth += 1
            start = position if depth == 1 else start
        elif kind in (b"]", b"}"):
            depth -= 1
        if (kind == b"," and depth == 1) or depth == 0:
            items.append(text[start : position - len(kind)].strip())
            start = position
        if depth == 0 or not kind:
            break
    if depth or text[:1] not in (b"[", b"{") or text[start:].strip():
        return None
    return items if items != [b""] else []


# The next bracket (or comma) outside strings. A string without an end reaches to the end of the text: to try again from
# each of its quotes would cost the square of its length.
_STRING = rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)'
_OUTSIDE = re.compile(rb"(?:[^\"\[\]{},]++|" + _STRING + rb")*+([\[\]{},]|\Z)", re.DOTALL)
_INSIDE = re.compile(rb"(?:[^\"\[\]{}]++|" + _STRING + rb")*+([\[\]{}]|\Z)", re.DOTALL)


class Rejected(msgspec.Struct, frozen=True):
    """An item that is not stored, and the reason. `message_id` is None if the id could not be read."""

    reason: str
    message_id: str | None = None


class DecodedBatch(msgspec.Struct, frozen=True):
    """The items of one request: valid events in order, at most `CHUNK` in each part, and rejected items by position."""

    parts: list[EventBatch | Sequence[Event]]  # a few events become columns later, with other events of the commit
    rejected: dict[int, Rejected]

    def __len__(self) -> int:
        return sum(map(len, self.parts)) + len(self.rejected)

    @classmethod
    def of(cls, items: Sequence[Event | Rejected]) -> DecodedBatch:
        """The batch of items that were validated one by one."""
        events = [item for item in items if isinstance(item, Event)]
        rejected = {index: item for index, item in enumerate(items) if isinstance(item, Rejected)}
        if 0 < len(events) < _FEW:
            return cls([events], rejected)
        return cls([EventBatch.of(chunk) for chunk in _chunks(events)], rejected)


CHUNK = 5_000  # the events of a batch that go to the log at once: bounds a frame, and lets other calls run in between
_FEW = 24  # with fewer events, columns cost more than they save


def _chunks(events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    return (events[start : start + CHUNK] for start in range(0, len(events), CHUNK))


class _Envelope(msgspec.Struct, rename="camel"):
    """Segment's batch body. `sent_at` and `context` are defaults for items without these fields."""

    batch: Raw
    sent_at: str | int | float | None = None
    context: Raw = EMPTY


class _Shared(msgspec.Struct, rename="camel", omit_defaults=True):
    """The fields of an envelope besides its events."""

    sent_at: str | int | float | None = None
    context: Raw = EMPTY


class _DecodedEnvelope(msgspec.Struct, rename="camel"):
    """An envelope in which every event could be decoded."""

    batch: list[Event]
    sent_at: str | int | float | None = None
    context: Raw = EMPTY


class _Identified(msgspec.Struct, rename="camel"):
    message_id: str | None = None


_events = msgspec.json.Decoder(list[Event])
_event = msgspec.json.Decoder(Event)
_decoded_envelope = msgspec.json.Decoder(_DecodedEnvelope)
_json = msgspec.json.Decoder()
_NO_ENVELOPE = _Envelope(batch=Raw(b"[]"))
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_HAS_BATCH = re.compile(rb'^\s*\{.*?"batch"\s*:', re.DOTALL)
# An event has texts beside its objects, each with a limit of its own; a longer item exceeds at least one limit.
_MAX_ITEM_BYTES = 4 * MAX_EVENT_BYTES


def decode_batch(body: bytes, now_us: int, *, source: str | None = None) -> DecodedBatch:
    """Decode and validate a JSON array, a Segment envelope `{"batch": […]}`, one JSON object, or NDJSON lines.

    Args:
        body: the decompressed bytes.
        now_us: the time at which the body was received, microseconds.
        source: the `source` of events that have none.

    Raises:
        InvalidEvent: the body as a whole is unreadable; no event of the body is stored.
    """
    envelope = _decode_whole(body)
    if envelope is not None and len(envelope.batch) >= _FEW:
        chunks = list(_chunks(envelope.batch))
        batches = [validate_batch(chunk, now_us, sent_at=envelope.sent_at, source=source) for chunk in chunks]
        valid: list[EventBatch | Sequence[Event]] = [batch for batch in batches if batch is not None]
        if len(valid) == len(batches):
            return DecodedBatch(valid, {})
    return DecodedBatch.of(decode_items(body, now_us, source=source))


def _decode_whole(body: bytes) -> _DecodedEnvelope | None:
    """The events of a body, or None if an error occurs. Objects of events may still hold numbers that fit no float."""
    text = body.strip()
    try:
        if not text.isascii():
            text.decode()
        if text[:1] == b"[":
            return _DecodedEnvelope(_events.decode(text))
        if _HAS_BATCH.match(text):
            envelope = _decoded_envelope.decode(text)
            return envelope if bytes(envelope.context) in _NO_CONTEXT else None
        return _DecodedEnvelope(_event.decode_lines(text))
    except _UNREADABLE:
        return None


_NO_CONTEXT = (b"{}", b"null")


def decode_items(body: bytes, now_us: int, *, source: str | None = None) -> list[Event | Rejected]:
    """Like `decode_batch`, but item by item: slower, with a reason for each rejected item."""
    text = body.strip()
    envelope = _read_envelope(text) if _HAS_BATCH.match(text) else None
    if envelope is not None:
        items = _decode_array(bytes(envelope.batch))
    elif text[:1] != b"[" and _is_lines(lines := text.splitlines()):
        items = [_decode_item(line) for line in lines if line.strip()]
    else:
        items = _decode_array(b"[" + text + b"]" if text[:1] == b"{" else text)
    return _validate_each(items, envelope or _NO_ENVELOPE, now_us, source)


def items_as_sent(body: bytes) -> tuple[list[bytes], bytes]:
    """The items of a body as they were sent, in the order of `decode_items`, and the shared fields of its envelope.

    The shared fields are a JSON object. An item is the bytes of the sender, without white space around the item.
    """
    text = body.strip()
    envelope = _read_envelope(text) if _HAS_BATCH.match(text) else None
    if envelope is not None:
        shared = msgspec.json.encode(_Shared(envelope.sent_at, envelope.context))
        return split(bytes(envelope.batch)) or [], shared
    if text[:1] != b"[" and _is_lines(lines := text.splitlines()):
        return [line.strip() for line in lines if line.strip()], b"{}"
    return split(b"[" + text + b"]" if text[:1] == b"{" else text) or [], b"{}"


def decode_dead_letter(raw: bytes, shared: bytes, now_us: int, *, source: str | None = None) -> list[Event | Rejected]:
    """One item of `items_as_sent`, or a whole body if `shared` is empty, decoded and validated.

    Args:
        now_us: the time at which the item was first received. The times of its events are corrected with this time.

    Raises:
        InvalidEvent: as in `decode_batch`.
    """
    if not shared:
        return decode_items(raw, now_us, source=source)
    fields = msgspec.json.decode(shared, type=_Shared)
    envelope = _Envelope(Raw(b"[]"), fields.sent_at, fields.context)
    return _validate_each([_decode_item(raw)], envelope, now_us, source)


def decode_mappings(items: Iterable[Any], now_us: int, *, source: str | None = None) -> list[Event | Rejected]:
    """Validate `Event`s and Python mappings (with Segment's names, or Lakebed's in snake_case), one by one."""
    return _validate_each(map(_from_mapping, items), _NO_ENVELOPE, now_us, source)


def _from_mapping(item: Any) -> Event | Rejected:
    if isinstance(item, Event):  # a copy, because validation changes it and the caller may pass the same event again
        item = msgspec.structs.asdict(item)
    if not isinstance(item, Mapping):  # callers without a type checker
        return Rejected(f"an event must be a mapping, not {type(item).__name__}")
    try:
        fields = {_WIRE_NAMES.get(key, key): value for key, value in item.items()}
        for name in _TIMES:
            check_aware(name, fields.get(name))
        return _decode_item(bytes(encode_object("event", fields)))
    except InvalidEvent as error:
        return Rejected(error.reason)


_WIRE_NAMES = dict(zip(Event.__struct_fields__, Event.__struct_encode_fields__, strict=True))
_TIMES = ("timestamp", "originalTimestamp", "sentAt")


def _is_lines(lines: list[bytes]) -> bool:
    """Whether a body is NDJSON, not one object over several lines. Single lines may be invalid."""
    nonempty = [line for line in map(bytes.lstrip, lines) if line]
    if len(nonempty) < 2:  # noqa: PLR2004 - one line is one object
        return False
    if nonempty[0][:1] != b"{":
        return any(line[:1] == b"{" for line in nonempty)
    return split(nonempty[0]) is not None or all(line[:1] == b"{" for line in nonempty)


def _read_envelope(text: bytes) -> _Envelope | None:
    try:
        return msgspec.json.decode(text, type=_Envelope)
    except _UNREADABLE:
        pass  # one bad item must not spoil the others: the envelope is split into its members
    matches = (_MEMBER.match(member) for member in split(text) or [])
    members = {match[1]: match[2] for match in matches if match is not None}
    if b"batch" not in members:
        return None
    rest = b",".join(b'"%s":%s' % (name, members[name]) for name in (b"sentAt", b"context") if name in members)
    try:
        envelope = msgspec.json.decode(b'{"batch":[]%s}' % (rest and b"," + rest), type=_Envelope)
    except _UNREADABLE as error:
        raise InvalidEvent(f"sentAt or context of the batch cannot be read: {error}") from None
    envelope.batch = Raw(members[b"batch"])
    return envelope


_MEMBER = re.compile(rb'\s*"([^"\\]*)"\s*:\s*(.*)', re.DOTALL)


def _decode_array(text: bytes) -> list[Event | Rejected]:
    try:
        text.decode()
        return [_with_finite_numbers(event) for event in _events.decode(text)]
    except _UNREADABLE:
        items = split(text) if text[:1] == b"[" else None
        if items is None:
            reason = "the body is not a JSON array of events: it is truncated or its brackets do not balance"
            raise InvalidEvent(reason) from None
        return [_decode_item(item) for item in items]


def _decode_item(text: bytes) -> Event | Rejected:
    if len(text) > _MAX_ITEM_BYTES:
        return Rejected(f"event has {len(text)} bytes, the limit is {MAX_EVENT_BYTES}")
    try:
        text.decode()
        return _with_finite_numbers(_event.decode(text))
    except UnicodeDecodeError as error:
        return Rejected(f"event is not valid UTF-8: {error.reason} at byte {error.start}")
    except RecursionError:
        return Rejected("event is nested too deep")
    except msgspec.ValidationError as error:
        return Rejected(f"event has a field of the wrong type: {error}", _message_id(text))
    except msgspec.DecodeError as error:
        reason = "a lone surrogate" if _LONE_SURROGATE.search(text) else str(error)
        return Rejected(f"event is not valid JSON: {reason}", _message_id(text))


def _with_finite_numbers(event: Event) -> Event | Rejected:
    """The event, or a `Rejected` if a number in its stored objects fits no float. Decoding has checked all else."""
    try:
        _json.decode(event.traits if event.type in ("identify", "group") else event.properties)
        _json.decode(event.context)
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


def _validate_each(
    items: Iterable[Event | Rejected], envelope: _Envelope, now_us: int, source: str | None
) -> list[Event | Rejected]:
    context = bytes(envelope.context)
    try:
        shared = _read_context(context) if context != b"{}" else {}
    except InvalidEvent as error:
        return [item if isinstance(item, Rejected) else Rejected(error.reason, item.message_id) for item in items]
    return [
        item if isinstance(item, Rejected) else _validated(item, envelope.sent_at, shared, now_us, source)
        for item in items
    ]


def _validated(
    item: Event, sent_at: str | float | None, context: dict[str, Any], now_us: int, source: str | None
) -> Event | Rejected:
    if item.sent_at is None:
        item.sent_at = sent_at
    if item.source is None:
        item.source = source
    try:
        if context:
            item.context = Raw(msgspec.json.encode(context | _read_context(bytes(item.context))))
        validate(item, now_us)
    except InvalidEvent as error:
        return Rejected(error.reason, item.message_id)
    return item


def _read_context(raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_EVENT_BYTES:
        raise InvalidEvent(f"context has {len(raw)} bytes, the limit of an event is {MAX_EVENT_BYTES}")
    try:
        raw.decode()
        context = _json.decode(raw or b"null")
    except _UNREADABLE as error:
        raise InvalidEvent(f"context cannot be read: {error}") from None
    if context is None:
        return {}
    if not isinstance(context, dict):
        raise InvalidEvent("context must be a JSON object")
    return context
