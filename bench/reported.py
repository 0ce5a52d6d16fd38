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

# An event after a gap begins a session; how many began so far numbers them. Without ROWS, events of one timestamp get
# the same number: with it, the two windows may order them differently, and one may fall into the session before.
_SESSIONS = """
WITH gaps AS (
    SELECT coalesce(user_id, anonymous_id) AS person, timestamp AS ts, type,
    CASE WHEN timestamp - lag(timestamp) OVER own <= INTERVAL 30 MINUTE THEN 0 ELSE 1 END AS begins
    FROM {events} WHERE coalesce(user_id, anonymous_id) IS NOT NULL
    WINDOW own AS (PARTITION BY coalesce(user_id, anonymous_id) ORDER BY timestamp)
), numbered AS (
    SELECT *, sum(begins) OVER (PARTITION BY person ORDER BY ts) AS session FROM gaps
), visits AS (
    SELECT person, min(ts) AS first, epoch_us(max(ts)) - epoch_us(min(ts)) AS us, count(*) AS events,
    count(*) FILTER (type IN ('page', 'screen')) AS views
    FROM numbered GROUP BY person, session
), daily AS (
    SELECT date_trunc('day', first) AS day, count(*) AS sessions, count(DISTINCT person) AS people,
    sum(events) / count(*) AS events_per_session, avg(us) / 1e6 AS avg_seconds, median(us) / 1e6 AS median_seconds,
    count(*) FILTER (events = 1) / count(*) AS bounced,
    count(*) FILTER (us >= 10000000 OR views >= 2) / count(*) AS engaged
    FROM visits GROUP BY day
)
SELECT sessions, people, round(events_per_session * sessions), round(avg_seconds * sessions * 1000),
round(median_seconds * 2000), round(bounced * sessions), round(engaged * sessions)
FROM daily ORDER BY day
"""
_SESSIONS_CLICKHOUSE = """
SELECT count() AS a, uniqExact(person) AS b, sum(events) AS c, sum(ms) AS d,
    round(quantileExactInclusive(0.5)(ms) * 2) AS e, countIf(events = 1) AS f, countIf(ms >= 10000 OR views >= 2) AS g
FROM (
    SELECT person, min(ms_of) AS first, max(ms_of) - min(ms_of) AS ms, count() AS events,
        countIf(type IN ('page', 'screen')) AS views
    FROM (
        SELECT person, ms_of, type,
            sum(begins) OVER (PARTITION BY person ORDER BY ms_of) AS session
        FROM (
            SELECT coalesce(user_id, anonymous_id) AS person, type,
                toUnixTimestamp64Milli(timestamp) AS ms_of,
                ms_of - lagInFrame(ms_of, 1, -10000000000) OVER (
                    PARTITION BY coalesce(user_id, anonymous_id) ORDER BY timestamp ROWS UNBOUNDED PRECEDING
                ) > 1800000 AS begins
            FROM lake.stored WHERE coalesce(user_id, anonymous_id) IS NOT NULL
        )
    ) GROUP BY person, session
) GROUP BY intDiv(first, 86400000) ORDER BY intDiv(first, 86400000)
"""

# Who came when first, and everybody's weeks: put together by person.
_RETENTION = """
WITH starts AS (
    SELECT coalesce(user_id, anonymous_id) AS person, min(date_trunc('week', timestamp)) AS cohort
    FROM {events} WHERE event = 'Viewed' GROUP BY ALL
), returns AS (
    SELECT DISTINCT coalesce(user_id, anonymous_id) AS person, date_trunc('week', timestamp) AS week
    FROM {events} WHERE event = 'Purchased'
)
SELECT people FROM (
    SELECT cohort, 0 AS period, count(*) AS people FROM starts GROUP BY ALL UNION ALL
    SELECT cohort, date_diff('week', cohort, week) AS period, count(*) AS people
    FROM starts JOIN returns USING (person) WHERE week > cohort AND week <= cohort + INTERVAL 12 WEEK GROUP BY ALL
) ORDER BY cohort, period
"""
_RETENTION_CLICKHOUSE = """
WITH people AS (
    SELECT minIf(toMonday(timestamp), event = 'Viewed') AS cohort,
        groupUniqArrayIf(toMonday(timestamp), event = 'Purchased') AS weeks
    FROM lake.stored WHERE event IN ('Viewed', 'Purchased')
    GROUP BY coalesce(user_id, anonymous_id) HAVING countIf(event = 'Viewed') > 0
)
SELECT people FROM (
    SELECT cohort, 0 AS period, count() AS people FROM people GROUP BY cohort UNION ALL
    SELECT cohort, intDiv(week - cohort, 7) AS period, count() AS people
    FROM (SELECT cohort, arrayJoin(weeks) AS week FROM people)
    WHERE week > cohort AND week <= cohort + 84 GROUP BY cohort, period
) ORDER BY cohort, period
"""


def _daily(result: Result) -> list[tuple[Any, ...]]:
    """Rates and lengths as whole numbers, of sessions and of half milliseconds: these are equal to the last digit."""
    return [
        (
            row.sessions,
            row.people,
            round(row.events_per_session * row.sessions),
            round(row.avg_seconds * row.sessions * 1000),
            round(row.median_seconds * 2000),
            round(row.bounce_rate * row.sessions),
            round(row.engaged_rate * row.sessions),
        )
        for row in result
        if row.sessions
    ]


QUESTIONS = (
    Question(
        "funnel of four steps",
        lambda analytics: analytics.funnel(visits.STEPS, "1d"),
        lambda result: [tuple(row.people for row in result)],
        _FUNNEL,
        _WINDOW_FUNNEL,
    ),
    Question(
        "weekly retention over a year",
        lambda analytics: analytics.retention("Viewed", "Purchased"),
        lambda result: [(row.people,) for row in result],
        _RETENTION,
        _RETENTION_CLICKHOUSE,
    ),
    Question(
        "sessions by day",
        lambda analytics: analytics.sessions(),
        _daily,
        _SESSIONS,
        _SESSIONS_CLICKHOUSE,
    ),
)
