"""The questions that are put to the stored events, in DuckDB's and in ClickHouse's SQL."""

from __future__ import annotations

import msgspec

_DAY = ("2025-12-20 00:00:00", "2025-12-21 00:00:00")


class Question(msgspec.Struct, frozen=True):
    """One question. `{events}` is the table."""

    name: str
    sql: str
    clickhouse: str = ""

    def in_clickhouse(self) -> str:
        """For chDB's table."""
        return (self.clickhouse or self.sql).format(events="lake.stored")


QUESTIONS = (
    Question("count(*)", "SELECT count(*) AS n FROM {events}"),
    Question("by event", "SELECT event, count(*) AS n FROM {events} GROUP BY event ORDER BY n DESC, event LIMIT 20"),
    Question(
        "distinct users",
        "SELECT count(DISTINCT user_id) AS n FROM {events}",
        "SELECT uniqExact(user_id) AS n FROM {events}",
    ),
    Question(
        "one day of thirty",
        "SELECT count(*) AS n, sum(revenue) AS revenue FROM {events} "
        f"WHERE timestamp >= TIMESTAMPTZ '{_DAY[0]}+00' AND timestamp < TIMESTAMPTZ '{_DAY[1]}+00'",
        "SELECT count(*) AS n, sum(revenue) AS revenue FROM {events} "
        f"WHERE timestamp >= toDateTime64('{_DAY[0]}', 6, 'UTC') AND timestamp < toDateTime64('{_DAY[1]}', 6, 'UTC')",
    ),
    Question(
        "revenue by day (promoted column)",
        "SELECT CAST(timestamp AS DATE) AS day, sum(revenue) AS revenue FROM {events} GROUP BY day ORDER BY day",
        "SELECT toDate(timestamp, 'UTC') AS day, sum(revenue) AS revenue FROM {events} GROUP BY day ORDER BY day",
    ),
    Question(
        "best customers",
        "SELECT user_id, sum(revenue) AS total FROM {events} WHERE user_id IS NOT NULL GROUP BY user_id "
        "ORDER BY total DESC NULLS LAST, user_id LIMIT 10",
    ),
    Question(
        "by a JSON property",
        "SELECT json_extract_string(properties, '$.referrer') AS referrer, count(*) AS n FROM {events} "
        "WHERE type = 'page' GROUP BY referrer ORDER BY n DESC, referrer LIMIT 20",
        "SELECT JSONExtractString(properties, 'referrer') AS referrer, count(*) AS n FROM {events} "
        "WHERE type = 'page' GROUP BY referrer ORDER BY n DESC, referrer LIMIT 20",
    ),
)
