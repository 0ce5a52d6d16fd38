"""Limit: a whole number that a report is given, within bounds."""

from __future__ import annotations

from typing import Any

from lakebed.errors import QueryRefused

__all__ = ["check_limit"]


def check_limit(name: str, value: Any, most: int, *, least: int = 1) -> None:
    """Make sure that `value` is a whole number from `least` to `most`. True is none: it would be taken for 1.

    Raises:
        QueryRefused: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise QueryRefused(f"{name} is {str(value)[:40]!r}", hint=f"Give {least} to {most}")
