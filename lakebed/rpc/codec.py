"""LakebedCodec: writes and reads Lakebed's errors, results, rows and structs as expressions of Cap'n Web."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from lakebed import errors
from lakebed.clock import to_us
from lakebed.errors import Backpressure, InvalidEvent, LakebedError, LogCorrupted, NotReachable, Unreachable
from lakebed.interface.signature import snake
from lakebed.query.result import Result, Row
from lakebed.rpc.capnweb.codec import Codec, Step, Writer, position
from lakebed.rpc.capnweb.errors import CALLER_ERRORS, MAX_MESSAGE, Fault, ProtocolError, javascript_class
from lakebed.rpc.capnweb.values import from_base64

__all__ = ["LakebedCodec"]

_ERRORS = {name: getattr(errors, name) for name in errors.__all__}
_RESULT_MEMBERS = frozenset({"as_of", "columns", "elapsed_ms", "rows", "scalar", "seq", "tiers", "watermark"})
# Names that earlier servers send, and the classes that they are now.
_FORMER_NAMES = {
    "ArchiveShelf": "ArchiveStatus",
    "CounterShelf": "CounterStatus",
    "DiskShelf": "DiskStatus",
    "Inventory": "TierStatus",
    "LogShelf": "LogStatus",
    "Pulse": "LiveSnapshot",
    "Snap": "SnapshotInfo",
    "Tally": "LifetimeCounts",
    "UnknownLetter": "UnknownDeadLetter",
    "Vitals": "Health",
}


class LakebedCodec(Codec):
    """Adds Lakebed's values and errors to a session.

    Args:
        trusting: whether the peer is a server that this side chose: its results, rows, structs and facts are read.
        structs: classes of structs by name. Received structs of other classes become rows.
    """

    sequences = (list, tuple, Result)
    not_reachable = NotReachable
    unreachable = Unreachable
    overloaded = Backpressure

    def __init__(self, *, trusting: bool = False, structs: Mapping[str, type[Any]] | None = None) -> None:
        self.trusting = trusting
        self._structs = structs if structs is not None else {}

    def fault(self, error: BaseException) -> Fault:
        """As `Codec.fault`: the fault of a LakebedError has its message, hint and facts."""
        if isinstance(error, LakebedError):
            facts = {key: fact for key, fact in error.facts.items() if isinstance(fact, (str, int, float, bool))}
            hint = {"hint": error.hint} if error.hint else {}
            properties = facts | hint | {"type": type(error).__name__}
            return Fault(javascript_class(error), error.message[:MAX_MESSAGE], properties)
        fault = Fault.of(error)
        if "code" in fault.properties:  # an inner error: its message stays here
            return Fault(fault.name, fault.message, fault.properties | {"type": "LakebedError"})
        return fault

    def exception(self, fault: Fault) -> Exception:
        """As `Codec.exception`: an error of the class that the fault names, with its facts; else a LakebedError."""
        facts = dict(fault.properties)
        name, hint = str(facts.pop("type", "")), str(facts.pop("hint", ""))
        if name in CALLER_ERRORS:
            return CALLER_ERRORS[name](fault.message)
        kind: type[LakebedError] = _ERRORS.get(_FORMER_NAMES.get(name, name), LakebedError)
        facts = {key: fact for key, fact in facts.items() if key not in ("message", "self")}
        if issubclass(kind, (InvalidEvent, LogCorrupted)):  # their constructors make the message
            error = kind.__new__(kind)
            LakebedError.__init__(error, fault.message, hint=hint, **facts)
            return error
        return kind(fault.message, hint=hint, **facts)

    def write(self, value: Any, encoder: Writer, depth: int) -> Any:
        """As `Codec.write`: a faithful peer gets results, rows and structs with their types; others get objects."""
        if isinstance(value, Row):
            return _row(value, encoder, depth)
        if isinstance(value, Result):
            if encoder.faithful:
                return _result(value, encoder, depth)
            return [[_counted_row(row, encoder, depth + 1) for row in value]]
        if isinstance(value, msgspec.Struct) and encoder.faithful:
            fields = {name: encoder.write(getattr(value, name), depth + 1) for name in value.__struct_fields__}
            return ["struct", type(value).__name__, fields]
        return NotImplemented

    def read(self, parts: list[Any], read: Callable[[Any], Any]) -> Any:
        """As `Codec.read`: reads rows, structs and results, if the peer is trusted."""
        if not self.trusting:
            return NotImplemented
        match parts:
            case ["row", dict() as fields]:
                return _as_row({name: read(value) for name, value in fields.items()})
            case ["struct", str() as name, dict() as fields]:
                return self._struct(name, {key: read(value) for key, value in fields.items()})
            case ["result", str() as data, facts]:
                tiers, seq, elapsed_ms, watermark, as_of, *report = read(facts)
                return Result(
                    _arrow_table(from_base64(data)),
                    tiers=tuple(tiers),
                    seq=tuple(seq),
                    elapsed_ms=elapsed_ms,
                    watermark=watermark,
                    as_of_us=None if as_of is None else to_us(as_of),
                    report=str(report[0]) if report else "",  # servers of an earlier version do not send it
                )
        return NotImplemented

    def _struct(self, name: str, fields: dict[str, Any]) -> Any:
        kind = self._structs.get(name) or self._structs.get(_FORMER_NAMES.get(name, ""))
        if kind is not None and set(kind.__struct_fields__) == fields.keys():
            return kind(**fields)
        return _as_row(fields)  # of another version, or of a class that is not known here

    def member(self, value: Any, step: Step) -> Any:
        """As `Codec.member`: also elements and members of results and rows. Names may be in camelCase."""
        if isinstance(value, (Result, Row)):
            index = position(step)
            if index is not None:
                return value[index]
            if isinstance(value, Row) and step in (columns := value._asdict()):
                return columns[str(step)]
            if isinstance(value, Result) and snake(str(step)) in _RESULT_MEMBERS:
                return getattr(value, snake(str(step)))
        if isinstance(value, msgspec.Struct) and isinstance(step, str):
            step = snake(step)
        return super().member(value, step)

    def own_size(self, value: Any, values: list[Any]) -> int:
        """As `Codec.own_size`: the bytes of a Result's table; 0 for a Row, whose values are appended to `values`."""
        if isinstance(value, Row):
            values.extend(value)
        return int(value.arrow().nbytes) if isinstance(value, Result) else 0


def _row(row: Row, encoder: Writer, depth: int) -> Any:
    columns = row._asdict()
    fields = {name: encoder.write(item, depth + 1) for name, item in columns.items()}
    return ["row", fields] if encoder.faithful and len(columns) == len(row) else fields


def _counted_row(row: Row, encoder: Writer, depth: int) -> Any:
    encoder.spend(1 + len(row))
    return _row(row, encoder, depth)


def _result(result: Result, encoder: Writer, depth: int) -> list[Any]:
    import pyarrow as pa

    table = result.arrow()
    encoder.spend(table.nbytes)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    facts = [result.tiers, result.seq, result.elapsed_ms, result.watermark, result.as_of, result.report]
    return ["result", base64.b64encode(sink.getvalue()).decode(), encoder.write(facts, depth + 1)]


def _arrow_table(data: bytes) -> Any:
    import pyarrow as pa

    try:
        with pa.ipc.open_stream(data) as reader:
            return reader.read_all()
    except pa.ArrowInvalid as error:
        raise ProtocolError(f"a result must be an Arrow stream: {error}") from None


def _as_row(fields: Mapping[str, Any]) -> Row:
    return Row({name: index for index, name in enumerate(fields)}, tuple(fields.values()))
