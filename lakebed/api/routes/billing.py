"""BillingRoutes. Quantities and money are text: many clients read JSON's numbers as floats."""

from __future__ import annotations

import datetime as dt
import functools
from decimal import Decimal
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.auth import Auth
from lakebed.api.body import Body, decoded
from lakebed.api.errors import hints_included
from lakebed.api.openapi.document import Parameter, operation
from lakebed.api.responses import json_response
from lakebed.billing.invoice import Invoice, Used, lines_of, total_of
from lakebed.billing.price_book import PriceBook, plain, tidy
from lakebed.billing.quotas import QuotaState
from lakebed.errors import InvalidBilling
from lakebed.events.decimals import EXACT

__all__ = ["BillingRoutes"]

_ORGANIZATION = Parameter("organizationId", str, "Only this organisation")


class UsageBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Usage from `start` to `end` (ISO 8601; the end excluded), with costs by the prices of `priceBook`, if given."""

    organization_id: str
    start: str
    end: str
    sku: str | None = None
    price_book: str | None = None
    as_of: str | None = None


class UsageItem(msgspec.Struct, rename="camel", omit_defaults=True):
    """The usage of a sku in one unit. `cost` is present if the request has a price book."""

    sku: str
    quantity: str
    unit: str
    cost: str | None = None


class UsagePeriod(msgspec.Struct):
    """The period of the request."""

    start: str
    end: str


class UsageTotal(msgspec.Struct, omit_defaults=True):
    """The total of all items. `quantity` is absent if the items have several units."""

    quantity: str | None = None
    cost: str | None = None
    currency: str | None = None


class UsageAnswer(msgspec.Struct, rename="camel"):
    """The usage of an organisation."""

    organization_id: str
    period: UsagePeriod
    items: list[UsageItem]
    total: UsageTotal


class InvoiceBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The invoice to make for a month; with `issue` the invoice is recorded."""

    organization_id: str
    period: str
    price_book: str = "default"
    version: int | None = None
    tz: str = "UTC"
    as_of: str | None = None
    issue: bool = False


class QuotaBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """A quota: `limit` is text or a whole number."""

    organization_id: str
    sku: str
    limit: str | int
    period: str = "month"
    tz: str = "UTC"
    thresholds: tuple[float, ...] = (0.8, 1.0)


class SavedPriceBook(msgspec.Struct, rename="camel"):
    """A price book: its document, its version, and the time when that version was saved."""

    name: str
    version: int
    saved_at: dt.datetime
    document: Any


class BillingRoutes:
    """`POST /billing/usage`, `/billing/price-books`, `/billing/invoices`, `/billing/quotas`."""

    def __init__(self, auth: Auth, body: Body) -> None:
        self._auth = auth
        self._body = body

    def routes(self) -> list[BaseRoute]:
        """The routes of this group."""
        return [
            Route("/billing/usage", self.usage, methods=["POST"]),
            Route("/billing/price-books", self.price_books, methods=["GET"]),
            Route("/billing/price-books/{name:path}", self.save_price_book, methods=["PUT"]),
            Route("/billing/invoices", self.invoices, methods=["GET"]),
            Route("/billing/invoices", self.invoice, methods=["POST"]),
            Route("/billing/quotas", self.quotas, methods=["GET"]),
            Route("/billing/quotas", self.save_quota, methods=["PUT"]),
        ]

    @operation(scope="read", body=UsageBody, answer=UsageAnswer, refusals=[404, 422, 504])
    async def usage(self, request: Request) -> Response:
        """The usage of an organisation by sku and unit, summed exactly; with a price book also its cost."""
        target = self._auth.existing(self._auth.admit(request, "read"))
        query = decoded(await self._body.read(request), UsageBody, "query")
        with hints_included():
            result = await target.usage(
                organization_id=query.organization_id,
                sku=query.sku,
                grain=None,
                start=query.start,
                end=query.end,
                as_of=query.as_of,
            )
            used = [Used(row.sku, row.unit, row.quantity) for row in result]
            book = None if query.price_book is None else await _book(target, query.price_book)
            costs = {} if book is None else {(line.sku, line.unit): line.amount for line in lines_of(book, used)}
        items = [
            UsageItem(item.sku, _plain(item.quantity), item.unit, _plain(costs.get((item.sku, item.unit))))
            for item in used
        ]
        total = UsageTotal()
        if len({item.unit for item in used}) == 1:
            total.quantity = _plain(functools.reduce(EXACT.add, (item.quantity for item in used)))
        if book is not None:
            total.cost, total.currency = _plain(total_of(lines_of(book, used), book.currency)), book.currency
        period = UsagePeriod(query.start, query.end)
        return json_response(UsageAnswer(query.organization_id, period, items, total))

    @operation(scope="read", answer=list[SavedPriceBook], refusals=[404])
    async def price_books(self, request: Request) -> Response:
        """The newest version of each price book."""
        books = await self._auth.existing(self._auth.admit(request, "read")).price_books()
        return json_response([SavedPriceBook(book.name, book.version, book.at, book.body) for book in books])

    @operation(scope="admin", body=dict[str, Any], answer=SavedPriceBook)
    async def save_price_book(self, request: Request) -> Response:
        """Save a price book, or a new version of it. docs/billing.md describes its format."""
        caller = self._auth.admit(request, "admin")
        document = decoded(await self._body.read(request), dict[str, Any], "price book")
        with hints_included():
            book = await self._auth.object(caller).save_price_book(request.path_params["name"], document)
        return json_response(SavedPriceBook(book.name, book.version, book.at, book.body))

    @operation(scope="read", parameters=[_ORGANIZATION], answer=list[Invoice], refusals=[404])
    async def invoices(self, request: Request) -> Response:
        """The issued invoices, in the order of issue."""
        target = self._auth.existing(self._auth.admit(request, "read"))
        return json_response(await target.invoices(request.query_params.get("organizationId")))

    @operation(scope="admin", body=InvoiceBody, answer=Invoice, refusals=[404, 422, 504])
    async def invoice(self, request: Request) -> Response:
        """The invoice of an organisation for a month: the issued one, else a draft, which `issue` issues."""
        target = self._auth.existing(self._auth.admit(request, "admin"))
        query = decoded(await self._body.read(request), InvoiceBody, "query")
        arguments = msgspec.structs.asdict(query)
        with hints_included():
            return json_response(
                await target.invoice(arguments.pop("organization_id"), arguments.pop("period"), **arguments)
            )

    @operation(scope="read", parameters=[_ORGANIZATION], answer=list[QuotaState], refusals=[404])
    async def quotas(self, request: Request) -> Response:
        """How far each quota is used, counted exactly."""
        target = self._auth.existing(self._auth.admit(request, "read"))
        return json_response(await target.quotas(request.query_params.get("organizationId")))

    @operation(scope="admin", body=QuotaBody, status=204)
    async def save_quota(self, request: Request) -> Response:
        """Save a quota, in place of the one for the same organisation and sku."""
        caller = self._auth.admit(request, "admin")
        quota = msgspec.structs.asdict(decoded(await self._body.read(request), QuotaBody, "quota"))
        with hints_included():
            await self._auth.object(caller).save_quota(**quota)
        return Response(status_code=204)


async def _book(target: Any, name: str) -> PriceBook:
    for book in await target.price_books():
        if book.name == name:
            return PriceBook.of(book.body)
    raise InvalidBilling(f"there is no price book {name[:80]!r}", hint="GET /billing/price-books lists them")


def _plain(number: Decimal | None) -> Any:
    return None if number is None else plain(tidy(number))
