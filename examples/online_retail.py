"""A month of a real shop in Lakebed, checked number by number against plain SQL on the CSV file.

python examples/online_retail.py [--root data/online-retail] [--fresh]

It imports 42,481 order lines, archives the first half between two imports, asks the same questions of every tier and
of the past, and exits with 1 if one number differs from what DuckDB says of the file. Running it again stores nothing
twice. The data is described in data/README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import gzip
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import duckdb

from lakebed import Analytics, LakebedError, Result, Rollup, every

CSV = Path(__file__).parent / "data" / "online_retail_2010-12.csv.gz"
NAME = "shop"
ID = "online-retail-2010-12-"
CHUNK = 1_000
YEAR_S = 365 * 86400.0
DECEMBER = {"start": date(2010, 12, 1), "end": date(2010, 12, 23)}


class Shop(Analytics):
    """The shop: what it keeps beside the events themselves, and when it reports."""

    promoted: ClassVar = {"revenue": Decimal, "unit_price": Decimal, "country": str, "invoice": str}

    revenue = Rollup(
        "revenue",
        by=["country"],
        measures={"total": "sum(revenue)", "orders": "distinct(invoice)", "customers": "distinct(person_id)"},
        grain="day",
        where="event = 'Order Completed'",
    )

    @every.day.at("3am")
    async def report(self) -> Result:
        """The best countries so far. While the shop is open this runs each night."""
        return await self.query(TOP_COUNTRIES)


# The same questions twice: for Lakebed, and for the CSV file, which `Plain` calls `lines`.

BY_EVENT = """
    SELECT event, count(*) AS lines, count(DISTINCT person_id) AS people,
        sum(quantity) AS units, sum(revenue) AS revenue
    FROM events GROUP BY event ORDER BY event"""
BY_EVENT_CSV = """
    SELECT event, count(*), count(DISTINCT person), sum(Quantity), sum(Quantity * UnitPrice)
    FROM lines WHERE line < $1 GROUP BY event ORDER BY event"""

TOP_COUNTRIES = """
    SELECT country, sum(total) AS total, sum(orders) AS orders
    FROM revenue GROUP BY country ORDER BY total DESC LIMIT 5"""
TOP_COUNTRIES_CSV = """
    SELECT Country, sum(Quantity * UnitPrice) AS total, count(DISTINCT InvoiceNo)
    FROM lines WHERE event = 'Order Completed' AND line < $1 GROUP BY Country ORDER BY total DESC LIMIT 5"""

DAU_CSV = """
    SELECT CAST(day AS DATE), count(DISTINCT person), count(line)
    FROM generate_series(DATE '2010-12-01', DATE '2010-12-23', INTERVAL 1 DAY) AS days(day)
    LEFT JOIN lines ON CAST(InvoiceDate AS DATE) = day GROUP BY day ORDER BY day"""

BEST_DAY = {"start": date(2010, 12, 6), "end": date(2010, 12, 7)}
HOURS_CSV = """
    SELECT hour, count(line) FROM generate_series(TIMESTAMP '2010-12-06', TIMESTAMP '2010-12-06 23:00', INTERVAL 1 HOUR)
    AS hours(hour) LEFT JOIN lines ON date_trunc('hour', InvoiceDate) = hour AND event = 'Order Completed'
    GROUP BY hour ORDER BY hour"""

FOREIGN = "SELECT count(*) FROM events WHERE message_id NOT LIKE ?"
TOTALS_CSV = "SELECT event, count(*) FROM lines GROUP BY event"


NEXT = """
It is all in {directory}. Go on with it in a notebook or a Python shell:

    from lakebed import connect
    shop = connect("{root}", "{name}")
    shop.query("SELECT country, count(*) AS lines FROM events GROUP BY country ORDER BY lines DESC").df()

or over HTTP:

    lakebed serve --root {root} --object {name}
    curl localhost:8080/stats"""


class Plain:
    """What plain DuckDB says of the CSV file. It shares no code with Lakebed."""

    def __init__(self) -> None:
        self._connection = duckdb.connect()
        self._connection.execute(f"""
            CREATE TABLE lines AS SELECT *,
                row_number() OVER () - 1 AS line,
                coalesce(CAST(CustomerID AS INTEGER)::VARCHAR, 'invoice:' || InvoiceNo) AS person,
                CASE WHEN starts_with(InvoiceNo, 'C') THEN 'Order Cancelled'
                     WHEN Quantity > 0 THEN 'Order Completed' ELSE 'Stock Adjusted' END AS event
            FROM read_csv('{CSV}', header = true, columns = {{
                'InvoiceNo': 'VARCHAR', 'StockCode': 'VARCHAR', 'Description': 'VARCHAR', 'Quantity': 'INTEGER',
                'InvoiceDate': 'TIMESTAMP', 'UnitPrice': 'DECIMAL(18, 2)', 'CustomerID': 'DOUBLE', 'Country': 'VARCHAR'
            }})""")

    def ask(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a question; `$1` stands for the first of `values`."""
        return self._connection.execute(sql, list(values)).fetchall()


class Checks:
    """Compares answers, prints what it found, and remembers whether all were right."""

    def __init__(self) -> None:
        self.done = 0
        self.wrong = 0

    def equal(self, what: str, actual: object, expected: object) -> None:
        """One check: a ✓ and what was compared, or a ✗ and both sides."""
        self.done += 1
        right = actual == expected
        self.wrong += not right
        print(f"  {'✓' if right else '✗'} {what}")
        if not right:
            print(f"      Lakebed: {actual}\n      CSV:     {expected}")

    def rows(self, what: str, result: Result, expected: Sequence[Sequence[Any]]) -> None:
        """The same for a whole result. Times without a zone are UTC."""
        self.equal(what, [tuple(map(plain, row)) for row in result], [tuple(map(plain, row)) for row in expected])


def plain(value: Any) -> Any:
    """Values of both sides in one form."""
    return value.astimezone(UTC).replace(tzinfo=None) if isinstance(value, datetime) and value.tzinfo else value


def read_events() -> list[dict[str, Any]]:
    """Each line of the file as an event. Its message id is its line number, so that a second import changes nothing."""
    with gzip.open(CSV, "rt", encoding="utf-8", newline="") as lines:
        return [as_event(number, line) for number, line in enumerate(csv.DictReader(lines))]


def as_event(number: int, line: dict[str, str]) -> dict[str, Any]:
    """One order line. Who has no customer number is anonymous, one person an invoice."""
    invoice, quantity, price = line["InvoiceNo"], int(line["Quantity"]), Decimal(line["UnitPrice"])
    cancels = invoice.startswith("C")
    customer = line["CustomerID"].removesuffix(".0")
    return {
        "type": "track",
        "event": "Order Cancelled" if cancels else "Order Completed" if quantity > 0 else "Stock Adjusted",
        "messageId": f"{ID}{number}",
        "timestamp": f"{line['InvoiceDate']}Z",
        **({"userId": customer} if customer else {"anonymousId": f"invoice:{invoice}"}),
        "properties": {
            "quantity": quantity,
            "unit_price": float(price),
            "revenue": float(quantity * price),
            "sku": line["StockCode"],
            "description": line["Description"] or None,
            "country": line["Country"],
            "invoice": invoice,
        },
    }


async def import_events(shop: Shop, events: Sequence[dict[str, Any]], what: str) -> tuple[int, int]:
    """Hand `events` over in batches, each durable before the next. Returns how many were stored, and duplicates."""
    counts = {"stored": 0, "duplicate": 0, "rejected": 0}
    started = time.perf_counter()
    for first in with_progress(range(0, len(events), CHUNK), what):
        for receipt in await shop.batch(events[first : first + CHUNK]):
            counts[receipt.status] += 1
    seconds = time.perf_counter() - started
    print(f"{what}: {', '.join(f'{count:,} {status}' for status, count in counts.items())} in {seconds:.2f} s", end="")
    print(f" ({len(events) / seconds:,.0f} events/s, durable batch by batch)")
    return counts["stored"], counts["duplicate"]


def with_progress(steps: range, what: str) -> Iterator[int]:
    """`steps`, with a bar on a terminal and nothing elsewhere."""
    shown = sys.stderr.isatty()
    for done, step in enumerate(steps, start=1):
        yield step
        if shown:
            filled = 30 * done // len(steps)
            print(f"\r{what} [{'█' * filled}{'·' * (30 - filled)}] {done}/{len(steps)}", end="", file=sys.stderr)
    if shown:
        print("\r\x1b[K", end="", file=sys.stderr)


def show(title: str, result: Result, most: int = 25) -> None:
    """A result as an aligned table, and the tiers that it came from."""
    print(f"\n{title}  [{' + '.join(result.tiers)}, {result.elapsed_ms:.1f} ms]")
    rows = [[text(value) for value in row] for row in result[:most]]
    numbers = [all(isinstance(row[at], (int, float, Decimal)) for row in result) for at in range(len(result.columns))]
    widths = [max(map(len, column)) for column in zip(result.columns, *rows, strict=True)]
    for line in ([*result.columns], ["─" * width for width in widths], *rows):
        cells = zip(line, widths, numbers, strict=True)
        print("  " + "  ".join(f"{cell:>{width}}" if number else f"{cell:<{width}}" for cell, width, number in cells))


def text(value: object) -> str:
    """A value as a reader wants to see it."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    if isinstance(value, Decimal):
        return f"{value:,.2f}".removesuffix(".00")
    return f"{value:,}" if isinstance(value, int) else "" if value is None else str(value)


async def run(root: Path) -> int:
    """The whole story. Returns the exit code."""
    events, file, checks = read_events(), Plain(), Checks()
    half = len(events) // 2
    # The demo may be run again after weeks: for that its ids, and the log that holds them, must not be forgotten.
    lasting = {"dedupe_window_s": YEAR_S, "retention_s": YEAR_S}
    async with Shop(NAME, root=root, promote=Shop.promoted, **lasting) as shop:
        is_new = shop.stats().next_seq == 0
        if foreign := (await shop.query(FOREIGN, [f"{ID}%"])).scalar():
            print(f"{shop.directory} holds {foreign:,} events of other origin: use another --root, or --fresh")
            return 2
        await settle(shop, events, half, checks)
        await live(shop, file, checks, is_new=is_new)
        await rolled_up(shop, file, checks)
        await over_tiers(shop, file, checks, half, len(events))
        checks.equal("check() finds nothing", await shop.check(), [])
    print(f"\n{checks.done - checks.wrong} of {checks.done} checks agree with the CSV file.")
    return 1 if checks.wrong else 0


async def settle(shop: Shop, events: list[dict[str, Any]], half: int, checks: Checks) -> None:
    """Import the first half, archive it, import the second; then all of it once more."""
    stored, known = await import_events(shop, events[:half], "First half ")
    if stored:
        archived = await shop.archive()
        print(f"             archived {archived.rows:,} rows in {archived.commits} Iceberg commit")
    again = await import_events(shop, events[half:], "Second half")
    checks.equal("every line was stored or known", stored + known + sum(again), len(events))
    repeated = await import_events(shop, events, "All again  ")
    checks.equal("importing it again stores nothing", repeated, (0, len(events)))


async def live(shop: Shop, file: Plain, checks: Checks, *, is_new: bool) -> None:
    """L0: what is going on now."""
    stats = shop.stats()
    print(f"\nLive counters  [L0]  {stats.last_hour:,} events in the last hour, {stats.active:,} people active")
    for name, count in stats.totals.items():
        print(f"  {name:<16} {count:>7,}")
    checks.equal("totals by event", stats.totals, dict(file.ask(TOTALS_CSV)))
    if is_new:
        checks.equal("events in the last hour", stats.last_hour, file.ask("SELECT count(*) FROM lines")[0][0])


async def rolled_up(shop: Shop, file: Plain, checks: Checks) -> None:
    """L2: tables that are kept up to date while events arrive."""
    dau = await shop.dau(**DECEMBER)
    show("Daily active customers", dau)
    checks.rows("people and events of 23 days", dau, file.ask(DAU_CSV))
    best = await shop.report()
    show("Revenue by country, from the rollup", best)
    checks.rows("revenue and orders by country", best, file.ask(TOP_COUNTRIES_CSV, 10**9))
    hours = await shop.timeseries("Order Completed", **BEST_DAY)
    checks.rows("order lines by hour on 6 December", hours, file.ask(HOURS_CSV))


async def over_tiers(shop: Shop, file: Plain, checks: Checks, half: int, total: int) -> None:
    """L1 and L3: one question over log and archive, now and then, before and after everything is archived."""
    then = (await shop.query("SELECT received_at FROM events WHERE seq = ?", [half - 1])).scalar()
    in_log = total - shop.stats().watermark
    for place in ("half of it in the archive", "all of it in the archive"):
        now, past = await shop.query(BY_EVENT), await shop.query(BY_EVENT, as_of=then)
        show(f"All events, {place if in_log else 'all of it in the archive'}", now)
        checks.rows("all events", now, file.ask(BY_EVENT_CSV, total))
        show(f"The same as of {then:%H:%M:%S.%f}, before the second half", past)
        checks.rows("the first half", past, file.ask(BY_EVENT_CSV, half))
        if not in_log:
            checks.equal("the answer came from the archive alone", now.tiers, ("L3",))
            return
        checks.equal("the answer came from log and archive", now.tiers, ("L1", "L3"))
        await shop.archive()
        in_log = 0


def start_over(root: Path) -> None:
    """Delete what an earlier run made under `root`, and nothing else."""
    if (root / NAME / "object.json").is_file():
        shutil.rmtree(root / NAME)


def main() -> int:
    """Read the arguments, tell the story, say what comes next."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--root", type=Path, default=Path("data/online-retail"), help="where to keep it (default: data/online-retail)"
    )
    parser.add_argument("--fresh", action="store_true", help=f"delete the object {NAME!r} under --root first")
    arguments = parser.parse_args()
    if arguments.fresh:
        start_over(arguments.root)
    try:
        code = asyncio.run(run(arguments.root))
    except LakebedError as error:  # the directory is open elsewhere, the disk is full …
        print(error, file=sys.stderr)
        return 2
    if code == 0:
        print(NEXT.format(directory=arguments.root / NAME, root=arguments.root, name=NAME))
    return code


if __name__ == "__main__":
    sys.exit(main())
