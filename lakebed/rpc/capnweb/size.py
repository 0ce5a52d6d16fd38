"""Weight: how much a value is, in values and characters, as the limits count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from lakebed.query.result import Result, Row

__all__ = ["weigh"]


def weigh(value: Any, most: int) -> int:
    """The values and characters in `value`, each wherever it appears; tables by their bytes. Stops beyond `most`."""
    weight, waiting = 0, [value]
    while waiting and weight <= most:
        found = waiting.pop()
        weight += 1
        if isinstance(found, (str, bytes)):
            weight += len(found)
        elif isinstance(found, Mapping):
            weight += sum(len(name) for name in found if isinstance(name, str))
            waiting.extend(found.values())
        elif isinstance(found, (list, tuple, Row)):
            waiting.extend(found)
        elif isinstance(found, Result):
            weight += found.arrow().nbytes
        elif isinstance(found, msgspec.Struct):
            waiting.extend(getattr(found, name) for name in found.__struct_fields__)
    return weight
