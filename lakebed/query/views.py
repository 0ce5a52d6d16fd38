"""The tables that SQL can read beside `events`: views over it."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["PEOPLE", "VIEWS"]

PEOPLE = "_lakebed_people"  # identity and person_id of each identity that belongs to another identity's person

# A trait has the value of the latest identify that sets it, by event time, then message id. DuckDB makes no map of JSON
# with a repeated key, so that case is read key by key. Lambda parameters have names that no promoted column can have.
_TRAITS = """
coalesce(CAST(to_json(list_reduce(
    list_transform(
        list_sort(list({'at': timestamp, 'id': message_id, 'traits': properties}) FILTER (type = 'identify')),
        lambda _lakebed_one: coalesce(
            json_transform(_lakebed_one.traits, '"MAP(VARCHAR, JSON)"'),
            map_from_entries(list_transform(list_distinct(json_keys(_lakebed_one.traits)), lambda _lakebed_key: {
                'key': _lakebed_key,
                'value': json_extract(_lakebed_one.traits, '/' || replace(replace(_lakebed_key, '~', '~0'), '/', '~1'))
            }))
        )
    ),
    lambda _lakebed_one, _lakebed_other: map_concat(_lakebed_one, _lakebed_other)
)) AS VARCHAR), '{}')
"""

VIEWS: Mapping[str, str] = {
    "people": f"""
        SELECT person_id, first_seen, last_seen, events,
        list_sort(list_prepend(person_id, coalesce(others, []))) AS ids, groups, traits FROM (
            SELECT person_id, min(timestamp) AS first_seen, max(timestamp) AS last_seen, count(*) AS events,
            coalesce(list_sort(list(DISTINCT group_id) FILTER (group_id IS NOT NULL)), []) AS groups,
            {_TRAITS} AS traits
            FROM events WHERE person_id IS NOT NULL GROUP BY person_id
        ) LEFT JOIN (SELECT person_id, list(identity) AS others FROM {PEOPLE} GROUP BY person_id) USING (person_id)
    """,
    # The built-in rollups, computed from raw events: for queries about another moment.
    "hourly_events": (
        "SELECT date_trunc('hour', timestamp) AS hour, event, count(*) AS count FROM events GROUP BY ALL"
    ),
    "daily_metrics": (
        "SELECT CAST(timestamp AS DATE) AS date, count(*) AS events, count(DISTINCT person_id) AS dau "
        "FROM events GROUP BY ALL"
    ),
}
