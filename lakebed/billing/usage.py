"""Usage: the verbs of usage billing. `usage` itself, what was used, is a report."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from lakebed.assembled import Assembled, Instant, Moment
from lakebed.billing.invoice import Invoice
from lakebed.billing.money import exact, plain
from lakebed.billing.quota import Quota, QuotaState
from lakebed.definitions.definitions import Definition
from lakebed.errors import InvalidBilling
from lakebed.events.event import Receipt
from lakebed.events.validation import from_call

__all__ = ["USAGE", "Usage"]

USAGE = "Usage Tracked"


class Usage(Assembled):
    """What organisations use, what it costs, and how much of it they may use. docs/billing.md explains all of it."""

    async def track_usage(
        self,
        organization_id: str,
        sku: str,
        quantity: Decimal | int | str,
        unit: str,
        *,
        user_id: str | None = None,
        timestamp: Moment | float | None = None,
        message_id: str | None = None,
        properties: Mapping[str, Any] | None = None,
    ) -> Receipt:
        """Store that something was used, durably: an event "Usage Tracked", counted once however often it is sent.

        Args:
            organization_id: who used it, and pays.
            sku: what.
            quantity: how much: a Decimal, an int or text, at most 29 digits and 9 decimals; with a minus it is a
                correction. A float is refused, as it is not what it prints.
            unit: of `quantity`; never converted.
            user_id: who did it.
            timestamp: when, if not now; late usage belongs to the period in which it happened.
            message_id: a retry with the same one stores nothing.
            properties: further ones.

        Raises:
            InvalidBilling: a text is missing, or the quantity is none.
            InvalidEvent, DiskFull, LogUnavailable, Backpressure: as for `track`.
        """
        for name, value in (("organization_id", organization_id), ("sku", sku), ("unit", unit)):
            if not isinstance(value, str) or not value:
                raise InvalidBilling(f"{name} is {value!r}", hint="Give a text")
        number = exact("quantity", quantity)
        said = {"organization_id": organization_id, "sku": sku, "quantity": plain(number), "unit": unit}
        given = dict(properties or {}) | said
        fields = {"event": USAGE, "user_id": user_id, "timestamp": timestamp, "message_id": message_id}
        event = from_call("track", given, **fields)
        receipt = await self._up.intake.one(lambda: event)
        if receipt.status == "stored" and receipt.seq is not None:
            happened_us = event.timestamp if isinstance(event.timestamp, int) else None  # as `admit` leaves it
            await self._up.biller.count(organization_id, sku, number, receipt.seq, happened_us)
        return receipt

    async def save_price_book(self, name: str, document: Mapping[str, Any]) -> Definition:
        """Keep a price book, or a new version of it; versions never change.

        Raises:
            InvalidBilling: names the field that cannot be read.
            InvalidDefinition: the name is none.
        """
        return await self._up.biller.save_price_book(name, document)

    async def price_books(self) -> list[Definition]:
        """The newest version of each price book, by name."""
        return await self._up.biller.price_books()

    async def invoice(
        self,
        organization_id: str,
        period: str,
        *,
        price_book: str = "default",
        version: int | None = None,
        tz: str = "UTC",
        as_of: Instant | None = None,
        issue: bool = False,
    ) -> Invoice:
        """The invoice of a month. The one that was issued, if it was; else a draft, unless `issue`.

        Usage that came after an earlier month had been billed is an adjustment: that month rated anew, at its own
        prices, less what was billed for it. So every unit is billed once, whenever it comes. What its prices lack is
        rated by those of the invoice that it first comes onto, and the adjustment names them.

        Args:
            organization_id: who pays.
            period: `2026-01`.
            price_book: its name; the newest version, unless `version` says another.
            tz: whose month, an IANA name.
            as_of: what had been received by then: the same bytes whenever it is asked.
            issue: record it, once the month is over. Issuing again gives the recorded one.

        Raises:
            InvalidBilling: the month is not over or none; there is no such book; something used has no price in it; or
                this organisation was billed in another currency or time zone before.
        """
        return await self._up.biller.invoice(
            organization_id, period, price_book=price_book, version=version, tz=tz, as_of=as_of, issue=issue
        )

    async def invoices(self, organization_id: str | None = None) -> list[Invoice]:
        """The invoices that were issued, of one organisation or all, in that order."""
        return await self._up.biller.invoices(organization_id)

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
        """Say how much of something an organisation may use; `on_quota` is called when a threshold is reached.

        Nothing is refused because of it: what to do is the app's to say.

        Raises:
            InvalidBilling: names the field that cannot be read.
        """
        given = {"organization_id": organization_id, "sku": sku, "limit": limit, "period": period, "tz": tz}
        return await self._up.biller.save_quota(given | {"thresholds": thresholds})

    async def quotas(self, organization_id: str | None = None) -> list[QuotaState]:
        """How far each quota is used, counted exactly, and the counters set right by it."""
        return await self._up.biller.quotas(organization_id)

    def quota(self, organization_id: str, sku: str) -> QuotaState | None:
        """The same of one quota from the live counters: what `track_usage` counted since `quotas` did.

        None where there is none, or nothing was counted since the object opened. Usage that came as plain events, by
        `track` or over HTTP, is in it when `quotas` was asked.
        """
        return self._up.biller.quota(organization_id, sku)

    def on_quota(self, state: QuotaState) -> None:
        """Called when `track_usage` finds a threshold reached that was not told. Yours to override; this does nothing.

        Told once each in a period, again after corrections went below it, and again at the first usage after the object
        was opened: a process that ends before it has told loses nothing.
        """
