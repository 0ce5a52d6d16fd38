"""sessions against plain Python that reads like its definition."""

from __future__ import annotations

import statistics
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakebed import Analytics, ManualClock, QueryRefused
from lakebed.clock import to_us
from tests.reports.ecom import items
from tests.reports.plain_periods import period, periods
from tests.reports.report_cases import PAIRS, START_US, happened, seen, stages

pytestmark = pytest.mark.integration

PEOPLE = ["ann", "bob", "?p1", None]
MINUTE = 60


@st.composite
def streams(draw):
    """Events with gaps around half an hour, over midnight, at equal times."""
    gaps = st.sampled_from([0, 1, 9, 10, 29 * MINUTE, 30 * MINUTE, 30 * MINUTE + 0.000001, 31 * MINUTE, 8 * 3600])
    result, at = [], 20 * 3600
    for _ in range(draw(st.integers(1, 40))):
        at += draw(gaps)
        event = happened(
            draw(st.sampled_from(["home", "cart", "pay"])),
            draw(st.sampled_from(PEOPLE)),
            at,
            {"plan": draw(st.sampled_from(["pro", "free", None]))},
            session=draw(st.sampled_from(["s1", "s2", "s3", None])),
        )
        kind = draw(st.sampled_from(["track", "page"]))
        result.append(event | {"type": kind} | ({"name": event["event"]} if kind == "page" else {}))
    return draw(st.permutations(result))


def plain_sessions(events, timeout_us, use="timeout", start_us=None, end_us=None):
    """Each session as its events in order."""
    ordered = sorted((e for e in events if e.person is not None), key=lambda e: (e.us, e.seq))
    ordered = [e for e in ordered if end_us is None or e.us < end_us]
    result = []
    if use == "session_id":
        by_id = defaultdict(list)
        for event in ordered:
            if event.session is not None:
                by_id[event.session].append(event)
        result = list(by_id.values())
    else:
        open_ = {}
        for event in ordered:
            current = open_.get(event.person)
            if current is None or event.us - current[-1].us > timeout_us:
                current = open_[event.person] = []
                result.append(current)
            current.append(event)
    return [visit for visit in result if start_us is None or visit[0].us >= start_us]


def figures(ones, converts="pay", engaged_us=10_000_000):
    if not ones:
        return (0, 0, None, None, None, None, None)
    lengths = [(visit[-1].us - visit[0].us) / 1e6 for visit in ones]
    engaged = [
        visit[-1].us - visit[0].us >= engaged_us
        or sum(e.type in ("page", "screen") for e in visit) >= 2
        or any(e.event == converts for e in visit)
        for visit in ones
    ]
    count = len(ones)
    return (
        count,
        len({visit[0].person for visit in ones}),
        sum(map(len, ones)) / count,
        sum(lengths) / count,
        statistics.median(lengths),
        sum(len(visit) == 1 for visit in ones) / count,
        sum(engaged) / count,
    )


def same(result, expected):
    assert len(result) == len(expected), (result, expected)
    for row, other in zip(result, expected, strict=True):
        assert tuple(row) == tuple(
            pytest.approx(value, rel=1e-12, abs=1e-9) if isinstance(value, float) else value for value in other
        )


@settings(max_examples=4, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=streams(),
    use=st.sampled_from(["timeout", "session_id"]),
    merged=st.booleans(),
    calendar=st.fixed_dictionaries(
        {
            "grain": st.sampled_from(["hour", "day", "week", "month"]),
            "tz": st.sampled_from(["UTC", "America/Sao_Paulo", "Asia/Kathmandu"]),
            "week_start": st.sampled_from(["monday", "saturday"]),
        }
    ),
    states=st.sampled_from(PAIRS),
)
async def test_sessions_equal_plain_python_in_any_state(tmp_path_factory, events, use, merged, calendar, states):
    """For all events, for a range that cuts sessions, by entry, exit and a property; in any state of an object."""
    merges = (("ann", "bob"),) if merged else ()
    start, end = START_US + 22 * 3600 * 1_000_000, START_US + 40 * 3600 * 1_000_000
    async for stage in stages(tmp_path_factory.mktemp("sessions"), events, merges=merges, only=states, untrusted=()):
        ones = plain_sessions(stage.events, 1800 * 1_000_000, use)
        days = defaultdict(list)
        for visit in ones:
            days[period(visit[0].us, **calendar)].append(visit)
        every = periods(min(days), max(days), calendar["grain"]) if days else []
        same(
            list(await stage.ask("sessions", use=use, conversion="pay", **calendar)),
            [(day, *figures(days[day])) for day in every],
        )
        some = plain_sessions(stage.events, 1800 * 1_000_000, use, start, end)
        whole = await stage.ask(
            "sessions", use=use, conversion="pay", grain=None, start="2026-01-05T22:00Z", end="2026-01-06T16:00Z"
        )
        same(list(whole), [figures(some)] if some else [])
        for by, value in (
            ("entry", lambda visit: visit[0].event),
            ("exit", lambda visit: visit[-1].event),
            ("plan", lambda visit: visit[0].properties["plan"]),
        ):
            groups = defaultdict(list)
            for visit in ones:
                groups[value(visit)].append(visit)
            result = {
                row[0]: tuple(row)[1:]
                for row in await stage.ask("sessions", use=use, by=by, grain=None, conversion="pay")
            }
            assert result.keys() == groups.keys(), (stage.name, by)
            for name, rows in result.items():
                same([rows], [figures(groups[name])])


@pytest.mark.parametrize("people", [150, pytest.param(600, marks=pytest.mark.slow)])
async def test_sessions_of_a_shop_equal_plain_python(tmp_path, people):
    """Visits of 150 people (or 600) to a shop with another timeout, by week in a zone, also through the sandbox."""
    sent = [item | {"type": "track", "anonymousId": None} for item in items(people)]
    events = seen(sent)
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        await shop.batch(sent)
        await shop.archive()
        weeks = defaultdict(list)
        for visit in plain_sessions(events, 120 * 1_000_000):
            weeks[period(visit[0].us, "week", "Asia/Kathmandu", "sunday")].append(visit)
        expected = [(week, *figures(weeks[week], "payment_done")) for week in periods(min(weeks), max(weeks), "week")]
        question = {
            "timeout": "2m",
            "grain": "week",
            "tz": "Asia/Kathmandu",
            "week_start": "sunday",
            "conversion": "payment_done",
        }
        same(list(await shop.sessions(**question)), expected)
        same(list(await shop.report_untrusted("sessions", question)), expected)
        few = await shop.sessions(timeout="2m", grain=None, by="exit", top=2)
        counts = defaultdict(int)
        for visit in plain_sessions(events, 120 * 1_000_000):
            counts[visit[-1].event] += 1
        best = sorted(counts, key=lambda name: (-counts[name], name))[:2]
        others = sum(count for name, count in counts.items() if name not in best)
        assert {row.exit: row.sessions for row in few} == {name: counts[name] for name in best} | {"(other)": others}
        assert await shop.check() == []


async def test_sessions_on_days_when_clocks_change(tmp_path):
    """In Berlin 29 March 2026 has 23 hours and 25 October has 25. A session over midnight is of the first day."""
    events = []
    for season, day in (("spring", "2026-03-28"), ("autumn", "2026-10-24")):
        midnight = to_us(
            datetime.fromisoformat(f"{day}T00:00").replace(tzinfo=ZoneInfo("Europe/Berlin")) + timedelta(1)
        )
        second = (midnight - START_US) // 1_000_000
        events += [happened("a", season, second + at) for at in (-60, 60, 22.5 * 3600, 23.5 * 3600)]
    async with Analytics(
        "shop", root=tmp_path, headroom_bytes=0, clock=ManualClock(datetime(2027, 1, 1, tzinfo=UTC))
    ) as shop:
        await shop.batch([event | {"messageId": str(number)} for number, event in enumerate(events)])
        result = await shop.sessions(tz="Europe/Berlin")
        counts = {str(row.time): row.sessions for row in result if row.sessions}
        assert counts == {"2026-03-28": 1, "2026-03-29": 1, "2026-03-30": 1, "2026-10-24": 1, "2026-10-25": 2}
        assert len(result) == (date(2026, 10, 25) - date(2026, 3, 28)).days + 1
        assert await shop.check() == []


async def test_sessions_equal_those_of_clickhouse(tmp_path):
    """Window functions of another engine find the same sessions of the shop's 600 people, each day."""
    chdb = pytest.importorskip("chdb", reason="chDB comes with the extra `bench`: make bench installs it")
    sent = [item | {"type": "track", "anonymousId": None} for item in items()]
    ordered = sorted(seen(sent), key=lambda event: (event.person, event.us, event.seq))
    table = pa.table(
        {"person": [e.person for e in ordered], "us": [e.us for e in ordered], "seq": [e.seq for e in ordered]}
    )
    pq.write_table(table, tmp_path / "visits.parquet")
    sql = f"""
        SELECT intDiv(first, 86400000000) AS day, count(), uniqExact(person), sum(n), sum(length), countIf(n = 1) FROM (
            SELECT person, min(us) AS first, max(us) - min(us) AS length, count() AS n FROM (
                SELECT person, us, sum(begins) OVER (PARTITION BY person ORDER BY us, seq) AS session FROM (
                    SELECT person, us, seq, us - lagInFrame(us, 1, -1800000001) OVER (
                        PARTITION BY person ORDER BY us, seq ROWS UNBOUNDED PRECEDING) > 1800000000 AS begins
                    FROM file('{tmp_path / "visits.parquet"}', Parquet)
                )
            ) GROUP BY person, session
        ) GROUP BY day ORDER BY day
    """
    expected = [tuple(map(int, line.split(","))) for line in str(chdb.query(sql, "CSV")).split()]
    async with Analytics("shop", root=tmp_path / "root", headroom_bytes=0) as shop:
        await shop.batch(sent)
        actual = [
            (
                (row.time - date(1970, 1, 1)).days,
                row.sessions,
                row.people,
                round(row.events_per_session * row.sessions),
                round(row.avg_seconds * row.sessions * 1e6),
                round(row.bounce_rate * row.sessions),
            )
            for row in await shop.sessions()
            if row.sessions
        ]
    assert actual == expected


@settings(max_examples=4, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=streams(), use=st.sampled_from(["timeout", "session_id"]), size=st.integers(6, 20))
async def test_session_list_adds_up_to_sessions(tmp_path_factory, events, use, size):
    """The pages of the list have each session once, newest first; their figures add up to those of `sessions`."""
    question = {"use": use, "conversion": "pay"}
    async for stage in stages(tmp_path_factory.mktemp("list"), [*events, *events], only=("log",), untrusted=()):
        result, last = [], None
        while page := (await stage.ask("session_list", **question, limit=size, before=last)).rows:
            assert len(page) <= size
            result += page
            last = page[-1].seq
        assert [(row.start, row.seq) for row in result] == sorted(
            {(row.start, row.seq) for row in result}, reverse=True
        )
        seconds = [row.seconds for row in result]
        count = len(result)
        added = (
            count,
            len({row.person_id for row in result}),
            sum(row.events for row in result) / count,
            sum(seconds) / count,
            statistics.median(seconds),
            sum(row.events == 1 for row in result) / count,
            sum(row.engaged for row in result) / count,
        ) if result else None  # fmt: skip
        same(list(await stage.ask("sessions", **question, grain=None)), [added] if result else [])
        (row,) = result[:1] or [None]
        if row is not None:
            rows = await stage.ask("session_list", **question, by="exit", value=row.exit, limit=1)
            assert rows.rows == [row]
            counts = {
                session.exit: session.sessions
                for session in await stage.ask("sessions", **question, by="exit", grain=None)
            }
            assert counts[row.exit] == sum(session.exit == row.exit for session in result)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"limit": 0}, "1 to"),
        ({"before": -1}, "last row"),
        ({"by": ""}, "entry or exit"),
        ({"value": "x"}, "but `by` is missing"),
    ],
)
async def test_invalid_arguments_of_session_list_name_the_valid_ones(tmp_path, arguments, hint):
    """The same for the list."""
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        with pytest.raises(QueryRefused, match=hint):
            await shop.session_list(**arguments)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ({"timeout": "soon"}, "30s"),
        ({"use": "x"}, "session_id"),
        ({"top": 0}, "1 to"),
        ({"by": "People"}, "other than"),
        ({"grain": "year"}, "month"),
    ],
)
async def test_invalid_arguments_name_the_valid_ones(tmp_path, arguments, hint):
    """Each invalid argument is refused, and the hint has the valid ones."""
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        with pytest.raises(QueryRefused, match=hint):
            await shop.sessions(**arguments)
