"""Templates over real orders, each compared with plain Python over the same lines."""

from __future__ import annotations

import csv
import gzip
from collections import Counter, defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from lakebed import InvalidAsOf, ManualClock, QueryRefused, connect
from lakebed.clock import from_us
from lakebed.query.templates.templates import Template, library

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
RETAIL = ROOT / "examples" / "data" / "online_retail_2010-12.csv.gz"
LINES = 4_000
CATEGORIES = {"time series", "performance", "errors", "users", "billing", "cohorts", "anomalies"}


def orders():
    """Lines of real orders. Their price stands in for a duration, their country for a path; a return is a failure."""
    with gzip.open(RETAIL, "rt", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    for at, line in enumerate(lines[:: max(1, len(lines) // LINES)]):
        quantity = int(line["Quantity"])
        yield {
            "at": datetime.fromisoformat(line["InvoiceDate"]).replace(tzinfo=UTC),
            "event": "Returned" if quantity < 0 else "Bought",
            "user": line["CustomerID"].removesuffix(".0") or None,
            "session": line["InvoiceNo"],
            "id": str(at),
            "properties": {
                "quantity": quantity,
                "unit": "piece",
                "sku": line["StockCode"],
                "organization_id": line["Country"],
                "path": f"/{line['Country']}",
                "method": "POST",
                "duration_ms": float(line["UnitPrice"]) * 100,
                "status_code": 503 if quantity < 0 else 404 if not line["CustomerID"] else 200,
            },
        }


@pytest.fixture(scope="module")
def lines():
    return list(orders())


@pytest.fixture(scope="module")
def shop(tmp_path_factory, lines):
    """An object with the lines as events. No test changes it."""
    clock = ManualClock(datetime(2011, 6, 1, tzinfo=UTC))
    with connect(tmp_path_factory.mktemp("templates"), "shop", clock=clock) as analytics:
        receipts = analytics.batch(
            {
                "type": "track",
                "event": line["event"],
                "userId": line["user"],
                "sessionId": line["session"],
                "messageId": line["id"],
                "timestamp": line["at"].isoformat(),
                "properties": line["properties"],
            }
            for line in lines
        )
        assert {receipt.status for receipt in receipts} == {"stored"}
        yield analytics


def grouped(lines, key):
    groups = defaultdict(list)
    for line in lines:
        groups[key(line)].append(line)
    return groups


def quantile(values, q):
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return pytest.approx(ordered[below] + (ordered[above] - ordered[below]) * (position - below))


def hour(line):
    return line["at"].replace(minute=0, second=0)


def monday(moment):
    return moment.date() - timedelta(days=moment.weekday())


def people(group):
    return len({line["user"] for line in group} - {None})


def ms(group):
    return [line["properties"]["duration_ms"] for line in group]


def bad(group, least=400):
    return [line for line in group if line["properties"]["status_code"] >= least]


def prop(name):
    return lambda line: line["properties"][name]


def started(moment):
    """The start of a period, as a date."""
    return moment.date() if isinstance(moment, datetime) else moment


def events_by(key):
    return lambda lines: {at: (len(group), people(group)) for at, group in grouped(lines, key).items()}


def rolling(lines):
    counts = Counter(map(hour, lines))
    return {
        at: (count, sum(n for other, n in counts.items() if at - timedelta(hours=23) <= other <= at))
        for at, count in counts.items()
    }


def week_over_week(lines):
    counts = Counter(monday(line["at"]) for line in lines)
    return {
        week: (
            count,
            counts.get(week - timedelta(7)),
            pytest.approx(count / counts[week - timedelta(7)] - 1) if week - timedelta(7) in counts else None,
        )
        for week, count in counts.items()
    }


def apdex(lines):
    scores = {}
    for path, group in grouped(lines, prop("path")).items():
        durations = ms([line for line in group if line["properties"]["status_code"] < 400])
        points = sum(1 if milliseconds <= 500 else 0.5 if milliseconds <= 2000 else 0 for milliseconds in durations)
        scores[path] = (len(group), pytest.approx(points / len(group)))
    return scores


def cohorts(lines):
    weeks = defaultdict(set)
    for line in lines:
        if line["user"]:
            weeks[line["user"]].add(monday(line["at"]))
    return dict(Counter((min(active), (week - min(active)).days // 7) for active in weeks.values() for week in active))


def conversion(lines):
    first = {}
    for line in sorted(lines, key=lambda line: line["at"]):
        if line["user"] and line["event"] == "Bought":
            first.setdefault(line["user"], line["at"])
    converted = {
        line["user"]
        for line in lines
        if line["event"] == "Returned" and line["user"] in first and line["at"] > first[line["user"]]
    }
    return {len(first): (len(converted), pytest.approx(len(converted) / len(first)))}


def spikes(lines):
    counts = Counter(map(hour, lines))
    result = {}
    for at, count in counts.items():
        previous = counts.get(at - timedelta(hours=1))
        if previous and count >= 60 and count / previous - 1 > 0.5:
            result[at] = (count, previous, pytest.approx(count / previous - 1))
    return result


def unusual(lines):
    counts = Counter(line["at"].date() for line in lines)
    mean = sum(counts.values()) / len(counts)
    spread = (sum((count - mean) ** 2 for count in counts.values()) / len(counts)) ** 0.5
    return {
        day: (count, pytest.approx((count - mean) / spread))
        for day, count in counts.items()
        if abs(count - mean) / spread >= 1.5
    }


MANY = {"limit": 10_000}
# The parameters of a template, the number of its key columns, and a model of its other columns by key.
MODELS = {
    "events-by-hour": ({}, 1, events_by(hour)),
    "events-by-day": ({}, 1, events_by(lambda line: line["at"].date())),
    "events-by-week": ({}, 1, events_by(lambda line: monday(line["at"]))),
    "events-by-month": ({}, 1, events_by(lambda line: line["at"].date().replace(day=1))),
    "rolling-24-hours": ({}, 1, rolling),
    "week-over-week": ({}, 1, week_over_week),
    "events-by-name": (
        {},
        1,
        lambda lines: {
            name: (len(group), people(group), min(line["at"] for line in group), max(line["at"] for line in group))
            for name, group in grouped(lines, lambda line: line["event"]).items()
        },
    ),
    "busiest-hours": ({}, 2, lambda lines: Counter((line["at"].isoweekday(), line["at"].hour) for line in lines)),
    "latency-by-hour": (
        {},
        1,
        lambda lines: {
            at: (
                len(group),
                pytest.approx(sum(ms(group)) / len(group)),
                *(quantile(ms(group), q) for q in (0.5, 0.95, 0.99)),
            )
            for at, group in grouped(lines, hour).items()
        },
    ),
    "slowest-paths": (
        MANY,
        1,
        lambda lines: {
            path: (
                len(group),
                pytest.approx(sum(ms(group)) / len(group)),
                quantile(ms(group), 0.95),
                pytest.approx(max(ms(group))),
            )
            for path, group in grouped(lines, prop("path")).items()
            if len(group) >= 10
        },
    ),
    "traffic-by-path": (
        MANY,
        2,
        lambda lines: {
            ("POST", path): (len(group), people(group)) for path, group in grouped(lines, prop("path")).items()
        },
    ),
    "apdex-by-path": (MANY, 1, apdex),
    "error-rates": (
        {},
        1,
        lambda lines: {
            at: (len(group), len(bad(group)), pytest.approx(len(bad(group)) / len(group)))
            for at, group in grouped(lines, hour).items()
        },
    ),
    "errors-by-status": (
        {},
        1,
        lambda lines: {
            status: (len(group), pytest.approx(len(group) / len(bad(lines))), people(group))
            for status, group in grouped(bad(lines), prop("status_code")).items()
        },
    ),
    "errors-by-path": (
        MANY | {"errors_from": 500},
        1,
        lambda lines: {
            path: (len(bad(group, 500)), len(group), pytest.approx(len(bad(group, 500)) / len(group)))
            for path, group in grouped(lines, prop("path")).items()
            if bad(group, 500)
        },
    ),
    "people-with-errors": (
        MANY,
        1,
        lambda lines: {
            user: (len(group), max(line["at"] for line in group))
            for user, group in grouped(bad(lines), lambda line: line["user"]).items()
            if user
        },
    ),
    "active-users": (
        {},
        1,
        lambda lines: {
            day: (people(group), len({line["session"] for line in group}), len(group))
            for day, group in grouped(lines, lambda line: line["at"].date()).items()
        },
    ),
    "top-users": (
        MANY,
        1,
        lambda lines: {
            user: (
                len(group),
                len({line["event"] for line in group}),
                min(line["at"] for line in group),
                max(line["at"] for line in group),
            )
            for user, group in grouped(lines, lambda line: line["user"]).items()
            if user
        },
    ),
    "new-users": (
        {},
        1,
        lambda lines: Counter(
            min(line["at"] for line in group).date()
            for user, group in grouped(lines, lambda line: line["user"]).items()
            if user
        ),
    ),
    "usage-by-organization": (
        {},
        4,
        lambda lines: {
            (key[0], key[1], key[2], "piece"): (Decimal(sum(map(prop("quantity"), group))), len(group))
            for key, group in grouped(
                lines, lambda line: (line["at"].date().replace(day=1), prop("organization_id")(line), prop("sku")(line))
            ).items()
        },
    ),
    "usage-by-day": (
        {"organization": "France"},
        3,
        lambda lines: {
            (key[0], key[1], "piece"): (Decimal(sum(map(prop("quantity"), group))),)
            for key, group in grouped(
                [line for line in lines if prop("organization_id")(line) == "France"],
                lambda line: (line["at"].date(), prop("sku")(line)),
            ).items()
        },
    ),
    "top-skus": (
        MANY,
        2,
        lambda lines: {
            (sku, "piece"): (
                len(group),
                Decimal(sum(map(prop("quantity"), group))),
                len(set(map(prop("organization_id"), group))),
            )
            for sku, group in grouped(lines, prop("sku")).items()
        },
    ),
    "weekly-cohorts": ({}, 2, cohorts),
    "conversion": ({"first": "Bought", "second": "Returned"}, 1, conversion),
    "spikes": ({}, 1, spikes),
    "unusual-days": ({"at_least": 1.5}, 1, unusual),
}


def plain(value):
    """A value for comparison: a time at midnight becomes its date."""
    if isinstance(value, datetime) and value.tzinfo and (value.hour, value.minute, value.second) == (0, 0, 0):
        return value.date()
    return value


@pytest.mark.parametrize("name", MODELS)
def test_its_rows_are_those_of_plain_python(shop, lines, name):
    """Every row and every number, in a range that leaves some lines out, and of everything."""
    params, keys, model = MODELS[name]
    start, end = datetime(2010, 12, 3, tzinfo=UTC), datetime(2010, 12, 20, 12, tzinfo=UTC)
    for inside, times in (
        (lines, {}),
        ([line for line in lines if start <= line["at"] < end], {"start": start, "end": end}),
    ):
        if name == "new-users" and times:
            continue  # events before the range also decide who is new
        rows = [tuple(map(plain, row)) for row in shop.template(name, params, **times).rows]
        actual = {row[0] if keys == 1 else row[:keys]: row[keys:] for row in rows}
        assert len(actual) == len(rows)
        expected = {plain(key): value if isinstance(value, tuple) else (value,) for key, value in model(inside).items()}
        assert actual == expected
    assert rows or name == "spikes"


def test_those_that_list_events(shop, lines):
    """One row an event, in the order that they promise."""
    slow = [row.duration_ms for row in shop.template("slowest-requests", limit=50).rows]
    assert slow == pytest.approx(sorted(ms(lines), reverse=True)[:50])
    recent = [row.timestamp for row in shop.template("recent-errors", limit=50).rows]
    assert recent == sorted((line["at"] for line in bad(lines)), reverse=True)[:50]
    person = next(line["user"] for line in lines if line["user"])
    timeline = [(row.timestamp, row.event) for row in shop.template("user-timeline", person=person).rows]
    own = [(line["at"], line["event"]) for line in lines if line["user"] == person]
    assert timeline == sorted(own, key=lambda event: event[0])[:100]


def test_each_is_tested_and_described():
    """There are at least 23, in every category, and none is without a test here."""
    assert set(library()) == {*MODELS, "slowest-requests", "recent-errors", "user-timeline"}
    assert len(library()) >= 23
    assert {template.category for template in library().values()} == CATEGORIES
    for template in library().values():
        assert template.title
        assert template.description.endswith(".")
        for parameter in template.parameters:
            assert f"${parameter.name}" in template.sql


@pytest.mark.parametrize(
    ("name", "params", "named"),
    [
        ("nope", {}, "nope"),
        ("user-timeline", {}, "person"),
        ("user-timeline", {"person": 7}, "person"),
        ("top-users", {"limit": "ten"}, "limit"),
        ("top-users", {"limit": 1.5}, "limit"),
        ("top-users", {"limit": True}, "limit"),
        ("top-users", {"start": "soon"}, "start"),
        ("top-users", {"start": 5}, "start"),
        ("top-users", {"start": datetime(2026, 1, 1)}, "start: .*no time zone"),  # noqa: DTZ001 - naive on purpose
        ("spikes", {"more_than": []}, "more_than"),
        ("top-users", {"most": 1}, "most"),
    ],
)
def test_a_bad_parameter_is_named(shop, name, params, named):
    """By the error's message, before anything is read."""
    with pytest.raises(QueryRefused, match=named):
        shop.template(name, params)


def test_a_value_is_a_value(shop):
    """Whatever SQL it looks like; text is read as its parameter's type, as URLs and command lines give it."""
    assert shop.template("user-timeline", person="' OR true --").rows == []
    assert len(shop.template("top-users", limit="3", start="2010-12-01", end=date(2011, 1, 1)).rows) == 3


@pytest.mark.parametrize("text", ["SELECT 1", "-- title: a\nSELECT 1", "-- param: x: y\nSELECT 1"])
def test_a_header_that_cannot_be_read(text):
    """A file without its header is no template."""
    with pytest.raises(ValueError, match=r"x\.sql"):
        Template.parse("x", text)


def test_the_past(shop, lines):
    """Each takes `as_of`, and then answers as it did: before anything came there is nothing, afterwards all of it."""
    result = shop.template("events-by-name", as_of=from_us(shop.clock.now_us()))
    assert sum(row.count for row in result) == len(lines)
    assert shop.template("events-by-name", {"as_of": "2001-01-01"}).rows == []
    with pytest.raises(InvalidAsOf):
        shop.template("events-by-name", as_of="soon")
