"""Quotas: a limit on the usage of an organisation in a period, and its state."""

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

QUOTA = "quota"  # the kind of its documents
SCALE = 1_000_000  # counters are whole numbers: of millionths
_MONTH = re.compile(r"(19|2\d)\d\d-(0[1-9]|1[0-2])", re.ASCII)
_FIELDS = {"organization_id", "sku", "limit", "period", "tz", "thresholds"}


class Quota(msgspec.Struct, frozen=True):
    """A limit.

    Attributes:
        limit: units in one period.
        period: "day" or "month", of the wall clock of `tz`.
        thresholds: shares of the limit that are reported when reached.
    """

    organization_id: str
    sku: str
    limit: Decimal
    period: Literal["day", "month"] = "month"
    tz: str = "UTC"
    thresholds: tuple[float, ...] = (0.8, 1.0)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Quota:
        """The quota of plain values. Raises InvalidBilling, which names the field."""
        if unknown := sorted(set(fields) - _FIELDS):
            raise InvalidBilling(f"a quota has no {unknown[0][:40]!r}", hint=f"It has {', '.join(sorted(_FIELDS))}")
        for name in ("organization_id", "sku"):
            if not isinstance(fields.get(name), str) or not fields[name]:
                raise InvalidBilling(f"{name} is {fields.get(name)!r}", hint="Give a non-empty text")
        limit = exact("limit", fields.get("limit"))
        period, tz = fields.get("period", "month"), fields.get("tz", "UTC")
        if limit <= 0 or period not in ("day", "month"):
            raise InvalidBilling(
                f"limit is {limit}, period is {period!r}", hint="The limit is more than 0, the period day or month"
            )
        zone_of(tz)
        thresholds = fields.get("thresholds", (0.8, 1.0))
        if not isinstance(thresholds, list | tuple) or not all(map(_is_share, thresholds)):
            raise InvalidBilling(f"thresholds is {thresholds!r}", hint="Give shares of the limit, such as 0.8")
        return cls(fields["organization_id"], fields["sku"], limit, period, tz, tuple(sorted(map(float, thresholds))))

    @property
    def name(self) -> str:
        """The name of its document."""
        return msgspec.json.encode([self.organization_id, self.sku]).decode()  # texts may have spaces


class QuotaState(msgspec.Struct, frozen=True):
    """The state of a quota.

    Attributes:
        used: units since `start`, to a millionth.
        share: of the limit; above 1 it is exceeded.
        reached: the thresholds that are reached.
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
    """The time zone. Raises InvalidBilling if there is none of that name."""
    try:
        return ZoneInfo(tz)
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise InvalidBilling(f"tz is {str(tz)[:40]!r}", hint="Use an IANA name such as Europe/Berlin") from error


def month_of(period: str, tz: str) -> tuple[datetime, datetime]:
    """The first instant of a month `2026-01`, and that of the next. Raises InvalidBilling."""
    zone = zone_of(tz)
    # One spelling for a month: it is part of the name of its invoice, which is recorded once.
    if not isinstance(period, str) or not _MONTH.fullmatch(period):
        raise InvalidBilling(f"period is {str(period)[:40]!r}", hint="Write a month as 2026-01")
    first = datetime(int(period[:4]), int(period[5:]), 1, tzinfo=zone)
    return first, (first + timedelta(days=32)).replace(day=1)


def window_of(quota: Quota, now: datetime) -> tuple[datetime, datetime]:
    """The period of a quota that contains `now`."""
    local = now.astimezone(zone_of(quota.tz)).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if quota.period == "day":
        tomorrow = (local.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=local.tzinfo)
        return local, tomorrow
    first = local.replace(day=1)
    return first, (first + timedelta(days=32)).replace(day=1)
