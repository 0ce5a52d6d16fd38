"""The times that a WHERE can see: never too few, and files of other times are not opened."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakebed import Analytics
from lakebed.query.dialects.analytics_engine.dataset import Dataset
from lakebed.query.dialects.analytics_engine.translation import translate

NOW = datetime(2026, 1, 9, 12, 0, 0, 700_000, UTC)


def at(day, second=0):
    return datetime(2026, 1, day) + timedelta(seconds=second)  # noqa: DTZ001 - as the dialect has it


@pytest.mark.parametrize(
    ("where", "low", "high"),
    [
        ("timestamp >= toDateTime(1767571200) AND timestamp <= toDateTime(1767657600)", at(5), at(6, 1)),
        ("timestamp >= toDateTime(1767571200500/1000) AND timestamp < '2026-01-06'", at(5), at(6)),
        ("timestamp > now() - INTERVAL '1' DAY", at(8, 43_200), None),
        ("timestamp > now() - 86400", at(8, 43_200), None),
        ("timestamp > now() - 1.5", None, None),
        ("'2026-01-06 00:00:00' > timestamp", None, at(6)),
        ("timestamp BETWEEN '2026-01-05' AND toDateTime('2026-01-06 00:00:00') + INTERVAL 1 HOUR", at(5), at(6, 3601)),
        ("(blob1 = 'a' AND (timestamp = '2026-01-05 00:00:10'))", at(5, 10), at(5, 11)),
        ("timestamp >= '2026-01-05' OR blob1 = 'a'", None, None),
        ("NOT (timestamp >= '2026-01-05')", None, None),
        ("timestamp >= toDateTime('20260105')", None, None),
        ("timestamp >= toDateTime('2026-01-05 00:00:00', 'Asia/Tokyo')", None, None),
        ("timestamp >= toDateTime(double1)", None, None),
        ("timestamp >= now() - INTERVAL '1' MONTH", None, None),
        ("toStartOfHour(timestamp) >= '2026-01-05'", None, None),
        ("1 = 1", None, None),
    ],
)
def test_what_is_understood(where, low, high):
    """Constants beside the column itself, joined by AND; anything else bounds nothing."""
    span = translate(f"SELECT count() FROM t WHERE {where}", NOW).span
    assert (span.low, span.high) == (low, high)


def test_only_the_select_that_reads_the_table():
    """A condition around a subquery says nothing of the table: its `timestamp` may be another."""
    inner = "SELECT timestamp + INTERVAL '1' DAY AS timestamp FROM t"
    assert translate(f"SELECT count() FROM ({inner}) WHERE timestamp > '2026-01-05'", NOW).span == (None, None)
    outer = f"SELECT count() FROM ({inner} WHERE timestamp > '2026-01-05') WHERE timestamp > '2027-01-01'"
    assert translate(outer, NOW).span == (at(5), None)


@settings(max_examples=40, derandomize=True)
@given(
    raw=st.integers(-3_000_000, 3_000_000).map(lambda us: at(5) + timedelta(microseconds=us)),
    text=st.sampled_from(["2026-01-05 00:00:00", "2026-01-05 00:00:01", "2026-01-05", "2026-01-04 23:59:59.5"]),
    form=st.sampled_from(["{0}", "toDateTime({0})", "toDateTime({0}) + INTERVAL '1' SECOND"]),
    sign=st.sampled_from([">", ">=", "<", "<=", "="]),
    mirrored=st.booleans(),
)
def test_no_row_is_left_out(raw, text, form, sign, mirrored):
    """An event whose second satisfies the condition lies within."""
    value = datetime.fromisoformat(text)
    if "toDateTime" in form:
        value = value.replace(microsecond=0) + timedelta(seconds=1 if "INTERVAL" in form else 0)
    constant = form.format(f"'{text}'")
    where = f"{constant} {sign} timestamp" if mirrored else f"timestamp {sign} {constant}"
    truncated = raw.replace(microsecond=0)
    left, right = (value, truncated) if mirrored else (truncated, value)
    holds = {">": left > right, ">=": left >= right, "<": left < right, "<=": left <= right, "=": left == right}[sign]
    low, high = translate(f"SELECT count() FROM t WHERE {where}", NOW).span
    assert not holds or ((low is None or raw >= low) and (high is None or raw < high))


async def test_files_of_other_times_are_not_opened(tmp_path):
    """A query of one day, as Grafana sends it, reads the file of that day and no other file."""
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        await shop.batch(
            {
                "type": "track",
                "event": "Hit",
                "userId": "u",
                "timestamp": f"2026-01-{day:02}T12:00:00Z",
                "properties": {},
            }
            for day in range(1, 6)
        )
        await shop.archive()
        table = Dataset.of({"event": "Hit"}).sql("hits", ())
        where = "timestamp >= toDateTime(1767312000) AND timestamp <= toDateTime(1767398399)"  # 2 January
        for condition, files in ((where, 1), ("1 = 1", 5)):
            result = await shop.query(translate(f"SELECT count() FROM hits WHERE {condition}", NOW).over(table))
            assert (result.scalar(), len(result.files)) == (files, files)
