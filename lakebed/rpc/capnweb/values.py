"""Values as Cap'n Web writes them: JSON, where each array is a tagged value or, wrapped once more, a list.

A *faithful* peer is a program like this one: it also gets values for which JavaScript has no type (decimals,
days, microseconds, tuples, and the codec's own types), and may pass arguments by name.
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

from lakebed.rpc.capnweb.codec import Codec, Limits, Step, Target
from lakebed.rpc.capnweb.errors import MAX_MESSAGE, Fault, ProtocolError, TooLarge, Unsupported

__all__ = ["Encoder", "Named", "Pointer", "Reader", "from_base64"]

_SAFE = 2**53 - 1  # integers that JavaScript holds exactly
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_DAY_MS = 86_400_000
_STREAMS = frozenset({"readable", "writable", "blob", "request", "response"})


class Named(dict[str, Any]):
    """Arguments by name. A faithful peer sends them as the last argument of a call."""


class Pointer(msgspec.Struct, frozen=True):
    """Stands in an outgoing value for the value at a path in a result that the peer has or will have."""

    number: int
    path: tuple[Step, ...] = ()


class Encoder:
    """Writes one value for a peer.

    Args:
        codec: types of values and errors that the program adds.
        export: returns the id under which a target is sent by reference.
        own: returns the expression for a value that is a reference to an object of the peer; else None.
        faithful: whether the peer is a program like this one.
        limits: `result_size` and `depth` of the value.
    """

    def __init__(
        self,
        codec: Codec,
        export: Callable[[Target], int],
        own: Callable[[Any], list[Any] | None],
        *,
        faithful: bool,
        limits: Limits,
    ) -> None:
        self.faithful = faithful
        self._codec = codec
        self._export = export
        self._own = own
        self._left = limits.result_size
        self._limits = limits

    def write(self, value: Any, depth: int = 0) -> Any:
        """Write `value` as an expression.

        Raises:
            TooLarge: the value exceeds the limit of size or of depth.
            TypeError: the value cannot be expressed.
        """
        self.spend(1)
        if depth > self._limits.depth:
            raise TooLarge(f"a value with more than {self._limits.depth} levels cannot be sent")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            self.spend(len(value))
            return str(value.value) if isinstance(value, Enum) else value
        if isinstance(value, (int, float)):
            return _number(value)
        if isinstance(value, Mapping):
            return {str(key): self.write(item, depth + 1) for key, item in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            items = [self.write(item, depth + 1) for item in value]
            return ["tuple", items] if self.faithful and isinstance(value, tuple) else [items]
        return self._rare(value, depth)

    def _rare(self, value: Any, depth: int) -> Any:  # noqa: C901, PLR0911 - one return a type
        if isinstance(value, msgspec.Raw):
            return value
        if isinstance(value, Pointer):
            return ["pipeline", value.number, list(value.path)] if value.path else ["pipeline", value.number]
        written = self._codec.write(value, self, depth)
        if written is not NotImplemented:
            return written
        if isinstance(value, (dt.date, dt.timedelta)):  # datetimes are dates too
            return self._time(value)
        if isinstance(value, (bytes, bytearray, memoryview)):
            self.spend(len(value))
            return ["bytes", base64.b64encode(value).decode().rstrip("=")]
        if isinstance(value, msgspec.Struct):
            return {name: self.write(getattr(value, name), depth + 1) for name in value.__struct_fields__}
        if isinstance(value, decimal.Decimal):
            return ["decimal", str(value)] if self.faithful else f"{value:f}"
        if isinstance(value, Target):
            return ["export", self._export(value)]
        if isinstance(value, BaseException):
            return self.fault(value, depth)
        if isinstance(value, (UUID, PurePath, dt.time)):
            return str(value)
        own = self._own(value)
        if own is not None:
            return own
        if callable(value):
            return ["export", self._export(Target("a function", function=value))]
        raise TypeError(f"a {type(value).__name__} cannot be sent")

    def argument(self, value: Any) -> Any:
        """Write an argument of a call as an expression. Raises as `write` does."""
        if isinstance(value, Named):
            return ["named", {name: self.write(item, 1) for name, item in value.items()}]
        return self.write(value)

    def fault(self, error: BaseException, depth: int = 0) -> list[Any]:
        """The fault that the peer gets for an error, as an expression."""
        fault = self._codec.fault(error)
        properties = {name: self.write(fact, depth + 1) for name, fact in fault.properties.items()}
        return ["error", fault.name, fault.message, None, properties]

    def _time(self, value: dt.date | dt.timedelta) -> Any:
        if isinstance(value, dt.timedelta):
            return ["duration", value // _MICROSECOND] if self.faithful else value.total_seconds()
        if isinstance(value, dt.datetime):
            if value.utcoffset() is None:
                raise Unsupported(f"{value!r} has no time zone: give it one, for example tzinfo=UTC")
            microseconds = (value - _EPOCH) // _MICROSECOND
            return ["instant", microseconds] if self.faithful else ["date", microseconds / 1000]
        if self.faithful:
            return ["day", value.isoformat()]
        return ["date", (value - _EPOCH.date()).days * _DAY_MS]

    def spend(self, amount: int) -> None:
        """Count `amount` more values and characters. Raises TooLarge."""
        self._left -= amount
        if self._left < 0:
            raise TooLarge(f"a value has more than {self._limits.result_size} parts and characters: ask for less")


def _number(value: float) -> Any:
    if isinstance(value, int):
        return value if -_SAFE <= value <= _SAFE else ["bigint", str(int(value))]
    if math.isfinite(value):
        return float(value)
    return ["nan"] if math.isnan(value) else ["inf"] if value > 0 else ["-inf"]


class Reader:
    """Reads tagged values. It does not read references, as it knows no ids.

    Args:
        codec: types of values and errors that the program adds.
        limits: `depth` and `digits`.
    """

    def __init__(self, codec: Codec, limits: Limits) -> None:
        self._codec = codec
        self._limits = limits

    def tagged(self, parts: list[Any], read: Callable[[Any], Any]) -> Any:  # noqa: C901, PLR0911 - one a tag
        """Read the tagged value `[tag, …]`. `read` reads the expressions in it.

        Raises:
            ProtocolError: the tag is unknown, or its contents do not fit the tag.
            Unsupported: the kind of value is not supported.
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
                return from_base64(text)
            case ["url", str() as text]:
                return text
            case ["headers", list() as pairs]:
                return [list(pair) if isinstance(pair, list) else pair for pair in pairs]
            case ["error", str() as name, str() as message, *rest]:
                return self._error(name, message, rest, read)
            case [str() as tag, *_] if tag in _STREAMS:
                raise Unsupported(f"{tag} values are not taken here: send text, bytes or lists")
        return self._faithful(parts, read)

    def _faithful(self, parts: list[Any], read: Callable[[Any], Any]) -> Any:  # noqa: PLR0911 - one a tag
        match parts:
            case ["decimal", str() as text] if len(text) <= self._limits.digits:
                try:
                    return decimal.Decimal(text)
                except decimal.InvalidOperation:
                    raise ProtocolError("a decimal must be a number") from None
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
        value = self._codec.read(parts, read)
        if value is NotImplemented:
            raise ProtocolError(f"an unknown tag: {str(parts)[:60]}; to send a list, wrap it in another: [[…]]")
        return value

    def _bigint(self, digits: str) -> int:
        if len(digits) > self._limits.digits:
            raise ProtocolError(f"a bigint has more than {self._limits.digits} digits")
        if not digits.isascii() or not digits.removeprefix("-").isdecimal():
            raise ProtocolError("a bigint must be decimal digits")
        return int(digits)

    def _error(self, name: str, message: str, rest: list[Any], read: Callable[[Any], Any]) -> Exception:
        properties = rest[1] if len(rest) > 1 and isinstance(rest[1], dict) else {}
        facts = {str(key): read(value) for key, value in properties.items()} if self._codec.trusting else {}
        return self._codec.exception(Fault(name, message[:MAX_MESSAGE], {"type": name} | facts))


def _instant(microseconds: float) -> dt.datetime:
    try:
        return _EPOCH + dt.timedelta(microseconds=round(microseconds))
    except (OverflowError, ValueError, OSError):
        raise ProtocolError("a date must be in the years 1 to 9999") from None


def _day(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise ProtocolError("a day must be YYYY-MM-DD") from None


def from_base64(text: str) -> bytes:
    """Decode base64, padded or not. Raises ProtocolError if the text is invalid."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ProtocolError("bytes must be base64") from None
