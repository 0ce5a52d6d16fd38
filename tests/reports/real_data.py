"""Real events for tests of reports: a shop's orders, and a web server's requests."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
RETAIL = ROOT / "examples" / "data" / "online_retail_2010-12.csv.gz"
ACCESS = ROOT / "tests" / "data" / "apache_access_2015-05.tsv.gz"


def orders() -> list[dict[str, Any]]:
    """2,025 orders and cancellations of December 2010, one event each: whole minutes, many equal, a few without person.

    Their properties have the total of all lines and the product of the first. They arrive in another order than they
    happened in.
    """
    lines = defaultdict(list)
    for row in _rows(RETAIL, ","):
        lines[row["InvoiceNo"]].append(row)
    return [_order(number, lines[number]) for number in sorted(lines, key=lambda number: number[::-1])]


def _order(number: str, lines: list[dict[str, str]]) -> dict[str, Any]:
    first = lines[0]
    revenue = sum(int(row["Quantity"]) * Decimal(row["UnitPrice"]) for row in lines)
    return {
        "type": "track",
        "event": "Cancelled" if number.startswith("C") else "Ordered",
        "userId": first["CustomerID"] or None,
        "anonymousId": None,
        "sessionId": f"{first['CustomerID']} {first['InvoiceDate'][:10]}" if first["CustomerID"] else None,
        "timestamp": first["InvoiceDate"].replace(" ", "T") + "Z",
        "properties": {
            "country": first["Country"],
            "revenue": float(revenue),
            "lines": len(lines),
            "organization_id": first["Country"],
            "sku": first["StockCode"],
            "quantity": str(sum(int(row["Quantity"]) for row in lines)),
            "unit": "piece",
        },
    }


def requests() -> list[dict[str, Any]]:
    """5,000 requests of 965 visitors in two days of May 2015. The log has no durations: bytes take their place."""
    return [
        {
            "type": "track",
            "event": "api.request",
            "userId": None,
            "anonymousId": f"visitor {row['visitor']}",
            "sessionId": None,
            "timestamp": row["time"],
            "properties": {
                "method": row["method"],
                "path": row["path"],
                "status_code": int(row["status"]),
                "section": row["path"].split("/")[1].split("?")[0],
            }
            | ({"duration_ms": int(row["bytes"])} if row["bytes"] else {}),
        }
        for row in _rows(ACCESS, "\t")
    ]


def _rows(path: Path, delimiter: str) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        yield from csv.DictReader(lines, delimiter=delimiter)
