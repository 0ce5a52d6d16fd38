from __future__ import annotations

import pytest

from lakebed.query.statement import Statement
from lakebed.sql_engine import SqlEngine
from tests.query.parts import opened, us

DAY = 86_400_000_000
ENGINE = SqlEngine(threads=1, memory_bytes=1 << 28)


def parsed(sql: str) -> Statement:
    cursor = ENGINE.cursor()
    try:
        return Statement.parse(sql, cursor)
    finally:
        cursor.close()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM events",
        "select COUNT(*) as n from Events e -- all",
        "SELECT count() FROM events;",
        "FROM events SELECT count(*)",
    ],
)
def test_counting_is_seen(sql):
    """A query for the number of all events is recognized in every form."""
    assert parsed(sql).is_count


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT count(*) FROM events WHERE event = 'a'",
        "SELECT count(*) FROM events GROUP BY event",
        "SELECT count(*) FROM events GROUP BY ()",
        "SELECT count(*) FROM events GROUP BY ALL",
        "SELECT count(*) FROM events HAVING count(*) > 1",
        "SELECT count(*) FROM events LIMIT 0",
        "SELECT count(*) FROM events OFFSET 1",
        "SELECT DISTINCT count(*) FROM events",
        "SELECT count(*) FROM events QUALIFY row_number() OVER () = 1",
        "SELECT count(*) FROM events USING SAMPLE 1 ROWS",
        "SELECT count(*) FROM events TABLESAMPLE 10%",
        "SELECT count(*) FROM events e(seq)",
        "SELECT count(*) FROM main.events",
        "SELECT count(*) FROM people",
        "SELECT count(*) FROM events, events AS other",
        "SELECT count(*) FROM (SELECT * FROM events)",
        "SELECT count(*) FILTER (WHERE seq > 1) FROM events",
        "SELECT count(*) OVER () FROM events",
        "SELECT count(DISTINCT seq) FROM events",
        "SELECT count(user_id) FROM events",
        "SELECT count(*) + 1 FROM events",
        "SELECT count(*), 1 FROM events",
        "SELECT sum(1) FROM events",
        "SELECT 1",
        "WITH events AS (SELECT 1) SELECT count(*) FROM events",
        "SELECT count(*) FROM events UNION ALL SELECT count(*) FROM events",
    ],
)
def test_more_than_counting_is_not_taken_for_it(sql):
    """A query for anything else, however little, is left to DuckDB."""
    assert not parsed(sql).is_count


async def test_counts_agree_with_the_rows_of_every_tier(tmp_path):
    """The number of events is that of the rows, over archive, sealed files and tail, at any instant and snapshot."""
    start = us("2026-03-01")
    async with opened(tmp_path) as parts:
        instants = []
        for step in range(4):
            await parts.track([{"event": "Visit", "timestamp": start + at * DAY} for at in range(5)])
            instants.append(parts.clock.now_us())
            parts.clock.advance(60)
            if step == 1:
                await parts.to_archive(7)
            if step == 2:
                await parts.seal()
        for known, as_of in [(20, None), *zip((5, 10, 15, 20), instants, strict=True)]:
            counted = await parts.queries.ask("SELECT count(*) AS n FROM events", as_of_us=as_of)
            rows = await parts.queries.ask("SELECT seq FROM events", as_of_us=as_of)
            assert [row.n for row in counted] == [known] == [len(rows)]
            assert (counted.files, counted.tiers, counted.seq) == (rows.files, rows.tiers, rows.seq)
        (snapshot,) = await parts.archive.snapshots()
        assert (await parts.queries.run("SELECT count(*) FROM events", snapshot=snapshot.id)).scalar() == 7


async def test_a_count_keeps_its_shape(tmp_path):
    """The column is named as DuckDB names it, is int64, and a limit of 0 leaves no row."""
    async with opened(tmp_path) as parts:
        await parts.track([{"event": "Visit"}] * 3)
        await parts.to_archive()
        table = (await parts.queries.run("SELECT count(*) FROM events")).arrow()
        assert (table.column_names, str(table.schema.types[0])) == (["count_star()"], "int64")
        assert len(await parts.queries.run("SELECT count(*) FROM events", limit=0)) == 0
        await parts.archive.erase("event", ["Visit"])
        assert (await parts.queries.run("SELECT count(*) FROM events")).scalar() == 0
