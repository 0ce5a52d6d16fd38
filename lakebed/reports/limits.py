"""Limits: whole numbers that a report is given, within bounds."""

from __future__ import annotations

from typing import Any

from lakebed.errors import QueryRefused

__all__ = ["check_cursor", "check_limit"]


def check_limit(name: str, value: Any, most: int, *, least: int = 1) -> None:
    """Make sure that `value` is a whole number from `least` to `most`. True is none: it would be taken for 1.

    Raises:
        QueryRefused: it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise QueryRefused(f"{name} is {str(value)[:40]!r}", hint=f"Give {least} to {most}")


def check_cursor(before: Any) -> None:
    """Make sure that `before` is None or the seq of a row, where a page begins.

    Raises:
        QueryRefused: it is neither.
    """
    if before is not None and (isinstance(before, bool) or not isinstance(before, int) or before < 0):
        raise QueryRefused(f"before is {str(before)[:40]!r}", hint="Give the seq of the last row that you have")
