"""Quotas: how much of something an organisation may use in a period, and how far it has come."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from lakebed.billing.money import exact
from lakebed.errors import InvalidBilling

__all__ = ["QUOTA", "Quota", "QuotaState", "month_of", "window_of"]

QUOTA = "quota"  # the kind of its definitions
SCALE = 1_000_000  # counters are whole numbers: of millionths
_MONTH = re.compile(r"(19|2\d)\d\d-(0[1-9]|1[0-2])", re.ASCII)
_FIELDS = {"organization_id", "sku", "limit", "period", "tz", "thresholds"}


class Quota(msgspec.Struct, frozen=True):
    """A limit.

    Attributes:
        limit: units in one period.
        period: "day" or "month", of the wall clock of `tz`.
        thresholds: shares of the limit that are told when they are reached.
    """

    organization_id: str
    sku: str
    limit: Decimal
    period: Literal["day", "month"] = "month"
    tz: str = "UTC"
    thresholds: tuple[float, ...] = (0.8, 1.0)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Quota:
        """The quota of plain values. Raises InvalidBilling, which names the field."""
        if unknown := sorted(set(given) - _FIELDS):
            raise InvalidBilling(f"a quota has no {unknown[0][:40]!r}", hint=f"It has {', '.join(sorted(_FIELDS))}")
        for name in ("organization_id", "sku"):
            if not isinstance(given.get(name), str) or not given[name]:
                raise InvalidBilling(f"{name} is {given.get(name)!r}", hint="Give a text")
        limit = exact("limit", given.get("limit"))
        period, tz = given.get("period", "month"), given.get("tz", "UTC")
        if limit <= 0 or period not in ("day", "month"):
            raise InvalidBilling(f"limit is {limit}, period is {period!r}", hint="More than 0, by day or month")
        zone_of(tz)
        thresholds = given.get("thresholds", (0.8, 1.0))
        if not isinstance(thresholds, list | tuple) or not all(_is_share(one) for one in thresholds):
            raise InvalidBilling(f"thresholds is {thresholds!r}", hint="Give shares of the limit, such as 0.8")
        return cls(given["organization_id"], given["sku"], limit, period, tz, tuple(sorted(map(float, thresholds))))

    @property
    def name(self) -> str:
        """What it is saved as."""
        return msgspec.json.encode([self.organization_id, self.sku]).decode()  # texts may have spaces


class QuotaState(msgspec.Struct, frozen=True):
    """How far a quota is used.

    Attributes:
        used: units since `start`, to a millionth.
        share: of the limit; above 1 it is exceeded.
        reached: the thresholds that are.
    """

    quota: Quota
    start: str
    end: str
    used: Decimal
    share: float
    reached: tuple[float, ...]


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def zone_of(tz: str) -> ZoneInfo:
    """The time zone. Raises InvalidBilling where there is none of that name."""
    try:
        return ZoneInfo(tz)
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise InvalidBilling(f"tz is {str(tz)[:40]!r}", hint="Use an IANA name such as Europe/Berlin") from error


def month_of(period: str, tz: str) -> tuple[datetime, datetime]:
    """The first instant of a month `2026-01`, and that of the next. Raises InvalidBilling."""
    zone = zone_of(tz)
    # One spelling for a month: it is the name under which its invoice is recorded, once.
    if not isinstance(period, str) or not _MONTH.fullmatch(period):
        raise InvalidBilling(f"period is {str(period)[:40]!r}", hint="Write a month as 2026-01")
    first = datetime(int(period[:4]), int(period[5:]), 1, tzinfo=zone)
    return first, (first + timedelta(days=32)).replace(day=1)


def window_of(quota: Quota, now: datetime) -> tuple[datetime, datetime]:
    """The period of a quota that `now` lies in."""
    local = now.astimezone(zone_of(quota.tz)).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if quota.period == "day":
        tomorrow = (local.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=local.tzinfo)
        return local, tomorrow
    first = local.replace(day=1)
    return first, (first + timedelta(days=32)).replace(day=1)
