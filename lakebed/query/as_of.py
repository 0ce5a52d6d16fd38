"""How `as_of` is read, in one place."""

from __future__ import annotations

from lakebed.clock import from_us
from lakebed.errors import InvalidAsOf
from lakebed.moments import MOMENT_HINT, Moment, parse_moment

__all__ = ["parse_as_of"]


def parse_as_of(as_of: Moment | None, now_us: int) -> int | None:
    """Microseconds of `as_of` (a date is its midnight UTC). None stays None and means the present.

    Raises:
        InvalidAsOf: `as_of` is not a moment, or lies after `now_us`: that answer could still change.
    """
    if as_of is None:
        return None
    try:
        us = parse_moment(as_of)
    except ValueError as error:
        raise InvalidAsOf(f"as_of: {error}", hint=MOMENT_HINT, value=as_of) from error
    if us > now_us:
        raise InvalidAsOf(
            f"as_of {from_us(us).isoformat()} lies in the future (now is {from_us(now_us).isoformat()})",
            hint="Its answer could still change; ask without as_of for the present",
            value=as_of,
        )
    return us
