"""How `as_of` and other instants that callers give are read, in one place."""

from __future__ import annotations

from datetime import UTC, date, datetime

from lakebed.clock import from_us, to_us
from lakebed.errors import InvalidAsOf

__all__ = ["instant_us", "parse_as_of"]

_HINT = "Give an aware datetime, or ISO 8601 text such as '2026-01-15T12:00:00Z' (without a zone it means UTC)"


def instant_us(value: datetime | date | str) -> int:
    """Microseconds UTC of an aware datetime, a date (its midnight UTC) or ISO 8601 text (UTC unless it says otherwise).

    Raises:
        ValueError: for anything else; naive datetimes included, as guessing their zone gives wrong answers.
    """
    if isinstance(value, datetime):
        return to_us(value)
    if isinstance(value, date):
        return to_us(datetime(value.year, value.month, value.day, tzinfo=UTC))
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no time")  # noqa: TRY004 - callers turn every bad instant into one error
    try:
        moment = datetime.fromisoformat(value)
        return to_us(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        raise ValueError(f"{value[:40]!r} is not an ISO 8601 time") from None


def parse_as_of(as_of: datetime | date | str | None, now_us: int) -> int | None:
    """Microseconds of `as_of` (a date is its midnight UTC); None means now, without a cut.

    Raises:
        InvalidAsOf: when it cannot be read, or lies after `now_us`: that answer could still change.
    """
    if as_of is None:
        return None
    try:
        us = instant_us(as_of)
    except (ValueError, OverflowError) as error:
        raise InvalidAsOf(f"as_of: {error}", hint=_HINT, value=as_of) from error
    if us > now_us:
        raise InvalidAsOf(
            f"as_of {from_us(us).isoformat()} lies in the future (now is {from_us(now_us).isoformat()})",
            hint="Its answer could still change; ask without as_of for the present",
            value=as_of,
        )
    return us
