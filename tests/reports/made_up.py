"""Made-up events with difficult values, and arguments for every report over them.

Times at clock changes, before 1970, and in one microsecond; several ids of one person; properties of all types, and
none; names with odd characters.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from tests.reports.oracles import CONDITIONS
from tests.reports.report_cases import happened, identified

NAMES = ("a", "b", "home", "pay", "Ünï ☃", 'it\'s "q"', "(end)")
ZONES = (
    *("UTC", "Europe/Berlin", "America/New_York", "America/St_Johns", "America/Sao_Paulo", "Africa/Casablanca"),
    *("Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia"),
)
ODD = tuple(  # around changes of clocks, ends of years and weeks, and negative numbers
    datetime.fromisoformat(moment).replace(tzinfo=UTC)
    for moment in (
        *("2026-03-29T01:00", "2025-10-26T01:00", "2026-04-04T15:00", "2026-03-08T07:00", "2018-11-04T03:00"),
        *("2026-01-01T00:00", "2025-12-28T23:59:59", "1970-01-01T00:00", "1883-11-18T17:00"),
    )
)
PROPERTIES = {
    "plan": ("pro", "free", None, "", 1, 1.0, 1.5, True, "1", "pro ", "Ünï", 10**17, 1e300, [1, "x"], {"a": 1}, -0.0),
    "amount": (1, 2.5, "7", "x", -3, None, 0, 1e15, 0.1, 0.2, True, "1e3", "nan", "inf", " 5 ", 10**18, "", [1]),
    "duration_ms": (0, 0.5, 100, 100.1, 400, 7000, None, "12.5", -1, "slow"),
    "status_code": (200, 302, 399, 400, 404, 500, None),
    "path": ("/a", "/b", None, "/ü", ""),
    "error": ("KeyError", None),
    "quantity": ("0.1", 1, -2, "3.000000001", None, 0),
    "sku": ("calls", "gb", None),
    "unit": ("call", None, ""),
    "organization_id": ("acme", "zed", None),
}
COHORTS: tuple[dict[str, Any], ...] = (
    {"did": "a"},
    {"did": "b", "at_least": 2, "end": "2026-02-01"},
    {"not": {"did": "a", "at_most": 3}},
    {"first": "b", "start": "2026-01-01"},
    {"sequence": ["a", {"where": "type = 'track'"}, "b"], "start": "2025-06-01"},
    {"any": [{"did": "pay", "measure": "sum(amount)", "above": 2}, {"all": [{"did": "home"}, {"not": {"did": "a"}}]}]},
    {"did": {"event": ["a", "home"]}, "measure": "avg(amount)", "below": 5, "within": "700d"},
)
_DAY_S = 86_400
_SPLIT = ("plan", "type", "session_id", "person_id", "path", "amount")


class MadeUp:
    """A random stream of events: `events`, and `merges` of their people. No person is merged into two."""

    def __init__(self, rng: Random, *, people: int = 4, maximum: int = 40) -> None:
        self._rng = rng
        self._base = rng.choice(ODD[:-2])
        self._span_s = rng.choice([3, 300, _DAY_S, 10 * _DAY_S, 60 * _DAY_S])
        self._names = rng.sample(NAMES, rng.randint(2, 5))
        self._people = [("?" if rng.random() < 0.3 else "") + f"p{number}" for number in range(people)]
        self.events = [self._event() for _ in range(rng.randint(1, maximum))]
        users = [user for user in self._people if user[0] != "?"]
        for visitor in self._people:
            if visitor[0] == "?" and users:
                self.events.append(identified(rng.choice(users), visitor, 0) | {"timestamp": self._time().isoformat()})
        rng.shuffle(self.events)
        used = [user for user in users if any(event["userId"] == user for event in self.events)]
        half = len(used) // 2
        self.merges = list(zip(used[:half], used[half:], strict=False)) if rng.random() < 0.8 else []

    def _time(self) -> datetime:
        rng = self._rng
        if rng.random() < 0.2:
            beside = timedelta(microseconds=rng.choice([0, -1, 1, 3_600_000_000, -3_600_000_000, 1_800_000_000]))
            return rng.choice(ODD) + beside
        if rng.random() < 0.3:
            return self._base + timedelta(seconds=rng.choice([0, 0, 1, 10, 1799, 1800, 3600, _DAY_S, 7 * _DAY_S]))
        return self._base + timedelta(seconds=rng.randint(-self._span_s, self._span_s))

    def _event(self) -> dict[str, Any]:
        rng = self._rng
        properties = {name: rng.choice(values) for name, values in PROPERTIES.items() if rng.random() < 0.6}
        who, session = rng.choice([*self._people, None]), rng.choice(["s1", "s2", "ü", None, None])
        event = happened(rng.choice(self._names), who, 0, properties, session=session)
        event |= {"timestamp": self._time().isoformat()}
        if rng.random() < 0.2:
            event |= {"type": rng.choice(["page", "screen"]), "name": event["event"]}
        return event

    # Questions

    def questions(self) -> dict[str, dict[str, Any]]:
        """Arguments for every report. A `cohort` is a definition; `timeline` lacks its person."""
        rng = self._rng
        conversion = {"conversion": self._selection()} if rng.random() < 0.5 else {}
        return {
            "funnel": self._funnel() | self._by(("plan", "path", "person_id")),
            "funnel_people": self._funnel() | {"outcome": rng.choice(["dropped", "converted"]), "limit": 1_000},
            "funnel_times": self._funnel(least=2) | {"bins": rng.choice([1, 5, 24])},
            "retention": self._common()
            | self._calendar("day", "week", "month")
            | {"mode": rng.choice(["first_time", "recurring", "unbounded"]), "periods": rng.choice([1, 3, 12])}
            | self._selected("start_event")
            | self._selected("return_event"),
            "lifecycle": rng.choice(
                [
                    self._whole("week", "month"),
                    self._common() | self._calendar("week", "month") | self._selected("event"),
                ]
            ),
            "stickiness": rng.choice(
                [
                    self._whole("day", "week", "month"),
                    self._whole("day") | {"interval": rng.choice(["week", "month"])},
                    self._common() | self._selected("event") | self._calendar("day", "week", "month"),
                    self._common() | self._selected("event") | self._calendar("hour") | {"interval": "day"},
                ]
            ),
            "sessions": self._common()
            | self._calendar("week", "month", None)
            | {"timeout": rng.choice(["30m", "1d", 1]), "use": rng.choice(["timeout", "session_id"])}
            | self._by(("entry", "exit", "event", *_SPLIT))
            | conversion,
            "session_list": self._common()
            | {"timeout": rng.choice(["30m", "1d", 1]), "use": rng.choice(["timeout", "session_id"])}
            | rng.choice([{}, {"by": "plan", "value": "1"}, {"by": "exit", "value": self._names[0]}, {"by": "path"}])
            | conversion,
            "segmentation": self._segmentation(),
            "top": self._top(),
            "paths": self._common()
            | {"steps": rng.randint(1, 5), "top": rng.choice([1, 2, 8]), "collapse": rng.random() < 0.5}
            | {"timeout": rng.choice(["30m", "1d", 1]), "by": rng.choice(["event", "event", *_SPLIT])}
            | rng.choice([self._selected("after"), self._selected("before")]),
            "timeline": self._range() | {"limit": rng.choice([1, 5, 1_000])},
            "anomalies": self._anomalies(),
            "performance": self._common()
            | self._calendar("minute", "hour", "day", "week", None)
            | {"threshold_ms": rng.choice([100, 0.5]), "errors_from": rng.choice([400, 500])}
            | {"by": rng.choice([[], "path", "status_code", ["path", "error"], "plan"])},
            "errors": self._common()
            | {"by": rng.choice(["path", "status_code", ["path", "error", "event"]]), "limit": rng.choice([1, 100])},
            "cohort_people": {"cohort": rng.choice(COHORTS), "limit": 1_000},
            "cohort_size": {"cohort": rng.choice(COHORTS)},
            "usage": self._range()
            | self._calendar("hour", "day", "month", None)
            | rng.choice([{}, {"sku": "calls"}, {"organization_id": "acme"}]),
        }

    def whole_range(self) -> dict[str, Any]:
        """Both bounds, one, or none: midnights of UTC."""
        return {
            name: moment.replace(hour=0, minute=0, second=0, microsecond=0) for name, moment in self._range().items()
        }

    def _moment(self) -> datetime:
        rng = self._rng
        seconds = rng.choice([rng.randint(-self._span_s, self._span_s), 0, 3600, 1800, -_DAY_S])
        return self._base + timedelta(seconds=seconds, microseconds=rng.choice([0, 0, 1, -1]))

    def _range(self) -> dict[str, Any]:
        start, end = sorted((self._moment(), self._moment()))
        return self._rng.choice([{}, {}, {"start": start}, {"end": end}, {"start": start, "end": end}])

    def _common(self) -> dict[str, Any]:
        rng = self._rng
        where = {"where": rng.choice(list(CONDITIONS))} if rng.random() < 0.2 else {}
        return self._range() | where | ({"cohort": rng.choice(COHORTS)} if rng.random() < 0.2 else {})

    def _calendar(self, *grains: str | None) -> dict[str, Any]:
        rng = self._rng
        week_start = rng.choice(["monday", "sunday", "saturday"])
        return {"grain": rng.choice(grains), "tz": rng.choice(ZONES), "week_start": week_start}

    def _whole(self, *grains: str) -> dict[str, Any]:
        """A range of whole days of UTC, which the bitmaps of days cover."""
        return self.whole_range() | self._calendar(*grains) | {"tz": "UTC"}

    def _selection(self) -> Any:
        rng = self._rng
        return rng.choice(
            [
                rng.choice(self._names),
                {"event": rng.sample(self._names, 2), "label": "two"},
                {"event": rng.choice(self._names), "where": "properties->>'$.plan' = 'pro'", "label": "pro"},
                {"where": "type = 'track'", "label": "tracked"},
            ]
        )

    def _selected(self, name: str) -> dict[str, Any]:
        return {name: self._selection()} if self._rng.random() < 0.6 else {}

    def _by(self, names: tuple[str, ...]) -> dict[str, Any]:
        rng = self._rng
        return {"by": rng.choice(names), "top": rng.choice([1, 2, 10])} if rng.random() < 0.4 else {}

    def _funnel(self, least: int = 1) -> dict[str, Any]:
        rng = self._rng
        count = rng.randint(least, 4)
        steps = [self._selection() for _ in range(count)]
        question = self._common() | {"steps": steps, "within": rng.choice([1, 30, "1h", "7d"])}
        question |= {"order": rng.choice(["ordered", "ordered", "strict", "any"]), "allow_equal": rng.random() < 0.4}
        if question["order"] == "ordered" and count > 1 and rng.random() < 0.4:
            between = sorted(rng.sample(range(1, count + 1), 2))
            question["exclude"] = [{"event": rng.choice(self._names), "between": between}]
        return question

    def _segmentation(self) -> dict[str, Any]:
        rng = self._rng
        measures = ("people", "sum(amount)", "avg(amount)", "min(amount)", "distinct(plan)", "quantile(amount, 0.9)")
        question = self._calendar("day", "week", "month", None)
        question["events"] = rng.choice([None, self._names[:2], [self._selection()]])
        if rng.random() < 0.4:  # its whole hours come from the rollup
            return question | self._range() | rng.choice([{}, {"by": "event", "top": 2}])
        question |= self._common() | {"measure": rng.choice(measures)}
        if rng.random() < 0.5:
            question |= {"by": rng.choice([rng.choice(_SPLIT), rng.sample(_SPLIT, 2)]), "top": rng.choice([1, 2, 10])}
        return question | (
            {"formula": "B - A * 2"} if question["events"] == self._names[:2] and rng.random() < 0.3 else {}
        )

    def _top(self) -> dict[str, Any]:
        rng = self._rng
        question = {"what": rng.choice(["event", *_SPLIT]), "n": rng.choice([1, 3, 100]), "people": rng.random() < 0.6}
        return question | self._common() | self._selected("event")

    def _anomalies(self) -> dict[str, Any]:
        rng = self._rng
        question = self._common() | {"grain": rng.choice(["hour", "day"]), "seasonality": rng.choice(["day", "week"])}
        question |= {"history": rng.choice([3, 8]), "sensitivity": rng.choice([0.5, 3.0]), "tz": rng.choice(ZONES)}
        question |= self._selected("event") | {"end": self._moment()}
        return question | {"start": question["end"] - timedelta(days=rng.choice([1, 9]), seconds=rng.randint(0, 5_000))}
