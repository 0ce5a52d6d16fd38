"""Quotas: limits for an organisation's usage. Usage is counted live, and corrected from the stored events."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from lakebed.billing.price_book import exact
from lakebed.clock import Clock, from_us, to_us
from lakebed.definitions.definitions import Definitions
from lakebed.errors import InvalidBilling
from lakebed.events.decimals import EXACT
from lakebed.reports.context import ReportContext
from lakebed.reports.usage import usage
from lakebed.tiers.counters.counters import Counters

__all__ = ["Quota", "QuotaState", "Quotas", "month_of", "window_of"]

QUOTA = "quota"  # kind of the documents of quotas
SCALE = 1_000_000  # counters are whole numbers, which count millionths of a unit
_MONTH = re.compile(r"(19|2\d)\d\d-(0[1-9]|1[0-2])", re.ASCII)
_FIELDS = {"organization_id", "sku", "limit", "period", "tz", "thresholds"}


class Quota(msgspec.Struct, frozen=True):
    """A limit for an organisation's usage of one sku.

    Attributes:
        limit: number of units in one period.
        period: "day" or "month", by the wall clock of `tz`.
        thresholds: fractions of the limit; `on_quota` is called when usage reaches one.
    """

    organization_id: str
    sku: str
    limit: Decimal
    period: Literal["day", "month"] = "month"
    tz: str = "UTC"
    thresholds: tuple[float, ...] = (0.8, 1.0)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Quota:
        """The quota with plain values as fields. Raises InvalidBilling, which names the field, if one is not valid."""
        if unknown := sorted(set(fields) - _FIELDS):
            raise InvalidBilling(f"a quota has no {unknown[0][:40]!r}", hint=f"Use {', '.join(sorted(_FIELDS))}")
        for name in ("organization_id", "sku"):
            if not isinstance(fields.get(name), str) or not fields[name]:
                raise InvalidBilling(f"{name} is {fields.get(name)!r}", hint="Give a non-empty text")
        limit = exact("limit", fields.get("limit"))
        period, tz = fields.get("period", "month"), fields.get("tz", "UTC")
        if limit <= 0 or period not in ("day", "month"):
            raise InvalidBilling(
                f"`limit` is {limit}, `period` is {period!r}", hint="Give a limit above 0, and the period day or month"
            )
        zone_of(tz)
        thresholds = fields.get("thresholds", (0.8, 1.0))
        if not isinstance(thresholds, list | tuple) or not all(map(_is_share, thresholds)):
            raise InvalidBilling(f"thresholds {thresholds!r} are not shares of the limit", hint="Give numbers like 0.8")
        return cls(fields["organization_id"], fields["sku"], limit, period, tz, tuple(sorted(map(float, thresholds))))

    @property
    def name(self) -> str:
        """The name of the quota's document."""
        return msgspec.json.encode([self.organization_id, self.sku]).decode()  # texts may have spaces


class QuotaState(msgspec.Struct, frozen=True):
    """The state of a quota.

    Attributes:
        used: units since `start`, to a millionth.
        share: `used` as a fraction of the limit; above 1 the limit is exceeded.
        reached: thresholds that `used` has reached.
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
    """The time zone `tz`. Raises InvalidBilling if no time zone has that name."""
    try:
        return ZoneInfo(tz)
    except (KeyError, ValueError, TypeError, OSError) as error:
        raise InvalidBilling(f"tz {str(tz)[:40]!r} is not a time zone", hint="Use an IANA name such as UTC") from error


def month_of(period: str, tz: str) -> tuple[datetime, datetime]:
    """The first instants of a month such as `2026-01` and of the next. Raises InvalidBilling if it is not valid."""
    zone = zone_of(tz)
    # A month has one spelling only, because its invoice's name contains it, and an invoice is recorded once.
    if not isinstance(period, str) or not _MONTH.fullmatch(period):
        raise InvalidBilling(f"period {str(period)[:40]!r} is not a month", hint="Write a month as 2026-01")
    first = datetime(int(period[:4]), int(period[5:]), 1, tzinfo=zone)
    return first, (first + timedelta(days=32)).replace(day=1)


def window_of(quota: Quota, now: datetime) -> tuple[datetime, datetime]:
    """The start and the end of the quota's period that contains `now`."""
    local = now.astimezone(zone_of(quota.tz)).replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    if quota.period == "day":
        tomorrow = (local.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=local.tzinfo)
        return local, tomorrow
    first = local.replace(day=1)
    return first, (first + timedelta(days=32)).replace(day=1)


_ZERO = Decimal(0)
_WIDE = 10**18  # what one increment of a counter can hold, in millionths


class Quotas:
    """The quotas of one object.

    Args:
        on_quota: called, on the loop, with the state of a quota when usage reaches a threshold.
    """

    def __init__(
        self,
        definitions: Definitions,
        context: ReportContext,
        counters: Counters,
        clock: Clock,
        on_quota: Callable[[QuotaState], None],
    ) -> None:
        self._definitions = definitions
        self._context = context
        self._counters = counters
        self._clock = clock
        self._on_quota = on_quota
        self._counting = asyncio.Lock()
        self._quotas: dict[tuple[str, str], Quota] | None = None
        self._counted_to: dict[str, int] = {}  # by counter: the seq before which usage was in it when it was last set
        self._reported: dict[str, tuple[float, ...]] = {}  # by counter: the thresholds reached at the last report

    async def save_quota(
        self,
        organization_id: str,
        sku: str,
        limit: Decimal | int | str,
        *,
        period: str = "month",
        tz: str = "UTC",
        thresholds: tuple[float, ...] | list[float] = (0.8, 1.0),
    ) -> Quota:
        """Set how much of a sku an organisation may use; `on_quota` is called when usage reaches a threshold.

        Lakebed refuses nothing because of a quota: the app decides what to do.

        Raises:
            InvalidBilling: names the field that cannot be read.
        """
        fields = {"organization_id": organization_id, "sku": sku, "limit": limit, "period": period, "tz": tz}
        quota = Quota.of(fields | {"thresholds": thresholds})
        await self._definitions.save(QUOTA, quota.name, msgspec.json.decode(msgspec.json.encode(quota)))
        self._quotas = None
        return quota

    async def quotas(self, organization_id: str | None = None) -> list[QuotaState]:
        """The state of each quota, counted exactly from the stored events. Corrects the live counters."""
        states = []
        for quota in (await self._known()).values():
            if organization_id in (None, quota.organization_id):
                async with self._counting:
                    await self._set(quota)
                states.append(self._state(quota))
        return states

    def quota(self, organization_id: str, sku: str) -> QuotaState | None:
        """The state of one quota, from the live counters: the last `quotas`, and `track_usage` since then.

        Returns None if there is no such quota, or nothing was counted since the object opened. Usage that came as plain
        events, by `track` or over HTTP, counts after the next `quotas`.
        """
        quota = (self._quotas or {}).get((organization_id, sku))
        if quota is None or self._key(quota) not in self._counted_to:
            return None
        return self._state(quota)

    async def count(self, organization_id: str, sku: str, quantity: Decimal, seq: int, happened_us: int | None) -> None:
        """Count usage that was stored as event `seq`, and report thresholds that are newly reached.

        Usage outside the current period changes nothing here. If `happened_us` is None, it happened now.
        """
        quota = (await self._known()).get((organization_id, sku))
        if quota is None:
            return
        async with self._counting:
            key = self._key(quota)
            start, end = window_of(quota, from_us(self._clock.now_us()))
            inside = happened_us is None or to_us(start) <= happened_us < to_us(end)
            if key not in self._counted_to:
                await self._set(quota)
            elif seq >= self._counted_to[key] and inside:
                self._add(key, quantity)
            state = self._state(quota)
            reported, self._reported[key] = self._reported.get(key, ()), state.reached
        if set(state.reached) - set(reported):
            self._on_quota(state)

    async def _known(self) -> dict[tuple[str, str], Quota]:
        if self._quotas is None:
            saved = await self._definitions.newest(QUOTA)
            quotas = [Quota.of(definition.body) for definition in saved]
            self._quotas = {(quota.organization_id, quota.sku): quota for quota in quotas}
        return self._quotas

    async def _set(self, quota: Quota) -> None:
        """Set the live counter of `quota` to the usage in all stored events of the current period."""
        start, end = window_of(quota, from_us(self._clock.now_us()))
        result = await usage(
            self._context, organization_id=quota.organization_id, sku=quota.sku, grain=None, start=start, end=end
        )
        used = _ZERO
        for row in result:
            used = EXACT.add(used, row.quantity)
        key = self._key(quota)
        for place in _places(key):
            self._counters.delete(place)
        self._add(key, used)
        self._counted_to = {counter: seq for counter, seq in self._counted_to.items() if counter in self._counters}
        self._counted_to[key] = result.seq[1]
        self._reported = {
            counter: reached for counter, reached in self._reported.items() if counter in self._counted_to
        }

    def _add(self, key: str, quantity: Decimal) -> None:
        millionths = round(EXACT.multiply(quantity, SCALE))
        sign, left = (-1, -millionths) if millionths < 0 else (1, millionths)
        for place in _places(key):
            left, part = divmod(left, _WIDE)
            if part or place == key:
                self._counters.incr(place, sign * part)

    def _used_up(self, key: str) -> Decimal:
        millionths = sum(int(self._counters.get(place)) * _WIDE**at for at, place in enumerate(_places(key)))
        return EXACT.divide(Decimal(millionths), SCALE)

    def _key(self, quota: Quota) -> str:
        start, _ = window_of(quota, from_us(self._clock.now_us()))
        return f"usage:{quota.organization_id}:{quota.sku}:{start.astimezone(UTC):%Y-%m-%dT%H:%MZ}"

    def _state(self, quota: Quota) -> QuotaState:
        start, end = window_of(quota, from_us(self._clock.now_us()))
        used = self._used_up(self._key(quota))
        reached = tuple(share for share in quota.thresholds if used >= EXACT.multiply(quota.limit, Decimal(str(share))))
        return QuotaState(quota, start.isoformat(), end.isoformat(), used, float(used / quota.limit), reached)


def _places(key: str) -> tuple[str, str, str]:
    """The counters of a quota. Nearly always only the first is used; the others hold further digits of a quantity."""
    return key, f"{key}:e18", f"{key}:e36"
