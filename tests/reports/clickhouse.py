"""The reports that ClickHouse can compute, with its own functions, over the same real events."""

from __future__ import annotations

from typing import Any, NamedTuple

DAY = "intDiv(us, 86400000000)"
HOUR = "intDiv(us, 3600000000)"
_OWN = "PARTITION BY person ORDER BY day ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING"
_SEEN = f"SELECT DISTINCT person, {DAY} AS day FROM events WHERE person IS NOT NULL"
_COUNTS = f"SELECT {DAY} AS day, count() AS n FROM events GROUP BY day"


class Peer(NamedTuple):
    """Arguments of a report, and the same report in ClickHouse's SQL over `events(person, us, seq, event, …)`.

    Attributes:
        by: the ClickHouse function that computes it.
        ours: the columns that are compared; days and hours are numbers since 1970.
    """

    arguments: dict[str, Any]
    by: str
    ours: tuple[str, ...]
    sql: str


ORDERS: dict[str, Peer] = {
    "lifecycle": Peer(
        {"grain": "day", "end": "2010-12-24"},
        "lagInFrame, leadInFrame",
        ("time", "new", "returning", "resurrecting", "dormant"),
        f"""
        WITH each AS (SELECT *, lagInFrame(day, 1, -1) OVER own AS before, leadInFrame(day, 1, -1) OVER own AS after
            FROM ({_SEEN}) WINDOW own AS ({_OWN}))
        SELECT day, sum(a), sum(b), sum(c), sum(d) FROM (
            SELECT day, before = -1 AS a, before = day - 1 AS b, before BETWEEN 0 AND day - 2 AS c, 0 AS d FROM each
            UNION ALL SELECT day + 1, 0, 0, 0, 1 FROM each WHERE after != day + 1
        ) WHERE day < 14967 GROUP BY day ORDER BY day WITH FILL
        """,
    ),
    "stickiness": Peer(
        {},
        "uniqExact",
        ("periods", "people"),
        f"""
        SELECT periods, count() FROM (
            SELECT person, uniqExact({DAY}) AS periods FROM events WHERE person IS NOT NULL GROUP BY person
        ) GROUP BY periods ORDER BY periods WITH FILL
        """,
    ),
    "session_list": Peer(
        {"timeout": "1h", "limit": 500},
        "lagInFrame",
        ("seq", "person_id", "events", "seconds"),
        """
        WITH cut AS (
            SELECT *, us - lagInFrame(us, 1, -3600000001) OVER (
                PARTITION BY person ORDER BY us, seq ROWS UNBOUNDED PRECEDING) > 3600000000 AS begins
            FROM events WHERE person IS NOT NULL
        ), numbered AS (SELECT *, sum(begins) OVER (PARTITION BY person ORDER BY us, seq) AS session FROM cut)
        SELECT argMin(seq, (us, seq)) AS first, person, count(), (max(us) - min(us)) / 1000000 FROM numbered
        GROUP BY person, session ORDER BY min(us) DESC, first DESC LIMIT 500
        """,
    ),
    "segmentation": Peer(
        {"events": "Ordered", "measure": "quantile(revenue, 0.9)", "by": "country", "grain": None, "top": 50},
        "quantileExactInclusive",
        ("country", "value"),
        """
        SELECT country, quantileExactInclusive(0.9)(revenue) FROM events WHERE event = 'Ordered'
        GROUP BY country ORDER BY country
        """,
    ),
    "top": Peer(
        {"what": "country", "n": 6},
        "topK, uniqExact",
        ("value", "count", "people"),
        """
        WITH (SELECT topK(6, 100)(country) FROM events) AS best
        SELECT country, count() AS n, uniqExact(person) FROM events WHERE has(best, country)
        GROUP BY country ORDER BY n DESC, country
        """,
    ),
    "paths": Peer(
        {"timeout": "7d", "steps": 3},
        "arraySplit",
        ("step", "source", "target", "people", "count"),
        """
        WITH people AS (
            SELECT person, arraySort(groupArray((us, seq, event))) AS own FROM events WHERE person IS NOT NULL
            GROUP BY person
        ), ways AS (
            SELECT person, arrayDifference(arrayMap(one -> assumeNotNull(one.1), own)) AS gaps,
                arrayJoin(arraySplit((one, gap) -> gap > 7 * 86400000000, own, gaps)) AS visit,
                arrayMap(one -> one.3, visit) AS way
            FROM people
        )
        SELECT step, way[step] AS source, if(step = length(way), '(end)', way[step + 1]) AS target,
            uniqExact(person), count() AS n
        FROM ways ARRAY JOIN [1, 2, 3] AS step WHERE step <= length(way)
        GROUP BY step, source, target ORDER BY step, n DESC, source, target
        """,
    ),
    "anomalies": Peer(
        {"grain": "day", "seasonality": "day", "history": 5, "start": "2010-12-10", "end": "2010-12-20"},
        "quantileExactInclusive",
        ("time", "value", "expected"),
        f"""
        WITH days AS (SELECT day, n FROM ({_COUNTS}) WHERE day < 14963 ORDER BY day WITH FILL)
        SELECT one.day, any(one.n), quantileExactInclusive(0.5)(other.n) FROM days AS one CROSS JOIN days AS other
        WHERE one.day >= 14953 AND other.day BETWEEN one.day - 5 AND one.day - 1 GROUP BY one.day ORDER BY one.day
        """,
    ),
    "cohort_people": Peer(
        {"cohort": {"sequence": ["Ordered", "Cancelled"]}, "limit": 1_000},
        "sequenceMatch",
        ("person_id", "events"),
        """
        SELECT person, count() FROM events WHERE person IS NOT NULL GROUP BY person
        HAVING sequenceMatch('(?1)(?t>0)(?2)')(toUInt64(us), event = 'Ordered', event = 'Cancelled') ORDER BY person
        """,
    ),
    "cohort_size": Peer(
        {"cohort": {"did": "Ordered", "measure": "sum(revenue)", "above": 1_000}},
        "sumIf",
        ("people",),
        """
        SELECT count() FROM (SELECT person FROM events WHERE person IS NOT NULL GROUP BY person
            HAVING sumIf(revenue, event = 'Ordered') > 1000)
        """,
    ),
    "usage": Peer(
        {"organization_id": "EIRE", "grain": "day"},
        "sum of Decimal",
        ("time", "sku", "quantity", "events"),
        f"""
        SELECT {DAY} AS day, sku, sum(toDecimal128(quantity, 9)), count() FROM events WHERE country = 'EIRE'
        GROUP BY day, sku ORDER BY day, sku
        """,
    ),
}
REQUESTS: dict[str, Peer] = {
    "performance": Peer(
        {"grain": "hour"},
        "quantileExactInclusive",
        ("time", "count", "avg_ms", "p50_ms", "p95_ms", "p99_ms", "max_ms", "errors"),
        f"""
        SELECT {HOUR} AS hour, count(), avg(ms), quantileExactInclusive(0.5)(ms), quantileExactInclusive(0.95)(ms),
            quantileExactInclusive(0.99)(ms), max(ms), countIf(status >= 400)
        FROM events GROUP BY hour ORDER BY hour
        """,
    ),
    "errors": Peer(
        {"by": "section", "limit": 1_000},
        "countIf, uniqExactIf",
        ("section", "errors", "requests", "people"),
        """
        SELECT section, countIf(status >= 400) AS lost, count(), uniqExactIf(person, status >= 400) FROM events
        GROUP BY section HAVING lost > 0 ORDER BY lost DESC, section
        """,
    ),
}
ELSEWHERE = {
    "funnel": ("windowFunnel", "tests/reports/test_funnel_clickhouse.py"),
    "funnel_people": ("windowFunnel", "tests/reports/test_funnel_clickhouse.py"),
    "retention": ("retention", "tests/reports/test_retention.py"),
    "sessions": ("lagInFrame", "tests/reports/test_sessions.py"),
}
"""Compared in tests of their own: the function, and the file."""
NONE = {
    "funnel_times": "windowFunnel says how far, not when",
    "timeline": "a list; there is nothing to compute",
}
"""Reports for which ClickHouse has no function, and why."""
