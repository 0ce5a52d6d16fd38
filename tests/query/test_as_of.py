from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from lakebed.clock import to_us
from lakebed.errors import InvalidAsOf
from lakebed.query.as_of import parse_as_of

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
NOW = to_us(NOON)


@pytest.mark.parametrize(
    "value",
    [
        NOON,
        NOON.astimezone(timezone(timedelta(hours=5, minutes=30))),
        "2026-01-15T12:00:00Z",
        "2026-01-15 12:00",
        "2026-01-15T14:00:00+02:00",
    ],
)
def test_forms_of_one_instant(value):
    """Aware datetimes and ISO text are one instant; text without a zone is UTC."""
    assert parse_as_of(value, NOW) == NOW


def test_none_is_now():
    """Without an instant there is no cut."""
    assert parse_as_of(None, NOW) is None


@pytest.mark.parametrize("value", ["yesterday", "", "2026-13-01", NOON.replace(tzinfo=None), 17, 1.5, object()])
def test_unreadable(value):
    """What cannot be read is InvalidAsOf, naive datetimes and numbers included, and says what to give."""
    with pytest.raises(InvalidAsOf, match="Give an aware datetime"):
        parse_as_of(value, NOW)


def test_future():
    """An instant after now is refused: its answer could still change. Now itself is not."""
    assert parse_as_of(NOON, NOW) == NOW
    with pytest.raises(InvalidAsOf, match="lies in the future"):
        parse_as_of(NOON + timedelta(microseconds=1), NOW)
