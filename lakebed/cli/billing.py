"""`invoice`, `invoices`, `price-books`, `quotas`: what usage costs, and how much of it there may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import typer

from lakebed.cli.json_argument import read_document
from lakebed.cli.options import AsJson, AsOf, Class, Key, Name, Root, Url
from lakebed.cli.output import Table, note, print_facts, print_table

__all__ = ["register"]

_PANEL = "Billing"
_LINE = ("period", "sku", "unit", "quantity", "amount", "currency", "price_book")
_INVOICE = ("period", "organization_id", "total", "currency", "price_book", "price_book_version")
_BOOK = ("name", "version", "savedAt", "document")
_QUOTA = ("organization_id", "sku", "limit", "period", "used", "share", "reached")
_Organization = Annotated[str, typer.Argument(metavar="ORGANIZATION", help="Who uses it, and pays.")]
_Organizations = Annotated[str, typer.Argument(metavar="[ORGANIZATION]", help="Only this one; by default all.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel=_PANEL)(invoice)
    app.command(rich_help_panel=_PANEL)(invoices)
    books = typer.Typer(no_args_is_help=True, help="Save what usage costs, and list it.")
    books.command("save")(save_price_book)
    books.command("list")(price_books)
    app.add_typer(books, name="price-books", rich_help_panel=_PANEL)
    limits = typer.Typer(no_args_is_help=True, help="Say how much organisations may use, and see how far they are.")
    limits.command("save")(save_quota)
    limits.command("list")(quotas)
    app.add_typer(limits, name="quotas", rich_help_panel=_PANEL)


def invoice(
    organization: _Organization,
    month: Annotated[str, typer.Argument(metavar="MONTH", help="Such as 2026-01.")],
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    price_book: Annotated[str, typer.Option(help="The name of the price book.")] = "default",
    version: Annotated[int | None, typer.Option(min=1, help="Its version; by default the newest.")] = None,
    tz: Annotated[str, typer.Option(help="Whose months, an IANA name.")] = "UTC",
    as_of: AsOf = "",
    issue: Annotated[bool, typer.Option("--issue", help="Record it, for ever, once the month is over.")] = False,
    as_json: AsJson = False,
) -> None:
    """The invoice of a month: the one that was issued, else a draft, unless --issue. docs/billing.md explains it."""
    from lakebed.clients.target import Place

    given = {"price_book": price_book, "version": version, "tz": tz, "as_of": as_of or None, "issue": issue}
    with Place(root, name, class_name, url, key).target() as target:
        found = target.invoice(organization, month, given)
    if as_json:
        print_facts(found, as_json=True)
        return
    kind = "Invoice" if found["issued"] else "Draft"
    by = f"{found['price_book']}, version {found['price_book_version']}"
    note(f"{kind} {found['period']} for {found['organization_id']} by {by}, as of {found['as_of']}")
    print_table(Table(_LINE, [*_lines(found)]), as_json=False)


def invoices(
    organization: _Organizations = "",
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """The invoices that were issued, in that order; with --json all that is on them."""
    from lakebed.clients.target import Place

    with Place(root, name, class_name, url, key).target() as target:
        found = [one | {"total": Decimal(one["total"])} for one in target.invoices(organization or None)]
    print_table(_table(found, _INVOICE, as_json=as_json), as_json=as_json)


def save_price_book(
    book: Annotated[str, typer.Argument(metavar="NAME", help="The price book's name.")],
    document: Annotated[
        str,
        typer.Argument(
            help="""JSON: '{"currency": "EUR", "prices": {"calls": {"model": "per_unit", "amount": "0.002"}}}'; """
            "@FILE or - reads it."
        ),
    ],
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """Save a price book; a name that is there gets a new version. docs/billing.md has the form of it."""
    from lakebed.clients.target import Place

    body = read_document(document, "price book")
    with Place(root, name, class_name, url, key).target() as target:
        print_facts(target.save_price_book(book, body), as_json=as_json)


def price_books(
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """The newest version of each price book, by name."""
    from lakebed.clients.target import Place

    with Place(root, name, class_name, url, key).target() as target:
        print_table(Table.of(target.price_books(), _BOOK), as_json=as_json)


def save_quota(
    organization: _Organization,
    sku: Annotated[str, typer.Argument(metavar="SKU", help="Of what.")],
    limit: Annotated[str, typer.Argument(metavar="LIMIT", help="How many units in a period.")],
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    period: Annotated[str, typer.Option(help="day or month.")] = "month",
    tz: Annotated[str, typer.Option(help="Whose days and months, an IANA name.")] = "UTC",
    threshold: Annotated[
        list[float], typer.Option(help="A share of the limit that is told when it is reached; may be repeated.")
    ] = [0.8, 1.0],  # noqa: B006 - typer reads it, nobody changes it
    as_json: AsJson = False,
) -> None:
    """Save a quota, in place of the one for the same organisation and sku. Nothing is refused because of it."""
    from lakebed.clients.target import Place

    given = {"limit": limit, "period": period, "tz": tz, "thresholds": threshold}
    with Place(root, name, class_name, url, key).target() as target:
        target.save_quota(organization, sku, given)
        found = next(one for one in target.quotas(organization) if one["quota"]["sku"] == sku)
    print_facts(_flat(found), as_json=as_json)


def quotas(
    organization: _Organizations = "",
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    as_json: AsJson = False,
) -> None:
    """How far each quota is used in its present period, counted exactly; with --json also when that ends."""
    from lakebed.clients.target import Place

    with Place(root, name, class_name, url, key).target() as target:
        found = [_flat(one) for one in target.quotas(organization or None)]
    print_table(_table(found, _QUOTA, as_json=as_json), as_json=as_json)


def _lines(found: Mapping[str, Any]) -> list[list[Any]]:
    """What an invoice charges for, and their sum, as rows of `_LINE`."""
    own = {"period": found["period"]}
    rows = []
    for one in (*(own | line for line in found["lines"]), *found["adjustments"]):
        by = f"{one['price_book']}, version {one['price_book_version']}" if one.get("price_book") else None
        numbers = [Decimal(one["quantity"]), Decimal(one["amount"])]
        rows.append([one["period"], one["sku"], one["unit"], *numbers, found["currency"], by])
    return [*rows, ["total", None, None, None, Decimal(found["total"]), found["currency"], None]]


def _flat(state: Mapping[str, Any]) -> dict[str, Any]:
    """A quota, and how far it is used, as one record."""
    found = {**state["quota"], **{name: value for name, value in state.items() if name != "quota"}}
    return found | {name: Decimal(found[name]) for name in ("limit", "used")}


def _table(found: Sequence[Mapping[str, Any]], columns: Sequence[str], *, as_json: bool) -> Table:
    """What fits into a line of each; in JSON all of it."""
    return Table.of(found, tuple(found[0]) if found and as_json else columns)
