"""Oracles: every report in plain Python, from the same arguments, after its definition in docs/reports.

`plain("retention", events, now_us, grain="week", periods=3)` gives the rows that the report must give of these events.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from lakebed.clock import from_us, to_us
from tests.reports import funnel_model
from tests.reports.plain_periods import distance, following, period, periods
from tests.reports.report_cases import Seen

Rows = list[tuple[Any, ...]]
Test = Callable[[Seen], bool]
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
CONDITIONS: Mapping[str, Test] = {
    "type = 'track'": lambda event: event.type == "track",
    "event <> 'Cancelled'": lambda event: event.event is not None and event.event != "Cancelled",
    "properties->>'$.plan' = 'pro'": lambda event: event.properties.get("plan") == "pro",
    "session_id IS NOT NULL": lambda event: event.session is not None,
}
"""Each SQL condition of a `where`, in Python."""


def plain(report: str, events: Sequence[Seen], now_us: int, /, **arguments: Any) -> Rows:
    """The rows of a report. `cohort` is the definition of a cohort, not its name."""
    return ORACLES[report](Question(events, now_us, arguments))


class Question(NamedTuple):
    """The events, the current time, and the arguments of a report."""

    events: Sequence[Seen]
    now_us: int
    arguments: Mapping[str, Any]

    def get(self, name: str, default: Any = None) -> Any:
        return self.arguments.get(name, default)

    @property
    def start_us(self) -> int | None:
        return instant(self.get("start"))

    @property
    def end_us(self) -> int | None:
        return instant(self.get("end"))

    @property
    def last_us(self) -> int:
        return self.now_us if self.end_us is None else min(self.now_us, self.end_us - 1)

    def calendar(self, grain: str) -> dict[str, str]:
        return {
            "grain": self.get("grain", grain),
            "tz": self.get("tz", "UTC"),
            "week_start": self.get("week_start", "monday"),
        }

    def events_of(self, *names: str, since_us: int | None = None, whole: bool = False) -> list[Seen]:
        """The events in range (`whole`: also before `start`) that meet `where` and the filters of these arguments."""
        low = None if whole else self.start_us if since_us is None else since_us
        people = None if self.get("cohort") is None else members(self.events, self.get("cohort"), self.now_us)
        where = CONDITIONS[self.get("where")] if self.get("where") else lambda _: True
        tests = [means(self.get(name)) for name in names]
        return [
            event
            for event in self.events
            if (low is None or event.us >= low)
            and (self.end_us is None or event.us < self.end_us)
            and (people is None or event.person in people)
            and where(event)
            and all(test(event) for test in tests)
        ]


def instant(value: Any) -> int | None:
    if value is None:
        return None
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return to_us(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def length_us(value: Any) -> int:
    return round((float(value[:-1]) * UNITS_S[value[-1]] if isinstance(value, str) else value) * 1e6)


_meant: dict[bytes, Test] = {}


def means(selection: Any) -> Test:
    """A test of events. Equal filters give the same test, whatever their labels are."""
    if selection is None:
        return lambda _: True
    arguments = {"event": selection} if isinstance(selection, str) else selection
    names = arguments.get("event")
    names = (names,) if isinstance(names, str) else tuple(names or ())
    where = CONDITIONS[arguments["where"]] if "where" in arguments else lambda _: True
    key = msgspec.json.encode([sorted(names), arguments.get("where")])
    return _meant.setdefault(key, lambda event: (not names or event.event in names) and where(event))


def text(value: Any) -> str | None:
    """A value of a property as text."""
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()


def number(value: Any) -> float | None:
    """A value of a property as a finite number."""
    if value is None or isinstance(value, bool):
        return None
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    return result if abs(result) < float("inf") else None


def valued(event: Seen, name: str) -> str | None:
    """The value of the column or property `by` or `what`, as text."""
    columns = {"event": event.event, "type": event.type, "session_id": event.session, "person_id": event.person}
    return columns[name] if name in columns else text(event.properties.get(name))


def people_in(events: Sequence[Seen]) -> int:
    return len({event.person for event in events} - {None})


def present(events: Sequence[Seen], calendar: dict[str, str]) -> dict[str, set[Any]]:
    """The periods in which each person has an event."""
    result: dict[str, set[Any]] = defaultdict(set)
    for event in events:
        if event.person is not None:
            result[event.person].add(period(event.us, **calendar))
    return result


def ranked(counts: Mapping[Any, int], top: int) -> list[Any]:
    """The most frequent values, ties in order of their text, NULL last."""
    return sorted(counts, key=lambda value: (-counts[value], value is None, value or ""))[:top]


# Funnels


def _attempts(question: Question) -> dict[str, funnel_model.Attempt]:
    steps = question.arguments["steps"]
    excluded = tuple(
        (means(exclusion), 1, len(steps))
        if isinstance(exclusion, str)
        else (
            means({key: exclusion[key] for key in ("event", "where") if key in exclusion}),
            *exclusion.get("between", (1, len(steps))),
        )
        for exclusion in question.get("exclude") or ()
    )
    low, high = question.start_us, question.end_us
    return funnel_model.attempts(
        funnel_model.Plain(
            [means(step) for step in steps],
            length_us(question.get("within", "7d")),
            question.get("order", "ordered"),
            question.get("allow_equal", False),
            excluded,
            float("-inf") if low is None else low,
            float("inf") if high is None else high,
        ),
        question._replace(arguments=question.arguments | {"end": None}).events_of(whole=True),
    )


def funnel(question: Question) -> Rows:
    """How many people reached each step."""
    steps, by = question.arguments["steps"], question.get("by")
    labels = [step if isinstance(step, str) else step["label"] for step in steps]
    if question.get("order") == "any":
        labels = [f"any {at} of {len(steps)}" for at in range(1, len(steps) + 1)]
    tried = list(_attempts(question).values())
    if by is None:
        return funnel_model.summary(len(steps), tried, labels)
    counts = Counter(valued(attempt.first, by) for attempt in tried)
    best = ranked(counts, question.get("top", 10))
    rows = []
    for value in [*best, *(["(other)"] if len(counts) > len(best) else [])]:
        own = [attempt for attempt in tried if _shown(valued(attempt.first, by), best) == value]
        rows += [(*row, value) for row in funnel_model.summary(len(steps), own, labels)]
    return rows


def _shown(value: Any, best: Sequence[Any]) -> Any:
    return value if value in best else "(other)"


def funnel_people(question: Question) -> Rows:
    """The people behind a number of the funnel."""
    steps = len(question.arguments["steps"])
    step = question.get("step", steps)
    converted = question.get("outcome", "dropped") == "converted"
    rows = [
        (
            person,
            len(attempt.times),
            from_us(attempt.times[0]),
            from_us(attempt.times[-1]),
            (attempt.times[-1] - attempt.times[0]) / 1e6,
        )
        for person, attempt in _attempts(question).items()
        if (len(attempt.times) >= step if converted else len(attempt.times) == step - 1)
    ]
    return [row for row in sorted(rows) if row[0] > question.get("after", "")][: question.get("limit", 100)]


_WIDTHS_US = [round(width * 1e6) for width in (
    *(0.001, 0.01, 0.1, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200),
    *(days * 86_400 for days in (1, 2, 7, 14, 28, 91, 364, 3640, 36_400)),
)]  # fmt: skip


def funnel_times(question: Question) -> Rows:
    """How long people took from one step to another, in bins of the smallest round width that gives few enough."""
    first, last = question.get("from_step", 1), question.get("to_step", len(question.arguments["steps"]))
    took = [
        attempt.times[last - 1] - attempt.times[first - 1]
        for attempt in _attempts(question).values()
        if len(attempt.times) >= last
    ]
    if not took:
        return []
    width = next(w for w in _WIDTHS_US if max(took) // w - min(took) // w < question.get("bins", 24))
    counts = Counter(us // width for us in took)
    every = range(min(counts), max(counts) + 1)
    return [(at * width / 1e6, (at + 1) * width / 1e6, counts[at]) for at in every]


# People over time


def retention(question: Question) -> Rows:
    """Each cohort, and how many of its people were there in the periods after."""
    calendar, mode = question.calendar("week"), question.get("mode", "first_time")
    grain = calendar["grain"]
    starts = present(question.events_of("start_event", whole=True), calendar)
    returns = present(question.events_of("return_event", whole=True), calendar)
    first = None if question.start_us is None else period(question.start_us, **calendar)
    cohorts = defaultdict(set)
    for person, begun in starts.items():
        for at in begun if mode == "recurring" else {min(begun)}:
            if first is None or at >= first:
                cohorts[at].add(person)
    rows = []
    for cohort, members_ in sorted(cohorts.items()):
        left = distance(cohort, period(question.last_us, **calendar), grain)
        later = {p: {distance(cohort, at, grain) for at in returns.get(p, ())} for p in members_}
        for n in range(min(question.get("periods", 12), left) + 1):
            came = sum(n in ns or (mode == "unbounded" and max(ns, default=-1) >= n) for ns in later.values())
            came = came if n else len(members_)
            rows.append((cohort, n, came, came / len(members_)))
    return rows


def lifecycle(question: Question) -> Rows:
    """In each period: new, returning, resurrecting, dormant."""
    calendar = question.calendar("week")
    who = present(question.events_of("event", whole=True), calendar)
    if not who:
        return []
    first = min(map(min, who.values())) if question.start_us is None else period(question.start_us, **calendar)
    last = max(period(question.last_us, **calendar), *map(max, who.values()))
    counts: dict[Any, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for ones in who.values():
        for at in ones:
            earlier = [start for start in ones if start < at]
            kind = 0 if not earlier else 1 if following(max(earlier), calendar["grain"]) == at else 2
            counts[at][kind] += 1
            after = following(at, calendar["grain"])
            counts[after][3] += after not in ones
    return [(at, *counts[at]) for at in periods(first, last, calendar["grain"])]


def stickiness(question: Question) -> Rows:
    """How many people came in exactly, and in at least, so many periods."""
    calendar, interval = question.calendar("day"), question.get("interval")
    parts = defaultdict(list)
    for event in question.events_of("event"):
        if event.person is not None:
            parts[interval and period(event.us, **calendar | {"grain": interval})].append(event)
    rows = []
    for at in sorted(parts) if interval else parts:
        counts = Counter(len(ones) for ones in present(parts[at], calendar).values())
        maximum = max(counts)
        if not interval and question.start_us is not None and question.end_us is not None:
            first, last = (period(us, **calendar) for us in (question.start_us, question.end_us - 1))
            maximum = distance(first, last, calendar["grain"]) + 1
        for n in range(1, maximum + 1):
            least = sum(count for m, count in counts.items() if m >= n)
            rows.append((*([at] if interval else []), n, counts[n], counts[n] / counts.total(), least))
    return rows


# Visits


def visits(events: Sequence[Seen], longest_us: int) -> list[list[Seen]]:
    """Each session as its events in order."""
    result: list[list[Seen]] = []
    latest: dict[str, list[Seen]] = {}
    for event in sorted(
        (event for event in events if event.person is not None), key=lambda event: (event.us, event.seq)
    ):
        current = latest.get(event.person)
        if current is None or event.us - current[-1].us > longest_us:
            current = latest[event.person] = []
            result.append(current)
        current.append(event)
    return result


def _visits(question: Question) -> list[list[Seen]]:
    events = question.events_of(whole=True)
    if question.get("use") == "session_id":
        named = defaultdict(list)
        for event in sorted(events, key=lambda event: (event.us, event.seq)):
            if event.session is not None and event.person is not None:
                named[event.session].append(event)
        result = list(named.values())
    else:
        result = visits(events, length_us(question.get("timeout", "30m")))
    return [visit for visit in result if question.start_us is None or visit[0].us >= question.start_us]


def _engaged(question: Question, visit: Sequence[Seen]) -> bool:
    converts = means(question.get("conversion")) if question.get("conversion") else lambda _: False
    lasted = visit[-1].us - visit[0].us >= length_us(question.get("engaged_after", "10s"))
    return lasted or sum(event.type in ("page", "screen") for event in visit) > 1 or any(map(converts, visit))


def _figures(question: Question, ones: Sequence[Sequence[Seen]]) -> tuple[Any, ...]:
    if not ones:
        return (0, 0, None, None, None, None, None)
    lengths = [(visit[-1].us - visit[0].us) / 1e6 for visit in ones]
    return (
        len(ones),
        len({visit[0].person for visit in ones}),
        sum(map(len, ones)) / len(ones),
        sum(lengths) / len(ones),
        statistics.median(lengths),
        sum(len(visit) == 1 for visit in ones) / len(ones),
        sum(_engaged(question, visit) for visit in ones) / len(ones),
    )


def _named(by: str | None) -> Callable[[Sequence[Seen]], str | None]:
    """The value of `by` for a session."""
    names = {
        "entry": lambda visit: visit[0].event or visit[0].type,
        "exit": lambda visit: visit[-1].event or visit[-1].type,
    }
    return names.get(by, lambda visit: by and valued(visit[0], by))


def session_list(question: Question) -> Rows:
    """The sessions one by one, newest first."""
    converts = means(question.get("conversion")) if question.get("conversion") else lambda _: False
    name, rows = _named(question.get("by")), []
    for visit in sorted(_visits(question), key=lambda visit: (-visit[0].us, -visit[0].seq)):
        if name(visit) == question.get("value"):
            begun, over = visit[0].us, visit[-1].us
            when = (from_us(begun), from_us(over), (over - begun) / 1e6)
            names = (_named("entry")(visit), _named("exit")(visit))
            did = (_engaged(question, visit), any(map(converts, visit)))
            rows.append((visit[0].seq, visit[0].person, visit[0].session, *when, len(visit), *names, *did))
    return rows[: question.get("limit", 100)]


def sessions(question: Question) -> Rows:
    """Visits by the period of their first event."""
    grain, by = question.get("grain", "day"), question.get("by")
    calendar = question.calendar("day")
    ones = _visits(question)
    name = _named(by)
    best = ranked(Counter(name(visit) for visit in ones if name(visit) is not None), question.get("top", 10))
    groups = defaultdict(list)
    for visit in ones:
        at = grain and period(visit[0].us, **calendar)
        groups[at, None if name(visit) is None else _shown(name(visit), best)].append(visit)
    keys = sorted(groups, key=lambda key: (*([key[0]] if grain else []), key[1] is None, key[1] or ""))
    if by is None and grain and groups:
        first = min(at for at, _ in groups) if question.start_us is None else period(question.start_us, **calendar)
        last = max(at for at, _ in groups) if question.end_us is None else period(question.end_us - 1, **calendar)
        keys = [(at, None) for at in periods(first, last, grain)]
    shown = [[*([key[0]] if grain else []), *([key[1]] if by else [])] for key in keys]
    return [(*columns, *_figures(question, groups[key])) for columns, key in zip(shown, keys, strict=True)]


def paths(question: Question) -> Rows:
    """The events of each session from its first anchor on, or back from its last; then the links are counted."""
    by, backward, steps = question.get("by", "event"), question.get("before") is not None, question.get("steps", 4)
    matters = means(question.get("before") if backward else question.get("after"))

    def node(event: Seen) -> str | None:
        return event.event or event.type if by == "event" else valued(event, by)

    ways = []
    events = [event for event in question.events_of(whole=True) if node(event) is not None]
    for visit in visits(events, length_us(question.get("timeout", "30m"))):
        if question.start_us is not None and visit[0].us < question.start_us:
            continue
        ordered = visit[::-1] if backward else visit
        first = next((at for at, event in enumerate(ordered) if matters(event)), None)
        if first is None:
            continue
        names = [node(event) for event in ordered[first:]]
        if question.get("collapse"):
            names = [name for at, name in enumerate(names) if not at or names[at - 1] != name]
        ways.append((visit[0].person, names[: steps + 1]))
    best = [
        ranked(Counter(way[at] for _, way in ways if at < len(way)), question.get("top", 8)) for at in range(steps + 1)
    ]
    people, count = defaultdict(set), Counter()
    for person, way in ways:
        shown = [_shown(name, best[at]) for at, name in enumerate(way)]
        shown += ["(start)" if backward else "(end)"] if len(way) <= steps else []
        for at in range(min(steps, len(shown) - 1)):
            link = (steps - at, shown[at + 1], shown[at]) if backward else (at + 1, shown[at], shown[at + 1])
            people[link].add(person)
            count[link] += 1
    rows = [(*link, len(people[link]), count[link]) for link in count]
    return sorted(rows, key=lambda row: (row[0], -row[4], row[1], row[2]))


def timeline(question: Question) -> Rows:
    """The events of one person, newest first. `person` is the `person` of the events."""
    own = [event for event in question.events_of() if event.person == question.arguments["person"]]
    own.sort(key=lambda event: (-event.us, -event.seq))
    before = question.get("before")
    if before is not None:
        at = next(event for event in question.events if event.seq == before)
        own = [event for event in own if (event.us, event.seq) < (at.us, at.seq)]
    return [
        (
            event.seq,
            from_us(event.us),
            event.type,
            event.event,
            event.user,
            event.anonymous,
            event.session,
            text(event.properties),
        )
        for event in own[: question.get("limit", 100)]
    ]


# Counts


def _measured(events: Sequence[Seen], measure: str) -> Any:
    function, _, name = measure.rstrip(")").partition("(")
    if function in ("count", "people"):
        return len(events) if function == "count" else people_in(events)
    if function == "distinct":
        return len({valued(event, name) for event in events} - {None})
    name, _, rank = name.partition(", ")
    values = (number(event.properties.get(name)) for event in events)
    numbers = [value for value in values if value is not None]
    if not numbers:
        return None
    if function == "quantile":
        return quantile(numbers, rank)
    total = math.fsum(numbers)
    return {"sum": total, "avg": total / len(numbers), "min": min(numbers), "max": max(numbers)}[function]


def quantile(values: Sequence[float], rank: str) -> float | None:
    """The value at position q(n - 1), on the line that joins the two values around it."""
    if not values:
        return None
    ordered = sorted(values)
    position = Fraction(rank) * (len(ordered) - 1)
    below, above = (Fraction(ordered[at]) for at in (math.floor(position), math.ceil(position)))
    return float(below + (above - below) * (position - math.floor(position)))


_SIGNS = {
    "A": lambda a: a,
    "A / B": lambda a, b: None if a is None or not b else a / b,
    "B - A * 2": lambda a, b: None if a is None or b is None else b - a * 2,
}


def segmentation(question: Question) -> Rows:
    """A measure of each kind of events, period by period, group by group."""
    arguments, by, measure = question.get("events"), question.get("by"), question.get("measure", "count")
    series = list(arguments) if isinstance(arguments, list) else [arguments]
    tests, names = [means(selection) for selection in series], [by] if isinstance(by, str) else list(by or ())
    labels = [
        "any event" if selection is None else selection if isinstance(selection, str) else selection["label"]
        for selection in series
    ]
    grain, calendar = question.get("grain", "day"), question.calendar("day")
    counted = [event for event in question.events_of() if any(test(event) for test in tests)]
    counts = Counter(tuple(valued(event, name) for name in names) for event in counted)
    order = {key: tuple((value is None, value or "") for value in key) for key in counts}
    best = set(sorted(counts, key=lambda key: (-counts[key], order[key]))[: question.get("top", 10)])
    cells = defaultdict(list)
    for event in counted:
        key = tuple(valued(event, name) for name in names)
        key = key if key in best else ("(other)",) * len(names)
        cells[grain and period(event.us, **calendar), key].append(event)
    if not counted and (names or (grain and (question.start_us is None or question.end_us is None))):
        return []
    times = [None]
    if grain:
        first = min(at for at, _ in cells) if question.start_us is None else period(question.start_us, **calendar)
        last = max(at for at, _ in cells) if question.end_us is None else period(question.end_us - 1, **calendar)
        times = (
            []
            if question.start_us is not None and question.start_us == question.end_us
            else periods(first, last, grain)
        )
    groups = sorted({key for _, key in cells}, key=lambda key: tuple((value is None, value or "") for value in key))
    rows = []
    for at in times:
        values = {
            key: [_measured([event for event in cells.get((at, key), ()) if test(event)], measure) for test in tests]
            for key in (groups if names else [()])
        }
        when = (at,) if grain else ()
        if question.get("formula"):
            sign = _SIGNS[question.get("formula")]
            rows += [(*when, question.get("formula"), *key, sign(*figures)) for key, figures in values.items()]
            continue
        for number_, label in enumerate(labels):
            rows += [(*when, label, *key, figures[number_]) for key, figures in values.items()]
    return rows


def top(question: Question) -> Rows:
    """The most frequent values."""
    what, groups = question.get("what", "event"), defaultdict(list)
    for event in question.events_of("event"):
        if valued(event, what) is not None:
            groups[valued(event, what)].append(event)
    counts = {value: len(ones) for value, ones in groups.items()}
    total = sum(counts.values())
    with_people = question.get("people", True)
    return [
        (value, counts[value], *([people_in(groups[value])] if with_people else []), counts[value] / total)
        for value in ranked(counts, question.get("n", 10))
    ]


def anomalies(question: Question) -> Rows:
    """Each count, and the band of the counts at the same wall-clock time of the seasons before. Without `reason`."""
    grain, zone = question.get("grain", "hour"), ZoneInfo(question.get("tz", "UTC"))
    days = {"week": 7, "day": 1}[question.get("seasonality", "week")]
    counts = Counter(period(event.us, grain, str(zone)) for event in question.events_of("event", whole=True))
    known_us, rows = question.last_us + 1, []
    if not any(at < period(known_us, grain, str(zone)) for at in counts):
        return []
    first_us = known_us - 7 * 86_400_000_000 if question.start_us is None else question.start_us
    for at in periods(period(first_us, grain, str(zone)), period(known_us, grain, str(zone)), grain)[:-1]:
        past = []
        for k in range(1, question.get("history", 8) + 1):
            then = at - timedelta(days * k)
            if grain == "hour":
                local = at.astimezone(zone).replace(tzinfo=None) - timedelta(days * k)
                # The second of two hours that read the same; for an hour that the clock leaves out, the one after it.
                then = period(max(to_us(local.replace(tzinfo=zone, fold=fold)) for fold in (0, 1)), grain)
            if then >= min(counts):
                past.append(counts[then])
        rows.append((at, counts[at], *_band(past, counts[at], question.get("sensitivity", 3.0))))
    return rows


def _band(past: Sequence[int], value: int, sensitivity: float) -> tuple[Any, ...]:
    if len(past) < 3:
        return (None, None, None, False)
    expected = statistics.median(past)
    spread = 1.4826 * statistics.median(abs(count - expected) for count in past)
    width = sensitivity * max(spread, expected**0.5, 1)
    low, high = max(0, expected - width), expected + width
    return (expected, low, high, not low <= value <= high)


# Requests


def _requests(question: Question) -> list[tuple[Seen, float | None, bool]]:
    """Each request, how long it took, and whether it failed."""
    result = []
    for event in question.events_of("event"):
        took, status = number(event.properties.get("duration_ms")), event.properties.get("status_code")
        if took is not None or status is not None:
            result.append((event, took, status is not None and status >= question.get("errors_from", 400)))
    return [request for request in result if question.get("path") in (None, request[0].properties.get("path"))]


def _keys(question: Question, default: Any = ()) -> list[str]:
    by = question.get("by", default)
    return [by] if isinstance(by, str) else list(by or ())


def _key(event: Seen, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(event.properties.get(n) if n == "status_code" else valued(event, n) for n in names)


def _first_nulls(key: Sequence[Any]) -> tuple[Any, ...]:
    return tuple((value is not None, value or 0 if isinstance(value, int) else value or "") for value in key)


def performance(question: Question) -> Rows:
    """How long requests took and how many failed."""
    grain, names, limit = question.get("grain", "hour"), _keys(question), question.get("threshold_ms", 500)
    groups = defaultdict(list)
    for request in _requests(question):
        when = (period(request[0].us, **question.calendar("hour")),) if grain else ()
        groups[when, _key(request[0], names)].append(request)
    rows = []
    for (when, key), ones in groups.items():
        took = [ms for _, ms, _ in ones if ms is not None]
        fine = [ms for _, ms, lost in ones if ms is not None and not lost]
        failed = sum(lost for _, _, lost in ones)
        points = sum(1 if ms <= limit else 0.5 if ms <= 4 * limit else 0 for ms in fine)
        figures = (
            math.fsum(took) / len(took) if took else None,
            *(quantile(took, rank) for rank in ("0.5", "0.95", "0.99")),
            max(took, default=None),
            failed,
            failed / len(ones),
            points / (len(fine) + failed) if fine or failed else None,
        )
        rows.append(((when, -len(ones), _first_nulls(key)), (*when, *key, len(ones), *figures)))
    return [row for _, row in sorted(rows, key=lambda pair: pair[0])]


def errors(question: Question) -> Rows:
    """How many requests failed, by the columns of `by`."""
    names, groups = _keys(question, ("status_code", "method", "path")), defaultdict(list)
    for request in _requests(question):
        groups[_key(request[0], names)].append(request)
    lost = {key: [request for request, _, failed in ones if failed] for key, ones in groups.items()}
    total = sum(map(len, lost.values()))
    rows = [
        (
            *key,
            len(ones),
            len(groups[key]),
            len(ones) / len(groups[key]),
            len(ones) / total,
            people_in(ones),
            from_us(min(event.us for event in ones)),
            from_us(max(event.us for event in ones)),
        )
        for key, ones in lost.items()
        if ones
    ]
    width = len(names)
    return sorted(rows, key=lambda row: (-row[width], _first_nulls(row[:width])))[: question.get("limit", 100)]


# Cohorts and usage


def members(events: Sequence[Seen], definition: Mapping[str, Any], now_us: int) -> set[str]:
    """The people of a cohort, by its definition."""
    everybody = {event.person for event in events if event.person is not None}
    for kind, combine in (("all", set.intersection), ("any", set.union)):
        if kind in definition:
            return combine(*(members(events, part, now_us) for part in definition[kind]))
    if "not" in definition:
        return everybody - members(events, definition["not"], now_us)
    low, high = instant(definition.get("start")), instant(definition.get("end"))
    low = now_us - length_us(definition["within"]) if "within" in definition else low

    def inside(us: int) -> bool:
        return (low is None or us >= low) and (high is None or us < high)

    own: dict[str, list[Seen]] = defaultdict(list)
    for event in events:
        if event.person is not None:
            own[event.person].append(event)
    if "first" in definition:
        test = means(definition["first"])
        firsts = {who: min((event.us for event in ones if test(event)), default=None) for who, ones in own.items()}
        return {who for who, us in firsts.items() if us is not None and inside(us)}
    if "sequence" in definition:
        steps = [means(step) for step in definition["sequence"]]
        return {who for who, ones in own.items() if _went([event for event in ones if inside(event.us)], steps)}
    test = means(definition["did"])
    did = {who: [event for event in ones if test(event) and inside(event.us)] for who, ones in own.items()}
    return {who for who, ones in did.items() if _enough(ones, definition)}


def _enough(did: Sequence[Seen], definition: Mapping[str, Any]) -> bool:
    if not definition.get("at_least", 1) <= len(did) <= definition.get("at_most", len(did)):
        return False
    if "measure" not in definition:
        return True
    measured = _measured(did, definition["measure"])
    low, high = definition.get("above", float("-inf")), definition.get("below", float("inf"))
    return measured is not None and low < measured < high


def _went(own: Sequence[Seen], steps: Sequence[Test]) -> bool:
    """Whether there is an event for each step, each later than the one before."""
    since = float("-inf")
    for step in steps:
        later = [event.us for event in own if step(event) and event.us > since]
        if not later:
            return False
        since = min(later)
    return True


def cohort_people(question: Question) -> Rows:
    """The people of a cohort: first and last event, and number of events."""
    own = defaultdict(list)
    for event in question.events_of():
        own[event.person].append(event.us)
    rows = [(who, from_us(min(times)), from_us(max(times)), len(times)) for who, times in own.items()]
    return [row for row in sorted(rows) if row[0] > question.get("after", "")][: question.get("limit", 100)]


def cohort_size(question: Question) -> Rows:
    """The number of people of a cohort."""
    return [(people_in(question.events_of()),)]


def usage(question: Question) -> Rows:
    """The sums of usage, in decimals."""
    grain, sums, counts = question.get("grain", "month"), defaultdict(Decimal), Counter()
    for event in question.events_of():
        texts = {name: text(event.properties.get(name)) for name in ("organization_id", "sku", "unit", "quantity")}
        wanted = all(question.get(name) in (None, texts[name]) for name in ("organization_id", "sku"))
        if wanted and texts["sku"] is not None and texts["quantity"] is not None:
            when = (period(event.us, **question.calendar("month")),) if grain else ()
            key = (when, texts["organization_id"], texts["sku"], texts["unit"] or "")
            sums[key] += Decimal(texts["quantity"])
            counts[key] += 1
    keys = sorted(sums, key=lambda key: (key[0], key[1] is None, key[1] or "", *key[2:]))
    return [(*key[0], *key[1:], sums[key], counts[key]) for key in keys]


ORACLES: Mapping[str, Callable[[Question], Rows]] = {
    "funnel": funnel,
    "funnel_people": funnel_people,
    "funnel_times": funnel_times,
    "retention": retention,
    "lifecycle": lifecycle,
    "stickiness": stickiness,
    "sessions": sessions,
    "session_list": session_list,
    "segmentation": segmentation,
    "top": top,
    "paths": paths,
    "timeline": timeline,
    "anomalies": anomalies,
    "performance": performance,
    "errors": errors,
    "cohort_people": cohort_people,
    "cohort_size": cohort_size,
    "usage": usage,
}
