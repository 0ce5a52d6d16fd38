"""`invoice`, `invoices`, `price-books`, `quotas`: the price of usage, and its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any

import msgspec
import typer

from lakebed.cli.options import AsJson, AsOf, read_document
from lakebed.cli.output import note, print_facts, print_table
from lakebed.cli.place import Place, for_object
from lakebed.clients.client import Table

__all__ = ["register"]

_PANEL = "Billing"
_LINE = ("period", "sku", "unit", "quantity", "amount", "currency", "price_book")
_INVOICE = ("period", "organization_id", "total", "currency", "price_book", "price_book_version")
_BOOK = ("name", "version", "savedAt", "document")
_QUOTA = ("organization_id", "sku", "limit", "period", "used", "share", "reached")
_Organization = Annotated[str, typer.Argument(metavar="ORGANIZATION", help="The organisation that uses it, and pays.")]
_Organizations = Annotated[str, typer.Argument(metavar="[ORGANIZATION]", help="Only this one; by default all.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel=_PANEL)(for_object(invoice))
    app.command(rich_help_panel=_PANEL)(for_object(invoices))
    books = typer.Typer(no_args_is_help=True, help="Save the prices of usage, and list them.")
    books.command("save")(for_object(save_price_book))
    books.command("list")(for_object(price_books))
    app.add_typer(books, name="price-books", rich_help_panel=_PANEL)
    limits = typer.Typer(no_args_is_help=True, help="Say how much organisations may use, and see how far they are.")
    limits.command("save")(for_object(save_quota))
    limits.command("list")(for_object(quotas))
    app.add_typer(limits, name="quotas", rich_help_panel=_PANEL)


def invoice(
    place: Place,
    organization: _Organization,
    month: Annotated[str, typer.Argument(metavar="MONTH", help="Such as 2026-01.")],
    price_book: Annotated[str, typer.Option(help="The name of the price book.")] = "default",
    version: Annotated[int | None, typer.Option(min=1, help="Its version; by default the newest.")] = None,
    tz: Annotated[str, typer.Option(help="The time zone of the month, an IANA name.")] = "UTC",
    as_of: AsOf = "",
    issue: Annotated[bool, typer.Option("--issue", help="Record it, for ever, once the month is over.")] = False,
    as_json: AsJson = False,
) -> None:
    """The invoice of a month: the one that was issued, else a draft, unless --issue. docs/billing.md explains it."""
    options = {"price_book": price_book, "version": version, "tz": tz, "as_of": as_of or None, "issue": issue}
    with place.client() as client:
        facts = msgspec.to_builtins(client.call("invoice", organization, month, **options))
    if as_json:
        print_facts(facts, as_json=True)
        return
    kind = "Invoice" if facts["issued"] else "Draft"
    book = f"{facts['price_book']}, version {facts['price_book_version']}"
    note(f"{kind} {facts['period']} for {facts['organization_id']} by {book}, as of {facts['as_of']}")
    print_table(Table(_LINE, [*_lines(facts)]), as_json=False)


def invoices(place: Place, organization: _Organizations = "", as_json: AsJson = False) -> None:
    """The issued invoices, in the order of issue; with --json all that is on them."""
    with place.client() as client:
        issued = msgspec.to_builtins(client.call("invoices", organization or None))
    records = [facts | {"total": Decimal(facts["total"])} for facts in issued]
    print_table(_table(records, _INVOICE, as_json=as_json), as_json=as_json)


def save_price_book(
    place: Place,
    book: Annotated[str, typer.Argument(metavar="NAME", help="The price book's name.")],
    document: Annotated[
        str,
        typer.Argument(
            help="""JSON: '{"currency": "EUR", "prices": {"calls": {"model": "per_unit", "amount": "0.002"}}}'; """
            "@FILE or - reads it."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Save a price book; an existing name gets a new version. docs/billing.md describes the form of a price book."""
    body = read_document(document, "price book")
    with place.client() as client:
        print_facts(_book(client.call("save_price_book", book, body)), as_json=as_json)


def price_books(place: Place, as_json: AsJson = False) -> None:
    """The newest version of each price book, by name."""
    with place.client() as client:
        records = [_book(book) for book in client.call("price_books")]
    print_table(Table.of(records, _BOOK), as_json=as_json)


def save_quota(
    place: Place,
    organization: _Organization,
    sku: Annotated[str, typer.Argument(metavar="SKU", help="The sku that is limited.")],
    limit: Annotated[str, typer.Argument(metavar="LIMIT", help="How many units in a period.")],
    period: Annotated[str, typer.Option(help="day or month.")] = "month",
    tz: Annotated[str, typer.Option(help="The time zone of the period, an IANA name.")] = "UTC",
    threshold: Annotated[
        list[float], typer.Option(help="A share of the limit that is reported when it is reached; may be repeated.")
    ] = [0.8, 1.0],  # noqa: B006 - typer reads it; no code changes it
    as_json: AsJson = False,
) -> None:
    """Save a quota, in place of the one for the same organisation and sku. No event is refused because of a quota."""
    options = {"limit": limit, "period": period, "tz": tz, "thresholds": threshold}
    with place.client() as client:
        client.call("save_quota", organization, sku, **options)
        states = msgspec.to_builtins(client.call("quotas", organization))
    print_facts(_flat(next(state for state in states if state["quota"]["sku"] == sku)), as_json=as_json)


def quotas(place: Place, organization: _Organizations = "", as_json: AsJson = False) -> None:
    """How far each quota is used in its present period, counted exactly; with --json also when the period ends."""
    with place.client() as client:
        states = msgspec.to_builtins(client.call("quotas", organization or None))
    print_table(_table([_flat(state) for state in states], _QUOTA, as_json=as_json), as_json=as_json)


def _book(definition: Any) -> dict[str, Any]:
    """A saved price book as a record with the field names of the HTTP API."""
    saved_at = msgspec.to_builtins(definition.at)
    return {"name": definition.name, "version": definition.version, "savedAt": saved_at, "document": definition.body}


def _lines(invoice: Mapping[str, Any]) -> list[list[Any]]:
    """The lines of an invoice, its adjustments and its total, as rows of `_LINE`."""
    period = {"period": invoice["period"]}
    rows = []
    for line in (*(period | line for line in invoice["lines"]), *invoice["adjustments"]):
        book = f"{line['price_book']}, version {line['price_book_version']}" if line.get("price_book") else None
        numbers = [Decimal(line["quantity"]), Decimal(line["amount"])]
        rows.append([line["period"], line["sku"], line["unit"], *numbers, invoice["currency"], book])
    return [*rows, ["total", None, None, None, Decimal(invoice["total"]), invoice["currency"], None]]


def _flat(state: Mapping[str, Any]) -> dict[str, Any]:
    """A quota and its use, as one record."""
    record = {**state["quota"], **{name: value for name, value in state.items() if name != "quota"}}
    return record | {name: Decimal(record[name]) for name in ("limit", "used")}


def _table(records: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> Table:
    """Print the `columns` of the records; in JSON all fields."""
    return Table.of(records, tuple(records[0]) if records and as_json else columns)
