"""Values as Cap'n Web writes them: JSON, where each array is a tagged value or, wrapped once more, a list.

A *faithful* peer is another Lakebed: it also gets what JavaScript has no type for (decimals, days, microseconds, whole
results and our own structs), and may name arguments.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import decimal
import math
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import msgspec

from lakebed.clock import from_us, to_us
from lakebed.query.result import Result, Row
from lakebed.rpc.calls import Step
from lakebed.rpc.capnweb.errors import Fault, ProtocolError, Tell, TooLarge, Unsupported, raised
from lakebed.rpc.capnweb.exported_object import Target
from lakebed.rpc.capnweb.limits import Limits

__all__ = ["Encoder", "Named", "Pointer", "Reader"]

_SAFE = 2**53 - 1  # integers that JavaScript holds exactly
_EPOCH = dt.date(1970, 1, 1)
_MICROSECOND = dt.timedelta(microseconds=1)
_PLAIN = (type(None), bool)
_STREAMS = frozenset({"readable", "writable", "blob", "request", "response"})


class Named(dict[str, Any]):
    """Arguments by name, as a faithful peer sends them: the last argument of a call."""


class Pointer(msgspec.Struct, frozen=True):
    """In what is sent: a value that the peer already has, or will have, and a path into it."""

    number: int
    path: tuple[Step, ...] = ()


class Encoder:
    """Writes one value for a peer.

    Args:
        export: gives the id under which an object of ours is sent by reference.
        own: gives the id of what is the peer's own, or None.
        tell: what an error says.
        faithful: whether the peer is a Lakebed.
        size: values and characters at the most.
        depth: levels at the most.
    """

    def __init__(
        self,
        export: Callable[[Target], int],
        own: Callable[[Any], list[Any] | None],
        tell: Tell,
        *,
        faithful: bool,
        limits: Limits,
    ) -> None:
        self._export = export
        self._own = own
        self._tell = tell
        self._faithful = faithful
        self._left = limits.result_size
        self._limits = limits

    def write(self, value: Any, depth: int = 0) -> Any:  # noqa: PLR0911 - one return a type
        """`value` as an expression.

        Raises:
            TooLarge: it passes the limit of size or of depth.
            TypeError: it has no expression.
        """
        self._spend(1)
        if depth > self._limits.depth:
            raise TooLarge(f"a value with more than {self._limits.depth} levels cannot be sent")
        if isinstance(value, _PLAIN):
            return value
        if isinstance(value, str):
            self._spend(len(value))
            return str(value.value) if isinstance(value, Enum) else value
        if isinstance(value, (int, float)):
            return _number(value)
        if isinstance(value, Mapping):
            return {str(key): self.write(item, depth + 1) for key, item in value.items()}
        if isinstance(value, Row):
            return self._row(value, depth)
        if isinstance(value, (list, tuple, set, frozenset)):
            items = [self.write(item, depth + 1) for item in value]
            return ["tuple", items] if self._faithful and isinstance(value, tuple) else [items]
        return self._rare(value, depth)

    def _rare(self, value: Any, depth: int) -> Any:  # noqa: C901, PLR0911 - one return a type
        if isinstance(value, (dt.date, dt.timedelta)):  # datetimes are dates too
            return self._time(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            self._spend(len(value))
            return ["bytes", base64.b64encode(value).decode().rstrip("=")]
        if isinstance(value, Result):
            return self._result(value, depth)
        if isinstance(value, msgspec.Raw):
            return value
        if isinstance(value, Pointer):
            return ["pipeline", value.number, list(value.path)] if value.path else ["pipeline", value.number]
        if isinstance(value, msgspec.Struct):
            fields = {name: self.write(getattr(value, name), depth + 1) for name in value.__struct_fields__}
            return ["struct", type(value).__name__, fields] if self._faithful else fields
        if isinstance(value, decimal.Decimal):
            return ["decimal", str(value)] if self._faithful else f"{value:f}"
        if isinstance(value, Target):
            return ["export", self._export(value)]
        if isinstance(value, BaseException):
            return self.fault(self._tell(value), depth)
        if isinstance(value, (UUID, PurePath, dt.time)):
            return str(value)
        own = self._own(value)
        if own is not None:
            return own
        if callable(value):
            return ["export", self._export(Target("a function", function=value))]
        raise TypeError(f"a {type(value).__name__} cannot be sent")

    def fault(self, fault: Fault, depth: int = 0) -> list[Any]:
        """A fault as an expression."""
        properties = {name: self.write(fact, depth + 1) for name, fact in fault.properties.items()}
        return ["error", fault.name, fault.message, None, properties]

    def _row(self, row: Row, depth: int) -> Any:
        fields = row._asdict()
        if self._faithful and len(fields) == len(row):
            return ["row", {name: self.write(item, depth + 1) for name, item in fields.items()}]
        return {name: self.write(item, depth + 1) for name, item in fields.items()}

    def _result(self, result: Result, depth: int) -> Any:
        if not self._faithful:
            return [[self._row(row, depth + 1) for row in result if self._spend(1 + len(row))]]
        table = result.arrow()
        self._spend(table.nbytes)
        facts = (result.tiers, result.seq, result.elapsed_ms, result.watermark, result.as_of, result.report)
        return ["result", base64.b64encode(_arrow_bytes(table)).decode(), self.write(list(facts), depth + 1)]

    def _time(self, value: dt.date | dt.timedelta) -> Any:
        if isinstance(value, dt.timedelta):
            return ["duration", value // _MICROSECOND] if self._faithful else value.total_seconds()
        if isinstance(value, dt.datetime):
            aware = value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
            return ["instant", to_us(aware)] if self._faithful else ["date", to_us(aware) / 1000]
        if self._faithful:
            return ["day", value.isoformat()]
        return ["date", (value - _EPOCH).days * 86_400_000]

    def _spend(self, amount: int) -> bool:
        self._left -= amount
        if self._left < 0:
            raise TooLarge(f"a value has more than {self._limits.result_size} values and characters: ask for less")
        return True


def _number(value: float) -> Any:
    if isinstance(value, int):
        return value if -_SAFE <= value <= _SAFE else ["bigint", str(int(value))]
    if math.isfinite(value):
        return float(value)
    return ["nan"] if math.isnan(value) else ["inf"] if value > 0 else ["-inf"]


def _arrow_bytes(table: Any) -> bytes:
    import pyarrow as pa  # beside its use

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _arrow_table(data: bytes) -> Any:
    import pyarrow as pa  # beside its use

    with pa.ipc.open_stream(data) as reader:
        return reader.read_all()


class Reader:
    """Reads tagged values. References between values are not its part: it knows the ids of nothing.

    Args:
        limits: of depth and digits.
        trusting: whether results and structs of a Lakebed server may come, and are made again.
        structs: the structs that are made again, by name; others become rows.
    """

    def __init__(
        self, limits: Limits, *, trusting: bool = False, structs: Mapping[str, type[Any]] | None = None
    ) -> None:
        self._limits = limits
        self._trusting = trusting
        self._structs = structs or {}

    def tagged(self, parts: list[Any], read: Callable[[Any], Any]) -> Any:  # noqa: C901, PLR0911 - one a tag
        """The value of `[tag, …]`; `read` reads expressions in it.

        Raises:
            ProtocolError: the tag is unknown, or what follows does not fit it.
            Unsupported: it is a kind of value that Lakebed does not take.
        """
        match parts:
            case ["undefined"]:
                return None
            case ["inf"] | ["-inf"] | ["nan"]:
                return float(parts[0])
            case ["date", None]:
                return None
            case ["date", int() | float() as milliseconds]:
                return _instant(milliseconds * 1000)
            case ["bigint", str() as digits]:
                return self._bigint(digits)
            case ["bytes", str() as text] | ["bytes", str() as text, str()]:
                return _unbase64(text)
            case ["url", str() as text]:
                return text
            case ["headers", list() as pairs]:
                return [list(pair) if isinstance(pair, list) else pair for pair in pairs]
            case ["error", str() as name, str() as message, *rest]:
                return self._error(name, message, rest, read)
            case [str() as tag, *_] if tag in _STREAMS:
                raise Unsupported(f"{tag} values are not taken here: send text, bytes or lists")
        return self._ours(parts, read)

    def _ours(self, parts: list[Any], read: Callable[[Any], Any]) -> Any:  # noqa: C901, PLR0911 - one a tag
        match parts:
            case ["decimal", str() as text] if len(text) <= self._limits.digits:
                try:
                    return decimal.Decimal(text)
                except decimal.InvalidOperation:
                    raise ProtocolError("a decimal that is no number") from None
            case ["day", str() as text]:
                return _day(text)
            case ["instant", int() as microseconds]:
                return _instant(microseconds)
            case ["duration", int() as microseconds] if abs(microseconds) < 1 << 60:
                return dt.timedelta(microseconds=microseconds)
            case ["tuple", list() as items]:
                return tuple([read(item) for item in items])
            case ["named", dict() as arguments]:
                return Named({name: read(value) for name, value in arguments.items()})
            case ["row", dict() as fields] if self._trusting:
                return _as_row({name: read(value) for name, value in fields.items()})
            case ["struct", str() as name, dict() as fields] if self._trusting:
                return self._struct(name, {key: read(value) for key, value in fields.items()})
            case ["result", str() as data, facts] if self._trusting:
                tiers, seq, elapsed_ms, watermark, as_of, *report = read(facts)
                return Result(
                    _arrow_table(_unbase64(data)),
                    tiers=tuple(tiers),
                    seq=tuple(seq),
                    elapsed_ms=elapsed_ms,
                    watermark=watermark,
                    as_of_us=None if as_of is None else to_us(as_of),
                    report=str(report[0]) if report else "",  # a peer of an earlier version says none
                )
        raise ProtocolError(f"an array that is no expression: {str(parts)[:60]}; lists are wrapped once more: [[…]]")

    def _bigint(self, digits: str) -> int:
        if len(digits) > self._limits.digits:
            raise ProtocolError(f"a bigint has more than {self._limits.digits} digits")
        if not digits.isascii() or not digits.removeprefix("-").isdecimal():
            raise ProtocolError("a bigint that is no number")
        return int(digits)

    def _error(self, name: str, message: str, rest: list[Any], read: Callable[[Any], Any]) -> Exception:
        found = rest[1] if len(rest) > 1 and isinstance(rest[1], dict) else {}
        facts = {str(key): read(value) for key, value in found.items()} if self._trusting else {}
        return raised(Fault(name, message[:2000], {"type": name} | facts))

    def _struct(self, name: str, fields: dict[str, Any]) -> Any:
        kind = self._structs.get(name)
        if kind is not None and set(kind.__struct_fields__) == fields.keys():
            return kind(**fields)
        return _as_row(fields)  # of another version, or of a class that is not known here


def _as_row(fields: Mapping[str, Any]) -> Row:
    return Row({name: position for position, name in enumerate(fields)}, tuple(fields.values()))


def _instant(microseconds: float) -> dt.datetime:
    try:
        return from_us(round(microseconds))
    except (OverflowError, ValueError, OSError):
        raise ProtocolError("a date outside the years 1 to 9999") from None


def _day(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise ProtocolError("a day that is no date") from None


def _unbase64(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ProtocolError("bytes that are not base64") from None
