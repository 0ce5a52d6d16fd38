"""From rows to what the log is handed: one JSON array of events, each with an id that a second import gives again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from lakebed.events.event import Event
from lakebed.transfer import access_logs
from lakebed.transfer.chunk import Chain, Chunk
from lakebed.transfer.mapping import RowMapping
from lakebed.transfer.source import Source

__all__ = ["Packer", "Parcel"]

_encode = msgspec.json.Encoder().encode
_any = msgspec.json.Decoder()


class _Row(Event, omit_defaults=True):
    """An event as its client sent it, without what it does not say."""


_row = msgspec.json.Decoder(_Row)


class Parcel(msgspec.Struct, frozen=True):
    """A chunk, ready for the log.

    Attributes:
        items: JSON of each event, in the order of the rows; or all of them encoded, in `body`.
        ids: their message ids.
        at: the row of each, counted in the chunk.
        refused: rows that are no events, and why.
        rows: how many rows there are, without blank lines.
    """

    ids: Sequence[str]
    at: Sequence[int]
    refused: dict[int, str]
    rows: int
    items: Sequence[bytes] | None = None
    body: bytes = b""

    def sent(self, known: frozenset[str]) -> tuple[bytes, Sequence[int]]:
        """The JSON array without the events whose ids are `known`, and the row of each that is in it."""
        if self.items is None and not known:
            return self.body, self.at
        items = self.items if self.items is not None else [_encode(one) for one in _any.decode(self.body)]
        kept = [n for n, message_id in enumerate(self.ids) if message_id not in known]
        return b"[" + b",".join(items[n] for n in kept) + b"]", [self.at[n] for n in kept]


class Packer:
    """Makes parcels of one source's chunks, in their order."""

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

    def pack(self, chunk: Chunk) -> Parcel:
        """The parcel of `chunk`."""
        if self._events is not None:
            return self._mapped(chunk, self._events(chunk))
        try:
            return self._as_sent(chunk, _row.decode_lines(b"".join(chunk.raws)))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return self._mapped(chunk, [self._of_sent(raw) for raw in chunk.raws])

    def _as_sent(self, chunk: Chunk, events: list[_Row]) -> Parcel:
        """Events in Segment's form, all of which can be read."""
        for event in events:
            _settle(event)
        at: Sequence[int] = range(len(chunk))
        if len(events) != len(chunk):
            at = [n for n, raw in enumerate(chunk.raws) if raw.strip()]
        if any(event.message_id is None for event in events):
            ids = self._chain.ids(chunk.raws)
            for n, event in zip(at, events, strict=True):
                event.message_id = event.message_id or ids[n]
        else:
            self._chain.skip(b"".join(chunk.raws))
        message_ids = [event.message_id or "" for event in events]
        return Parcel(message_ids, at, {}, len(at), body=_encode(events))

    def _mapped(self, chunk: Chunk, events: Sequence[dict[str, Any] | str]) -> Parcel:
        """Events made one by one; a text says why there is none, and an empty one that there was no row."""
        row_ids = self._chain.ids(chunk.raws)
        ids: list[str] = []
        at: list[int] = []
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
            at.append(n)
        return Parcel(ids, at, refused, len(at) + len(refused), items)

    def _of_sent(self, raw: bytes) -> dict[str, Any] | str:
        """One line of events in Segment's form, where not all could be read."""
        if not raw.strip():
            return ""
        try:
            event = _row.decode(raw)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            return f"is not an event: {error}"
        _settle(event)
        found: dict[str, Any] = msgspec.structs.asdict(event)
        return {
            wire: found[name]
            for name, wire in zip(event.__struct_fields__, event.__struct_encode_fields__, strict=True)
            if found[name] is not None and bytes(found[name] if isinstance(found[name], msgspec.Raw) else b"") != b"{}"
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
        except (ValueError, OverflowError, TypeError, OSError) as error:  # OSError: a time beyond what the platform has
            return str(error)

    def _of_line(self, raw: bytes) -> dict[str, Any] | str:
        if not raw.strip():
            return ""
        try:
            event = access_logs.parse(raw.decode("utf-8", "backslashreplace"))
        except ValueError as error:
            return str(error)
        event["event"], event["type"] = self._mapping.event_name or "Request", self._mapping.kind or "track"
        return event


def _settle(event: _Row) -> None:
    """Take an event's time as it is.

    An archive has it corrected already; correcting it for a sending of long ago again would move it to now.
    """
    event.sent_at = None
    if event.timestamp is not None:
        event.original_timestamp = None


def _object(raw: bytes) -> dict[str, Any] | str:
    if not raw.strip():
        return ""
    try:
        raw.decode()
        found = _any.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        return f"is not JSON: {error}"
    return found if isinstance(found, dict) else "is not a JSON object"
