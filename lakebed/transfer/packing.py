"""Packing: makes the log's input of rows: a JSON array of events, each with an id that is equal in every import."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from lakebed.events.event import Event
from lakebed.transfer.mapping import RowMapping
from lakebed.transfer.source import Chain, Chunk, Source, parse_access_log

__all__ = ["PackedRows", "Packer"]

_encode = msgspec.json.Encoder().encode
_any = msgspec.json.Decoder()


class _Row(Event, omit_defaults=True):
    """An event as its client sent it; fields that it lacks are left out of the JSON."""


_row = msgspec.json.Decoder(_Row)


class PackedRows(msgspec.Struct, frozen=True):
    """A chunk, ready for the log.

    Attributes:
        ids: the message ids of the events.
        positions: the row of each event, counted in the chunk.
        refused: the reason for each row that is not an event, by row.
        rows: the number of rows, without blank lines.
        items: the JSON of each event, in the order of the rows; None if `body` has it.
        body: the JSON array of all events, if `items` is None.
    """

    ids: Sequence[str]
    positions: Sequence[int]
    refused: dict[int, str]
    rows: int
    items: Sequence[bytes] | None = None
    body: bytes = b""

    def sent(self, known: frozenset[str]) -> tuple[bytes, Sequence[int]]:
        """The JSON array without the events that have a `known` id, and the row of each event in the array."""
        if self.items is None and not known:
            return self.body, self.positions
        items = self.items if self.items is not None else [_encode(event) for event in _any.decode(self.body)]
        new = [n for n, message_id in enumerate(self.ids) if message_id not in known]
        return b"[" + b",".join(items[n] for n in new) + b"]", [self.positions[n] for n in new]


class Packer:
    """Makes packed rows of the chunks of one source, in their order."""

    def __init__(self, source: Source, mapping: RowMapping, chain: Chain) -> None:
        self._source = source
        self._mapping = mapping
        self._chain = chain
        self._required = False
        self._events: Callable[[Chunk], Sequence[dict[str, Any] | str]] | None = None
        if source.format == "apache":
            self._events = lambda chunk: [self._of_line(raw) for raw in chunk.raws]
        elif source.format != "ndjson" or mapping.is_given:
            self._events = lambda chunk: [self._of_row(row) for row in self._rows(chunk)]

    def pack(self, chunk: Chunk) -> PackedRows:
        """The packed rows of `chunk`."""
        if self._events is not None:
            return self._mapped(chunk, self._events(chunk))
        try:
            return self._as_sent(chunk, _row.decode_lines(b"".join(chunk.raws)))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return self._mapped(chunk, [self._of_sent(raw) for raw in chunk.raws])

    def _as_sent(self, chunk: Chunk, events: list[_Row]) -> PackedRows:
        """The packed rows of a chunk whose events are all valid in Segment's form."""
        for event in events:
            _settle(event)
        positions: Sequence[int] = range(len(chunk))
        if len(events) != len(chunk):
            positions = [n for n, raw in enumerate(chunk.raws) if raw.strip()]
        if any(event.message_id is None for event in events):
            ids = self._chain.ids(chunk.raws)
            for n, event in zip(positions, events, strict=True):
                event.message_id = event.message_id or ids[n]
        else:
            self._chain.skip(b"".join(chunk.raws))
        message_ids = [event.message_id or "" for event in events]
        return PackedRows(message_ids, positions, {}, len(positions), body=_encode(events))

    def _mapped(self, chunk: Chunk, events: Sequence[dict[str, Any] | str]) -> PackedRows:
        """The packed rows of events made one by one. A text in `events` says why a row is no event; "": it is blank."""
        row_ids = self._chain.ids(chunk.raws)
        ids: list[str] = []
        positions: list[int] = []
        items: list[bytes] = []
        refused: dict[int, str] = {}
        for n, event in enumerate(events):
            if isinstance(event, str):
                refused |= {n: event} if event else {}
                continue
            event.setdefault("messageId", row_ids[n])
            try:
                items.append(_encode(event))
            except (ValueError, TypeError, OverflowError, RecursionError) as error:
                refused[n] = f"cannot be written as JSON: {error}"
                continue
            ids.append(event["messageId"])
            positions.append(n)
        return PackedRows(ids, positions, refused, len(positions) + len(refused), items)

    def _of_sent(self, raw: bytes) -> dict[str, Any] | str:
        """The event of one line in Segment's form, or the reason why the line is no event; empty if blank."""
        if not raw.strip():
            return ""
        try:
            event = _row.decode(raw)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            return f"is not an event: {error}"
        _settle(event)
        fields: dict[str, Any] = msgspec.structs.asdict(event)
        return {
            wire: fields[name]
            for name, wire in zip(event.__struct_fields__, event.__struct_encode_fields__, strict=True)
            if fields[name] is not None
            and bytes(fields[name] if isinstance(fields[name], msgspec.Raw) else b"") != b"{}"
        }

    def _rows(self, chunk: Chunk) -> Sequence[dict[str, Any] | str]:
        if self._source.format == "ndjson":
            return [_object(raw) for raw in chunk.raws]
        columns = self._source.columns
        if not self._required:
            self._mapping.require(columns)
            self._required = True
        if self._source.format == "parquet":
            return chunk.values or ()
        return [
            dict(zip(columns, row, strict=True))
            if len(row) == len(columns)
            else (f"has {len(row)} cells, and the first line names {len(columns)}" if row else "")
            for row in chunk.values or ()
        ]

    def _of_row(self, row: dict[str, Any] | str) -> dict[str, Any] | str:
        if isinstance(row, str):
            return row
        try:
            return self._mapping.event(row)
        except (ValueError, OverflowError, TypeError, OSError) as error:  # OSError: the platform has no such time
            return str(error)

    def _of_line(self, raw: bytes) -> dict[str, Any] | str:
        if not raw.strip():
            return ""
        try:
            event = parse_access_log(raw.decode("utf-8", "backslashreplace"))
        except ValueError as error:
            return str(error)
        event["event"], event["type"] = self._mapping.event_name or "Request", self._mapping.kind or "track"
        return event


def _settle(event: _Row) -> None:
    """Leave the event's time as it is: an archive has corrected times, and a second correction would move them."""
    event.sent_at = None
    if event.timestamp is not None:
        event.original_timestamp = None


def _object(raw: bytes) -> dict[str, Any] | str:
    if not raw.strip():
        return ""
    try:
        raw.decode()
        value = _any.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        return f"is not JSON: {error}"
    return value if isinstance(value, dict) else "is not a JSON object"
