"""An event: its struct, its receipt, its limits and its Arrow schema. Data only; `validation.py` has the rules.

The wire names are Segment's (`userId`, `messageId` …); a batch of JSON bytes is decoded straight into `Event` structs.
"""

from __future__ import annotations

from typing import Literal

import msgspec
import pyarrow as pa
from msgspec import Raw

from lakebed.clock import DAY_US

__all__ = [
    "BASE_COLUMNS",
    "EMPTY",
    "MAX_AHEAD_US",
    "MAX_DEPTH",
    "MAX_EVENT_BYTES",
    "MAX_ID",
    "MAX_MESSAGE_ID",
    "MAX_NAME",
    "OPERATOR",
    "SCHEMA",
    "TIME",
    "TYPES",
    "Event",
    "Receipt",
]

TYPES = ("track", "page", "screen", "identify", "group", "alias")
MAX_NAME = 200
MAX_ID = 256
MAX_MESSAGE_ID = 100
MAX_DEPTH = 32
MAX_EVENT_BYTES = 32 * 1024
MAX_AHEAD_US = DAY_US
TIME = pa.timestamp("us", tz="UTC")
OPERATOR = "lakebed:operator"  # the source of events that Lakebed itself writes; clients cannot use it


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
        _field(9, "timestamp", TIME, nullable=False),
        _field(10, "received_at", TIME, nullable=False),
        _field(11, "source", pa.string()),
        _field(12, "properties", pa.string(), nullable=False),
        _field(13, "context", pa.string(), nullable=False),
    ]
)
BASE_COLUMNS = tuple(SCHEMA.names)

EMPTY = Raw(b"{}")


class Event(msgspec.Struct, rename="camel", gc=False, kw_only=True):
    """One Segment-style message. `validate` changes an event, in place, to the form that the log stores.

    Attributes:
        type: one of `TYPES`.
        event: the track name; `validate` puts the page or screen name here too.
        user_id: known id, at most 256 characters; numbers become text. The same holds for the other ids.
        timestamp: time of the event: ISO 8601 text, epoch seconds or milliseconds; after `validate`, microseconds or
            None (None becomes `received_at`).
        sent_at: the client's clock at sending; with it, `timestamp` is corrected for the client's clock skew.
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
    properties: Raw = EMPTY
    traits: Raw = EMPTY
    context: Raw = EMPTY


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """The outcome of one event.

    Attributes:
        seq: the event's position in the log; for a duplicate, the position of the repeated event; None if rejected.
        message_id: the id that the client gave, or that Lakebed generated.
        status: "stored" and "duplicate" are durable; "rejected" stored nothing.
        reason: the reason of a rejection, else None.
    """

    seq: int | None
    message_id: str | None
    status: Literal["stored", "duplicate", "rejected"]
    reason: str | None = None
