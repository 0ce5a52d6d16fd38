"""A MaxMind file with one network in it, written by the published format (version 2.0)."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path
from typing import Any

_MARKER = b"\xab\xcd\xefMaxMind.com"
_STRING, _DOUBLE, _UINT16, _MAP, _UINT32, _UINT64, _ARRAY = 2, 3, 5, 7, 6, 9, 11
_SEPARATOR = 16


def write(path: Path, network: str, record: Any) -> Path:
    """A file in which the addresses of an IPv4 network have `record`, and no others have any."""
    subnet = ipaddress.IPv4Network(network)
    count, bits = subnet.prefixlen, int(subnet.network_address)
    tree = b""
    for depth in range(count):
        follow = depth + 1 if depth + 1 < count else count + _SEPARATOR  # the data section's first byte
        sides = [count, count]  # nothing there
        sides[bits >> (31 - depth) & 1] = follow
        tree += b"".join(side.to_bytes(3, "big") for side in sides)
    metadata = {
        "binary_format_major_version": (_UINT16, 2),
        "binary_format_minor_version": (_UINT16, 0),
        "build_epoch": (_UINT64, 1_700_000_000),
        "database_type": "Test-City",
        "description": {"en": "one network"},
        "ip_version": (_UINT16, 4),
        "languages": ["en"],
        "node_count": (_UINT32, count),
        "record_size": (_UINT16, 24),
    }
    path.write_bytes(tree + bytes(_SEPARATOR) + _value(record) + _MARKER + _value(metadata))
    return path


def _value(value: Any) -> bytes:
    match value:
        case str():
            text = value.encode()
            return _control(_STRING, len(text)) + text
        case float():
            return _control(_DOUBLE, 8) + struct.pack(">d", value)
        case dict():
            return _control(_MAP, len(value)) + b"".join(_value(key) + _value(item) for key, item in value.items())
        case list():
            return _control(_ARRAY, len(value)) + b"".join(map(_value, value))
        case (int(kind), int(number)):
            text = number.to_bytes((number.bit_length() + 7) // 8, "big")
            return _control(kind, len(text)) + text
        case _:
            raise TypeError(value)


def _control(kind: int, size: int) -> bytes:
    assert size < 29, "longer ones are written in another way"
    return bytes([kind << 5 | size]) if kind < 8 else bytes([size, kind - 7])
