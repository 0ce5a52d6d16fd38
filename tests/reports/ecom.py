"""The visits of 600 people to a made-up shop, for tests of reports. tests/data/README.md has the source."""

from __future__ import annotations

import csv
import gzip
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "data" / "retentioneering_ecom.csv.gz"
KEPT = ("platform", "acquisition_channel", "user_cohort", "user_lifecycle")


@cache
def rows() -> tuple[dict[str, str], ...]:
    """Its 31,106 rows, in the order of the file: user_id, session_id, event, timestamp and `KEPT`."""
    with gzip.open(FILE, "rt", encoding="utf-8", newline="") as lines:
        return tuple(csv.DictReader(lines))


def items(people: int = 600) -> list[dict[str, Any]]:
    """Its events of the first so many people for `Analytics.batch`, in order; the columns in `KEPT` are properties."""
    return [
        {
            "event": row["event"],
            "userId": row["user_id"],
            "sessionId": row["session_id"],
            "messageId": f"ecom-{number}",
            "timestamp": row["timestamp"].replace(" ", "T") + "Z",
            "properties": {name: row[name] for name in KEPT},
        }
        for number, row in enumerate(rows())
        if row["user_id"] < f"user_{people:04}"
    ]
