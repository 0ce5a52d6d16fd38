"""Splitting JSON text into items without decoding them: an item that cannot be decoded does not affect the others."""

from __future__ import annotations

import re

__all__ = ["split"]


def split(text: bytes) -> list[bytes] | None:
    """The items of a JSON array, or the members of an object. None when its brackets do not balance or end early.

    Only brackets and strings are looked at, so one bad item does not spoil another. `list[Raw]` was rejected: it
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


# The next bracket (or comma) outside strings. A string without an end reaches to the end of the text: tried again from
# each of its quotes, it would cost the square of its length.
_STRING = rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)'
_OUTSIDE = re.compile(rb"(?:[^\"\[\]{},]++|" + _STRING + rb")*+([\[\]{},]|\Z)", re.DOTALL)
_INSIDE = re.compile(rb"(?:[^\"\[\]{}]++|" + _STRING + rb")*+([\[\]{}]|\Z)", re.DOTALL)
