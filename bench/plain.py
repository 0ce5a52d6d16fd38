"""The unavoidable part of taking events: JSON to structs to Arrow, and nothing else. Shares no code with Lakebed.

Floors stop at `arrow`; peers that need right answers also have `settled` times, names and traits.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence

import msgspec
import pyarrow as pa
from msgspec import Raw

_EMPTY = Raw(b"{}")
_TIME = pa.timestamp("us", tz="UTC")


class Message(msgspec.Struct, rename="camel", gc=False):
    """What a client sent, objects left as text."""

    type: str = "track"
    event: str | None = None
    name: str | None = None
    user_id: str | None = None
    anonymous_id: str | None = None
    group_id: str | None = None
    session_id: str | None = None
    message_id: str | None = None
    timestamp: str | None = None
    source: str | None = None
    properties: Raw = _EMPTY
    traits: Raw = _EMPTY
    context: Raw = _EMPTY


_decoder = msgspec.json.Decoder(list[Message])
_TEXTS = ("message_id", "type", "event", "user_id", "anonymous_id", "group_id", "session_id")
_row = operator.attrgetter(*_TEXTS, "timestamp", "source", "properties", "context")
NAMES = ("seq", *_TEXTS, "timestamp", "received_at", "source", "properties", "context")

decode = _decoder.decode


def settle(messages: Sequence[Message]) -> Sequence[Message]:
    """Names and traits where Lakebed puts them, so that peers can answer the same questions."""
    for message in messages:
        if message.type == "page":
            message.event = message.name
        elif message.type == "identify":
            message.properties = message.traits
    return messages


def arrow(messages: Sequence[Message], first_seq: int, received_us: int = 0, *, times: bool = False) -> pa.RecordBatch:
    """The thirteen columns. Without `times` the timestamps are not even read: the floor stays below every parser."""
    count = len(messages)
    *texts, timestamps, source, properties, context = zip(*map(_row, messages), strict=True)
    at = pa.array(timestamps, pa.string()).cast(_TIME) if times else pa.array([0] * count, pa.int64()).view(_TIME)
    columns = [
        pa.array(range(first_seq, first_seq + count), pa.int64()),
        *(pa.array(text, pa.string()) for text in texts),
        at,
        pa.array([received_us] * count, pa.int64()).view(_TIME),
        pa.array(source, pa.string()),
        pa.array(list(map(bytes, properties)), pa.string()),
        pa.array(list(map(bytes, context)), pa.string()),
    ]
    return pa.RecordBatch.from_arrays(columns, names=list(NAMES))


def table(bodies: Sequence[bytes], first_seq: int = 0, received_us: int = 0) -> pa.Table:
    """All events of some batches, settled."""
    batches = []
    for body in bodies:
        messages = settle(decode(body))
        batches.append(arrow(messages, first_seq, received_us, times=True))
        first_seq += len(messages)
    return pa.Table.from_batches(batches)
