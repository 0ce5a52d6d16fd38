"""The reports that are measured, and the SQL that an analyst would write instead, for DuckDB and for ClickHouse."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from bench import visits
from lakebed import Analytics
from lakebed.query.result import Result


class Question(msgspec.Struct, frozen=True):
    """A report, and the same in SQL. Each answer is rows of numbers, whose sums must be equal.

    Attributes:
        ask: the report.
        figures: of its rows, what the SQL gives as well.
        sql: for DuckDB; `{events}` is the files of the archive.
        clickhouse: for the table `lake.stored`; "" where it has nothing that fits.
    """

    name: str
    ask: Callable[[Analytics], Awaitable[Result]]
    figures: Callable[[Result], list[tuple[Any, ...]]]
    sql: str
    clickhouse: str = ""


# Of the entries that led to an event, the latest is kept: where that one is too old, all are.
_FUNNEL = """
WITH steps AS (
    SELECT coalesce(user_id, anonymous_id) AS person, event, timestamp AS ts,
    CASE WHEN event = 'Viewed' THEN timestamp END AS entry1
    FROM {events} WHERE event IN ('Viewed', 'Added', 'Checkout', 'Purchased')
), second AS (
    SELECT *, max(entry1) OVER earlier AS entry FROM steps
    WINDOW earlier AS (PARTITION BY person ORDER BY ts
        RANGE BETWEEN UNBOUNDED PRECEDING AND INTERVAL 1 MICROSECOND PRECEDING)
), added AS (
    SELECT * EXCLUDE (entry), CASE WHEN event = 'Added' AND ts <= entry + INTERVAL 1 DAY THEN entry END AS entry2
    FROM second
), third AS (
    SELECT *, max(entry2) OVER earlier AS entry FROM added
    WINDOW earlier AS (PARTITION BY person ORDER BY ts
        RANGE BETWEEN UNBOUNDED PRECEDING AND INTERVAL 1 MICROSECOND PRECEDING)
), checked_out AS (
    SELECT * EXCLUDE (entry), CASE WHEN event = 'Checkout' AND ts <= entry + INTERVAL 1 DAY THEN entry END AS entry3
    FROM third
), fourth AS (
    SELECT *, max(entry3) OVER earlier AS entry FROM checked_out
    WINDOW earlier AS (PARTITION BY person ORDER BY ts
        RANGE BETWEEN UNBOUNDED PRECEDING AND INTERVAL 1 MICROSECOND PRECEDING)
), purchased AS (
    SELECT * EXCLUDE (entry), CASE WHEN event = 'Purchased' AND ts <= entry + INTERVAL 1 DAY THEN entry END AS entry4
    FROM fourth
)
SELECT count(DISTINCT person) FILTER (entry1 IS NOT NULL), count(DISTINCT person) FILTER (entry2 IS NOT NULL),
count(DISTINCT person) FILTER (entry3 IS NOT NULL), count(DISTINCT person) FILTER (entry4 IS NOT NULL)
FROM purchased
"""
_WINDOW_FUNNEL = """
SELECT countIf(level >= 1) AS a, countIf(level >= 2) AS b, countIf(level >= 3) AS c, countIf(level >= 4) AS d FROM (
    SELECT windowFunnel(86400000, 'strict_increase')(
        toUInt64(toUnixTimestamp64Milli(timestamp)),
        event = 'Viewed', event = 'Added', event = 'Checkout', event = 'Purchased'
    ) AS level
    FROM lake.stored WHERE event IN ('Viewed', 'Added', 'Checkout', 'Purchased')
    GROUP BY coalesce(user_id, anonymous_id)
)
"""

QUESTIONS = (
    Question(
        "funnel of four steps",
        lambda analytics: analytics.funnel(visits.STEPS, "1d"),
        lambda result: [tuple(row.people for row in result)],
        _FUNNEL,
        _WINDOW_FUNNEL,
    ),
)
