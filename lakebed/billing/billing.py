"""The biller of an object: price books, invoices and quotas, on usage that is summed exactly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from lakebed.billing.invoice import INVOICE, Adjustment, Invoice, Line, Used, adjusted, lines_of, total_of
from lakebed.billing.money import tidy
from lakebed.billing.price_book import PRICE_BOOK, PriceBook
from lakebed.billing.quota import QUOTA, SCALE, Quota, QuotaState, month_of, window_of
from lakebed.clock import Clock, from_us, to_us
from lakebed.definitions.definitions import Definition, Definitions
from lakebed.errors import InvalidBilling
from lakebed.events.decimals import EXACT
from lakebed.query.as_of import parse_as_of
from lakebed.reports.context import ReportContext
from lakebed.reports.usage import usage
from lakebed.tiers.counters.counters import Counters

__all__ = ["Billing"]

_ZERO = Decimal(0)
_Sold = tuple[str, str]  # sku and unit
_Version = tuple[str, int]  # of a price book: its name and number
_WIDE = 10**18  # what one increment of a counter can hold, in millionths


class Billing:
    """Prices, bills and limits what organisations use.

    Args:
        on_quota: called, on the loop, with each threshold of a quota that was reached.
    """

    def __init__(
        self,
        definitions: Definitions,
        inquiry: ReportContext,
        counters: Counters,
        clock: Clock,
        on_quota: Callable[[QuotaState], None],
    ) -> None:
        self._definitions = definitions
        self._inquiry = inquiry
        self._counters = counters
        self._clock = clock
        self._on_quota = on_quota
        self._issuing = asyncio.Lock()
        self._counting = asyncio.Lock()
        self._quotas: dict[tuple[str, str], Quota] | None = None
        self._counted_to: dict[str, int] = {}  # by counter: what was in it when it was last set, as the end of its seqs
        self._told: dict[str, tuple[float, ...]] = {}  # by counter: the thresholds that were reached when last told

    # Price books

    async def save_price_book(self, name: str, document: Any) -> Definition:
        """Keep a price book, or a new version of it."""
        PriceBook.of(document)
        return await self._definitions.save(PRICE_BOOK, name, msgspec.json.decode(msgspec.json.encode(document)))

    async def price_books(self) -> list[Definition]:
        """The newest version of each."""
        return await self._definitions.newest(PRICE_BOOK)

    async def _price_book(self, name: str, version: int | None, as_of_us: int | None) -> tuple[PriceBook, int]:
        found = await self._definitions.get(PRICE_BOOK, name, version=version, as_of_us=as_of_us)
        if found is None:
            which = f"{name[:80]!r}" + ("" if version is None else f", version {version}")
            raise InvalidBilling(f"there is no price book {which}", hint="price_books() lists them")
        return PriceBook.of(found.body), found.version

    # Invoices

    async def invoice(
        self,
        organization_id: str,
        period: str,
        *,
        price_book: str,
        version: int | None,
        tz: str,
        as_of: datetime | str | None,
        issue: bool,
    ) -> Invoice:
        """What `Usage.invoice` says."""
        start, end = month_of(period, tz)
        if not isinstance(organization_id, str) or not organization_id:
            raise InvalidBilling(f"organization_id is {organization_id!r}", hint="Give a text")
        if issue and as_of is not None:
            raise InvalidBilling("an invoice is issued as of now", hint="Leave as_of away, or issue=True")
        async with self._issuing:
            now_us = self._clock.now_us()
            as_of_us = parse_as_of(as_of, now_us)
            issued = await self._issued(organization_id, as_of_us)  # without `as_of` all: the clock may step back
            recorded = next((one for one in issued if one.period == period), None)
            if recorded is not None:
                return recorded
            if issue and to_us(end) > now_us:
                hint = "Issue it afterwards; without issue=True it is a draft"
                raise InvalidBilling(f"{period} is not over before {end.isoformat()}", hint=hint)
            as_of_us = now_us if as_of_us is None else as_of_us
            book, book_version = await self._price_book(price_book, version, as_of_us if version is None else None)
            _check_goes_with(issued, tz, book.currency)
            lines = lines_of(book, await self._used(organization_id, start, end, as_of_us), period)
            adjustments = await self._adjustments(issued, (price_book, book_version), as_of_us)
            found = Invoice(
                organization_id=organization_id,
                period=period,
                start=start.isoformat(),
                end=end.isoformat(),
                tz=tz,
                as_of=from_us(as_of_us).isoformat(),
                price_book=price_book,
                price_book_version=book_version,
                currency=book.currency,
                lines=lines,
                adjustments=tuple(adjustments),
                total=total_of((*lines, *adjustments), book.currency),
                issued=issue,
            )
            if issue:
                await self._definitions.save(INVOICE, found.name, msgspec.json.decode(msgspec.json.encode(found)))
            return found

    async def invoices(self, organization_id: str | None = None) -> list[Invoice]:
        """Those that were issued, in the order in which they were."""
        return await self._issued(organization_id, None)

    async def _issued(self, organization_id: str | None, as_of_us: int | None) -> list[Invoice]:
        saved = await self._definitions.newest(INVOICE, as_of_us=as_of_us)
        found = [_invoice(one) for one in sorted(saved, key=lambda one: one.seq)]
        return [one for one in found if organization_id in (None, one.organization_id)]

    async def _adjustments(self, issued: list[Invoice], current: _Version, as_of_us: int) -> list[Adjustment]:
        """What came late for the months of `issued`, of which `current` is what the next invoice is made by."""
        found: list[Adjustment] = []
        for earlier in issued:
            billed: dict[_Sold, tuple[Decimal, Decimal]] = {}
            later: dict[_Sold, _Version] = {}
            since = [one for other in issued for one in other.adjustments if one.invoice == earlier.name]
            billed_for: list[Line | Adjustment] = [*earlier.lines, *since]
            for line in billed_for:
                quantity, amount = billed.get((line.sku, line.unit), (_ZERO, _ZERO))
                billed[line.sku, line.unit] = (EXACT.add(quantity, line.quantity), EXACT.add(amount, line.amount))
            for one in since:
                if one.price_book is not None and one.price_book_version is not None:
                    later[one.sku, one.unit] = (one.price_book, one.price_book_version)
            now = await self._rated(earlier, later, current, as_of_us)
            found += adjusted(earlier, billed, now, later)
        return found

    async def _rated(
        self, earlier: Invoice, later: dict[_Sold, _Version], current: _Version, as_of_us: int
    ) -> list[Line]:
        """The lines that `earlier` would have. What its price book lacks is rated by `later`, where it is put.

        Once it was billed by some version it stays with that one: tiers and packages are over the whole month.
        """
        own = (earlier.price_book, earlier.price_book_version)
        book, _ = await self._price_book(*own, None)
        start, end = month_of(earlier.period, earlier.tz)
        used: dict[_Version, list[Used]] = {}
        for one in await self._used(earlier.organization_id, start, end, as_of_us):
            version = own if book.has(one.sku, one.unit) else later.setdefault((one.sku, one.unit), current)
            used.setdefault(version, []).append(one)
        lines: list[Line] = []
        for version, those in used.items():
            book, _ = await self._price_book(*version, None)
            lines += lines_of(book, those, earlier.period)
        return lines

    async def _used(self, organization_id: str, start: datetime, end: datetime, as_of_us: int) -> list[Used]:
        result = await usage(
            self._inquiry,
            organization_id=organization_id,
            grain=None,
            start=start,
            end=end,
            as_of=from_us(as_of_us),
        )
        return [Used(row.sku, row.unit, tidy(row.quantity)) for row in result]

    # Quotas

    async def save_quota(self, given: Mapping[str, Any]) -> Quota:
        """Keep a quota, in place of the one for the same organisation and sku."""
        quota = Quota.of(given)
        await self._definitions.save(QUOTA, quota.name, msgspec.json.decode(msgspec.json.encode(quota)))
        self._quotas = None
        return quota

    async def quotas(self, organization_id: str | None = None) -> list[QuotaState]:
        """How far each quota is used, counted exactly."""
        found = []
        for quota in (await self._known()).values():
            if organization_id in (None, quota.organization_id):
                async with self._counting:
                    await self._set(quota)
                found.append(self._state(quota))
        return found

    def quota(self, organization_id: str, sku: str) -> QuotaState | None:
        """The same from memory, in microseconds; None where there is no quota, or it was not counted yet."""
        quota = (self._quotas or {}).get((organization_id, sku))
        if quota is None or self._key(quota) not in self._counted_to:
            return None
        return self._state(quota)

    async def count(self, organization_id: str, sku: str, quantity: Decimal, seq: int, happened_us: int | None) -> None:
        """Count usage that was stored as event `seq`, and tell of thresholds that are reached and were not told.

        Usage of another period than the one that is now changes nothing here. `happened_us` None means now.
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
            told, self._told[key] = self._told.get(key, ()), state.reached
        if set(state.reached) - set(told):
            self._on_quota(state)

    async def _known(self) -> dict[tuple[str, str], Quota]:
        if self._quotas is None:
            saved = await self._definitions.newest(QUOTA)
            quotas = [Quota.of(one.body) for one in saved]
            self._quotas = {(one.organization_id, one.sku): one for one in quotas}
        return self._quotas

    async def _set(self, quota: Quota) -> None:
        """Make the counter what was used by all events that are stored."""
        start, end = window_of(quota, from_us(self._clock.now_us()))
        result = await usage(
            self._inquiry, organization_id=quota.organization_id, sku=quota.sku, grain=None, start=start, end=end
        )
        used = _ZERO
        for row in result:
            used = EXACT.add(used, row.quantity)
        key = self._key(quota)
        for place in _places(key):
            self._counters.delete(place)
        self._add(key, used)
        self._counted_to = {one: seq for one, seq in self._counted_to.items() if one in self._counters}
        self._counted_to[key] = result.seq[1]
        self._told = {one: told for one, told in self._told.items() if one in self._counted_to}

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
        reached = tuple(one for one in quota.thresholds if used >= EXACT.multiply(quota.limit, Decimal(str(one))))
        return QuotaState(quota, start.isoformat(), end.isoformat(), used, float(used / quota.limit), reached)


def _places(key: str) -> tuple[str, str, str]:
    """The counters of a quota: nearly always the first alone, the others where a quantity has more digits."""
    return key, f"{key}:e18", f"{key}:e36"


def _check_goes_with(issued: list[Invoice], tz: str, currency: str) -> None:
    """Months of two zones overlap: usage would be billed twice. Amounts of two currencies have no sum."""
    for one in issued:
        if one.tz != tz or one.currency != currency:
            raise InvalidBilling(
                f"{one.organization_id} was billed in {one.currency} by months of {one.tz}, not in {currency} of {tz}",
                hint="Use the same; or bill another organization_id from now on",
            )


def _invoice(saved: Definition) -> Invoice:
    return msgspec.convert(saved.body, Invoice)
