"""Writers: Arrow tables as NDJSON, CSV or Parquet, one table after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

import msgspec
import pyarrow as pa

__all__ = ["FORMATS", "writer"]

FORMATS = ("ndjson", "csv", "parquet")
_NAMES = {
    "message_id": "messageId",
    "user_id": "userId",
    "anonymous_id": "anonymousId",
    "group_id": "groupId",
    "session_id": "sessionId",
    "received_at": "receivedAt",
}


@contextmanager
def writer(format_name: str, out: IO[bytes], *, as_events: bool) -> Iterator[Callable[[pa.Table], None]]:
    """A function that writes tables of one schema to `out`, in their order.

    Args:
        format_name: one of `FORMATS`.
        out: the file.
        as_events: whether the rows are events: NDJSON then has Segment's names, and objects instead of JSON text.
    """
    if format_name == "ndjson":
        yield lambda table: _write_lines(table, out, as_events=as_events)
        return
    writers: list[Any] = []  # one writer, made when the schema is known

    def write(table: pa.Table) -> None:
        if not writers:
            writers.append(_writer(format_name, out, table.schema))
        writers[0].write_table(_flat(table) if format_name == "csv" else table)

    yield write
    for made in writers:
        made.close()


def _writer(format_name: str, out: IO[bytes], schema: pa.Schema) -> Any:
    if format_name == "csv":
        from pyarrow import csv

        return csv.CSVWriter(out, _flat(schema.empty_table()).schema)
    import pyarrow.parquet as pq

    return pq.ParquetWriter(out, schema, compression="zstd")


def _flat(table: pa.Table) -> pa.Table:
    """`table` with JSON text in the columns whose types CSV lacks."""
    for index, field in enumerate(table.schema):
        if pa.types.is_nested(field.type) or pa.types.is_binary(field.type):
            texts = [None if value is None else _json(value) for value in table.column(index).to_pylist()]
            table = table.set_column(index, field.name, pa.array(texts, pa.string()))
    return table


def _json(value: Any) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()


def _write_lines(table: pa.Table, out: IO[bytes], *, as_events: bool) -> None:
    rows = table.to_pylist()
    if as_events:
        rows = [_event(row) for row in rows]
    out.write(b"".join(msgspec.json.encode(row, enc_hook=str) + b"\n" for row in rows))


def _event(row: dict[str, Any]) -> dict[str, Any]:
    """The message, in Segment's form, from which a row of `events` was made."""
    message = {_NAMES.get(name, name): value for name, value in row.items() if value is not None}
    kind = row["type"]
    if kind in ("page", "screen") and "event" in message:
        message["name"] = message.pop("event")
    message["context"] = msgspec.Raw(row["context"].encode())
    properties = message.pop("properties").encode()
    if kind == "alias":
        fields = msgspec.json.decode(properties)
        message["previousId"] = fields.pop("previousId", None)
        properties = msgspec.json.encode(fields)
    message["traits" if kind in ("identify", "group") else "properties"] = msgspec.Raw(properties)
    return message
