"""The reports against ClickHouse: another engine's functions over the same real events."""

from __future__ import annotations

import csv
from datetime import UTC, date, datetime
from itertools import starmap
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakebed import Analytics, ManualClock
from lakebed.reports.reports import REPORTS
from tests.reports import clickhouse, real_data
from tests.reports.report_cases import seen

pytestmark = pytest.mark.integration

NOW = datetime(2026, 6, 1, tzinfo=UTC)


def written(path, events):
    """Write the events as a table that ClickHouse reads."""
    columns = {
        "person": [event.person for event in events],
        "us": [event.us for event in events],
        "seq": [event.seq for event in events],
        "event": [event.event for event in events],
    }
    names = {"country": "country", "revenue": "revenue", "sku": "sku", "quantity": "quantity", "section": "section"}
    for column, name in (names | {"ms": "duration_ms", "status": "status_code"}).items():
        columns[column] = [event.properties.get(name) for event in events]
    pq.write_table(pa.table(columns), path)


def comparable(value):
    """The text that ClickHouse writes for a value: days and hours are numbers."""
    if isinstance(value, datetime):
        return str(int(value.timestamp()) // 3600)
    return str((value - date(1970, 1, 1)).days if isinstance(value, date) else value)


def alike(actual, expected):
    if actual == expected:
        return True
    try:
        return float(actual) == pytest.approx(float(expected), rel=1e-12)
    except ValueError:
        return False


@pytest.mark.parametrize("name", ["orders", "requests"])
async def test_clickhouse_has_the_same_rows(tmp_path, name):
    """Every report that ClickHouse can compute has the same rows there."""
    chdb = pytest.importorskip("chdb", reason="chDB comes with the extra `bench`: make bench installs it")
    items = [item | {"messageId": f"m{at:06}"} for at, item in enumerate(getattr(real_data, name)())]
    written(tmp_path / "events.parquet", seen(items))
    table = f"WITH events AS (SELECT * FROM file('{tmp_path / 'events.parquet'}', Parquet)) "
    async with Analytics("shop", root=tmp_path / "root", clock=ManualClock(NOW), headroom_bytes=0) as shop:
        await shop.batch(items)
        for report, peer in getattr(clickhouse, name.upper()).items():
            arguments = dict(peer.arguments)
            if "cohort" in arguments:
                await shop.save_cohort(report, arguments["cohort"])
                arguments["cohort"] = report
            result = await getattr(shop, report)(**arguments)
            actual = [[comparable(row[column]) for column in peer.ours] for row in result]
            sql = peer.sql.strip()
            sql = table.strip() + ", " + sql[5:] if sql.startswith("WITH ") else table + sql
            expected = list(csv.reader(str(chdb.query(sql, "CSV")).splitlines()))
            assert len(actual) == len(expected), report
            assert all(all(starmap(alike, zip(*rows, strict=True))) for rows in zip(actual, expected, strict=True)), (
                report
            )
            assert actual, report


def test_every_report_is_compared_or_says_why_not():
    """Each report is compared here or in a named file, or has a reason why not."""
    here = clickhouse.ORDERS.keys() | clickhouse.REQUESTS.keys()
    assert REPORTS.keys() == here | clickhouse.ELSEWHERE.keys() | clickhouse.NONE.keys()
    for function, file in clickhouse.ELSEWHERE.values():
        text = (Path(__file__).parents[2] / file).read_text("utf-8")
        assert function in text
        assert 'importorskip("chdb"' in text
