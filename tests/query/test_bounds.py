from __future__ import annotations

import os
from datetime import UTC, date, datetime, timedelta

import duckdb
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lakebed.clock import from_us, to_us
from lakebed.query.bounds import UNBOUNDED, Bounds, find_bounds
from lakebed.query.statement import Statement
from lakebed.sql_engine import SqlEngine

DAY = 86_400_000_000
D15 = to_us(datetime(2026, 1, 15, tzinfo=UTC))
NOON = D15 + DAY // 2
ENGINE = SqlEngine(threads=1, memory_bytes=1 << 28)


def found(where: str, params=None, *, tables="events", now_us=None):
    sql = f"SELECT * FROM {tables} WHERE {where}"
    (bounds,) = find_bounds(sql, params, uses=1, now_us=now_us)
    return bounds.low_us, bounds.high_us


ONE_DAY = (D15, D15 + DAY - 1)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("timestamp >= '2026-01-15'", (D15, None)),
        ("timestamp > '2026-01-15'", (D15 + 1, None)),
        ("timestamp < '2026-01-15T00:00:00Z'", (None, D15 - 1)),
        ("timestamp <= TIMESTAMP '2026-01-15 00:00:00'", (None, D15)),
        ("timestamp = TIMESTAMPTZ '2026-01-15 02:00+02'", (D15, D15)),
        ("'2026-01-15' <= timestamp AND timestamp < '2026-01-16'", ONE_DAY),
        ("timestamp BETWEEN '2026-01-15' AND '2026-01-16'", (D15, D15 + DAY)),
        ("timestamp::date = DATE '2026-01-15'", ONE_DAY),
        ("CAST(timestamp AS DATE) = '2026-01-15'", ONE_DAY),
        ("timestamp::date > '2026-01-15'", (D15 + DAY, None)),
        ("timestamp::date <= DATE '2026-01-15'", (None, D15 + DAY - 1)),
        ("timestamp::date >= TIMESTAMP '2026-01-15 12:00'", (D15 + DAY, None)),
        ("date_trunc('day', timestamp) = DATE '2026-01-15'", ONE_DAY),
        ("date_trunc('hour', timestamp) < '2026-01-15 00:30'", (None, D15 + DAY // 24 - 1)),
        ("date_trunc('month', timestamp) = '2026-01-01'", (D15 - 14 * DAY, D15 + 17 * DAY - 1)),
        ("date_trunc('week', timestamp) = '2026-01-12'", (D15 - 3 * DAY, D15 + 4 * DAY - 1)),
        ("timestamp >= DATE '2026-01-14' + INTERVAL 1 DAY", (D15, None)),
        ("timestamp >= TIMESTAMP '2026-01-16' - INTERVAL '24 hours'", (D15, None)),
        ("Timestamp >= '2026-01-15' AND event = 'x' AND (user_id = 'a' OR user_id = 'b')", (D15, None)),
        ("events.timestamp >= '2026-01-15' AND (timestamp < '2026-01-16')", ONE_DAY),
        ("timestamp > '2026-01-14' AND timestamp >= '2026-01-15'", (D15, None)),
    ],
)
def test_understood(where, expected):
    """These conditions bound the timestamps, inclusive on both sides."""
    assert found(where) == expected


@pytest.mark.parametrize(
    "where",
    [
        "true",
        "timestamp >= '2026-01-15' OR event = 'x'",
        "NOT (timestamp < '2026-01-15')",
        "timestamp <> '2026-01-15'",
        "received_at >= '2026-01-15'",
        "timestamp >= received_at",
        "timestamp >= (SELECT max(x) FROM other)",
        "timestamp >= '15.1.2026'",
        "timestamp::date >= '2026-01-15 12:00'",
        "timestamp::timestamp >= '2026-01-15T00:00:00+02'",
        "date_trunc(day, timestamp) = '2026-01-15'",
        "date_trunc('day', received_at) = '2026-01-15'",
        "timestamp AT TIME ZONE 'Asia/Tokyo' >= '2026-01-15'",
        "timestamp >= ?",
        "timestamp >= now() - INTERVAL 1 MONTH",
        "timestamp >= '1500-01-01'",
    ],
)
def test_not_understood(where):
    """A condition that is not understood bounds nothing."""
    assert found(where) == (None, None)


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ("events", (D15, None)),
        ("events AS e", (D15, None)),
        ("events JOIN people USING (person_id)", (D15, None)),
        ("events LEFT JOIN people ON true", (D15, None)),
        ("people FULL JOIN events ON true", (D15, None)),
        ("events, people", (D15, None)),
        ("events TABLESAMPLE 10%", (None, None)),
        ("events AS e(a, b)", (None, None)),
        ("main.events", (None, None)),
        ("people SEMI JOIN events USING (person_id)", (None, None)),
        ("people ANTI JOIN events USING (person_id)", (None, None)),
        ("people ASOF JOIN events ON first_seen <= timestamp", (None, None)),
        ("people POSITIONAL JOIN events", (None, None)),
        ("people NATURAL JOIN events", (None, None)),
        ("other LEFT JOIN events USING (timestamp)", (None, None)),
        ("(SELECT * FROM events)", (None, None)),
    ],
)
def test_where_it_stands(tables, expected):
    """A WHERE bounds the tables of its own FROM, unless the join or sample chooses rows by itself."""
    assert found("timestamp >= '2026-01-15'", tables=tables) == expected


@pytest.mark.parametrize(
    ("where", "params"),
    [
        ("timestamp >= ? AND timestamp < ?", [from_us(D15), from_us(D15 + DAY)]),
        ("event = ? AND timestamp >= ? AND timestamp < ?", ["?", "2026-01-15", date(2026, 1, 16)]),
        ("timestamp >= $low AND timestamp < $high", {"low": datetime(2026, 1, 15), "high": "2026-01-16T00:00:00Z"}),  # noqa: DTZ001
        ("timestamp >= $2 AND timestamp < $1", [from_us(D15 + DAY), from_us(D15)]),
        ("timestamp BETWEEN ? AND ?::TIMESTAMPTZ - INTERVAL 1 MICROSECOND", [from_us(D15), "2026-01-16"]),
        ("event = '?' /* ? */ AND timestamp::date = ?", [date(2026, 1, 15)]),
    ],
)
def test_parameters(where, params):
    """Parameters by position and by name bound like literals."""
    assert found(where, params) == ONE_DAY


def test_position_of_parameters_is_that_of_the_text():
    """`?` are counted through the whole text, in whatever order a tree would hold them."""
    sql = "WITH q AS (SELECT ? AS a) SELECT ?, (SELECT count(*) FROM events WHERE timestamp >= ?) FROM q LIMIT ?"
    params = ["2020-01-01", "2021-01-01", "2026-01-15", 3]
    assert find_bounds(sql, params, uses=1) == (Bounds(low_us=D15),)
    assert find_bounds(sql, params[:3], uses=1) == (UNBOUNDED,)


def test_now():
    """`now()` is a constant of the transaction, where that is known."""
    assert found("timestamp >= now() - INTERVAL 7 DAYS", now_us=NOON) == (NOON - 7 * DAY, None)
    assert found("timestamp >= current_date AND timestamp < current_timestamp", now_us=NOON) == (D15, NOON - 1)
    assert found("timestamp >= today() - INTERVAL 1 WEEK", now_us=NOON) == (D15 - 7 * DAY, None)
    assert found("timestamp >= now()") == (None, None)


def test_every_use_counts():
    """Each use of the table has bounds of its own; one without bounds is unbounded."""
    day = "(SELECT count(*) FROM events WHERE timestamp::date = '{}')"
    sql = f"SELECT {day.format('2026-01-15')} - {day.format('2026-01-20')}"
    assert set(find_bounds(sql, None, uses=2)) == {Bounds(*ONE_DAY), Bounds(D15 + 5 * DAY, D15 + 6 * DAY - 1)}
    assert UNBOUNDED in find_bounds("SELECT * FROM events e JOIN (SELECT * FROM events) f USING (seq)", None, uses=2)


def test_parsers_that_disagree_bound_nothing():
    """Where DuckDB saw another number of uses, or sqlglot cannot read the text, nothing is left out."""
    sql = "SELECT * FROM events WHERE timestamp >= '2026-01-15'"
    assert find_bounds(sql, None, uses=2) == (UNBOUNDED,)
    assert find_bounds("SELECT * FROM events WHERE timestamp >= (((", None, uses=1) == (UNBOUNDED,)


# Soundness: with and without the events that the bounds leave out, DuckDB gives the same answer.

MOMENTS = sorted(
    {
        D15 + days * DAY + offset
        for days in (-400, -31, -15, -14, -3, -1, 0, 1, 4, 17)
        for offset in (-1, 0, 1, DAY // 24, DAY // 2, DAY // 2 + 1)
    }
)
EVENTS = pa.table({"seq": list(range(len(MOMENTS))), "timestamp": pa.array(MOMENTS, pa.timestamp("us", tz="UTC"))})
OTHER = pa.table({"seq": [1, 5, 9, 30, 31, 200], "k": ["day", "hour", "day", "week", "day", "day"]})

moments = st.sampled_from([D15, NOON, NOON + 1, D15 - 14 * DAY, D15 + DAY - 1, D15 - 3 * DAY, D15 + 17 * DAY])
naive = moments.map(lambda us: from_us(us).replace(tzinfo=None).isoformat(" "))
texts = st.one_of(
    naive,
    moments.map(lambda us: from_us(us).date().isoformat()),
    moments.map(lambda us: from_us(us).isoformat()),
    moments.map(lambda us: from_us(us).astimezone(tz=from_us(us).tzinfo).isoformat().replace("+00:00", "+05:30")),
    moments.map(lambda us: f"{from_us(us):%Y-%m-%d %H:%M}"),
)
units = st.sampled_from(["DAY", "HOURS", "WEEK", "MONTH", "MINUTE", "SECONDS"])
values = st.one_of(
    texts, moments.map(from_us), moments.map(lambda us: from_us(us).date()), st.integers(0, 3), st.none()
)


@st.composite
def constants(draw, params):
    kind = draw(st.sampled_from(["text", "typed", "cast", "interval", "param", "now"]))
    text = draw(texts)
    if kind == "text":
        return f"'{text}'"
    if kind == "typed":
        return f"{draw(st.sampled_from(['DATE', 'TIMESTAMP', 'TIMESTAMPTZ', 'TIMESTAMP WITH TIME ZONE']))} '{text}'"
    if kind == "cast":
        first, second = (draw(st.sampled_from(["DATE", "TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMP_S"])) for _ in range(2))
        return draw(st.sampled_from([f"'{text}'::{first}", f"CAST('{text}'::{first} AS {second})"]))
    if kind == "interval":
        amount, unit, sign = draw(st.integers(0, 40)), draw(units), draw(st.sampled_from("+-"))
        interval = draw(st.sampled_from([f"INTERVAL {amount} {unit}", f"INTERVAL '{amount} {unit}'"]))
        return f"({draw(constants(params))} {sign} {interval})"
    if kind == "now":
        return draw(
            st.sampled_from(["now()", "current_date", "today()", "current_timestamp", "(now() - INTERVAL 1 DAY)"])
        )
    params.append(draw(values))
    return "?" + draw(st.sampled_from(["", "::DATE", "::TIMESTAMPTZ"]))


columns = st.sampled_from(
    [
        "timestamp",
        "(events.timestamp)",
        '"Timestamp"',
        "timestamp::DATE",
        "timestamp::TIMESTAMP",
        "CAST(timestamp::TIMESTAMP AS DATE)",
        "date_trunc('day', timestamp)",
        "date_trunc('hour', timestamp)",
        "date_trunc('week', timestamp)",
        "date_trunc('month', timestamp)::TIMESTAMP",
        "date_trunc('quarter', timestamp::TIMESTAMP)",
        "date_trunc('day', timestamp::DATE)",
        "date_trunc('day', timestamp)::DATE",
        "date_trunc(k, timestamp)",
        "timestamp + INTERVAL 1 DAY",
    ]
)


@st.composite
def conditions(draw, params, depth=2):
    kind = draw(st.sampled_from(["compare", "compare", "between", "and", "or", "not", "in"] if depth else ["compare"]))
    if kind in ("and", "or"):
        return f"({draw(conditions(params, depth - 1))} {kind} {draw(conditions(params, depth - 1))})"
    if kind == "not":
        return f"NOT {draw(conditions(params, depth - 1))}"
    column = draw(columns)
    if kind == "between":
        return f"{column} BETWEEN {draw(constants(params))} AND {draw(constants(params))}"
    if kind == "in":
        return f"{column} IN ({draw(constants(params))})"
    operator = draw(st.sampled_from(["=", "<", "<=", ">", ">=", "<>", "IS DISTINCT FROM"]))
    pair = [column, draw(constants(params))]
    return f" {operator} ".join(pair if draw(st.booleans()) else reversed(pair))


SHAPES = [
    "SELECT count(*), min(timestamp), max(timestamp), sum(events.seq) FROM events, (SELECT 'day' AS k) WHERE {}",
    "SELECT o.seq, events.seq FROM other o LEFT JOIN events ON o.seq = events.seq WHERE {} ORDER BY ALL",
    "SELECT o.seq, events.seq FROM events FULL JOIN other o USING (seq) WHERE {} ORDER BY ALL",
    "SELECT o.seq FROM other o ANTI JOIN events ON o.seq = events.seq, (SELECT now() AS timestamp) events WHERE {}",
    "SELECT seq, k FROM other WHERE seq IN (SELECT events.seq FROM events JOIN other ON true WHERE {}) ORDER BY ALL",
    "WITH events AS (SELECT seq, timestamp, 'day' AS k FROM events WHERE {}) SELECT count(*), sum(seq) FROM events",
    "SELECT count(*), (SELECT sum(seq) FROM events) FROM events, (SELECT 'hour' AS k) WHERE {}",
    "SELECT o.seq, events.seq FROM other o ASOF JOIN events ON o.seq >= events.seq WHERE {} ORDER BY ALL",
    "SELECT count(*) FILTER ({}) FROM events, (SELECT 'day' AS k)",
    "SELECT events.seq FROM events LEFT JOIN other o ON {} AND events.seq = o.seq ORDER BY ALL",
]


@pytest.mark.integration
@settings(max_examples=int(os.environ.get("BOUNDS_EXAMPLES", "150")), deadline=None)
@given(st.data(), st.sampled_from(SHAPES))
def test_nothing_that_could_match_is_left_out(data, shape):
    """For any query, leaving out events outside the bounds does not change the answer."""
    params: list = []
    sql = shape.format(data.draw(conditions(params)))
    cursor = ENGINE.cursor()
    try:
        cursor.register("other", OTHER)
        cursor.execute("BEGIN TRANSACTION READ ONLY")
        ((now_us,),) = cursor.execute("SELECT epoch_us(now())").fetchall()
        try:
            uses = Statement.parse(sql, cursor).tables["events"]
            cursor.register("events", EVENTS)
            expected = cursor.sql(sql, params=params).to_arrow_table()
        except duckdb.Error:
            assume(False)
        bounds = find_bounds(sql, params, uses=uses, now_us=now_us)
        kept = [any(bound.overlaps(us, us) for bound in bounds) for us in MOMENTS]
        cursor.unregister("events")
        cursor.register("events", EVENTS.filter(pa.array(kept)))
        assert cursor.sql(sql, params=params).to_arrow_table() == expected
    finally:
        cursor.close()


def test_the_soundness_test_prunes():
    """The test above means something: a typical condition does leave events out."""
    (bounds,) = find_bounds(SHAPES[0].format("timestamp::DATE = '2026-01-15'"), None, uses=1)
    kept = [us for us in MOMENTS if bounds.overlaps(us, us)]
    assert 0 < len(kept) < len(MOMENTS) / 2
    assert from_us(kept[0]).date() == from_us(kept[-1]).date() == date(2026, 1, 15)
    assert timedelta(microseconds=kept[-1] - kept[0]) < timedelta(days=1)
