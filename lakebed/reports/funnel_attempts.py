"""Attempts: how far each person came through the steps of a funnel, as SQL.

All times of a person are gathered in lists, one a step, and the lists are merged step by step: an event reaches a step
if what lies right before it in one sorted list is somebody who waits. In the list are those who wait for the step, the
events that are it, and those that are excluded. No row is sorted, only lists of integers are, and a person with a
million events costs no more than a thousand with a thousand.

Window functions over rows, a sort by person for each step, gave the same in four times the time. `list_reduce` with all
that a row says took as long, and goes through the longest list of each 2,048 people by itself. Joins of each step's
events with the step before have no bound: a person's views times their orders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self, get_args

import msgspec

from lakebed.errors import QueryRefused
from lakebed.events.promotions import Promotion, column_sql
from lakebed.reports.duration import Duration, duration_us
from lakebed.reports.event_filter import EventFilter, EventLike
from lakebed.reports.funnel_exclusion import FunnelExclusion
from lakebed.reports.parameters import Parameters
from lakebed.reports.scope import Scope

__all__ = ["FunnelAttempts", "Order"]

Order = Literal["ordered", "strict", "any"]

_FIRST, _MOST_STEPS = 1, 20
_CODES = 64  # the last six bits of an element say what it is: _step, _excluded
_AFTER = _CODES - 1  # the code of what is excluded and comes after all else of its key
_BEYOND = 1 << 58  # more than any time has microseconds; twenty times that is a BIGINT
_LAST_US = 253_402_300_799_999_999  # of the year 9999


class FunnelAttempts(msgspec.Struct, frozen=True):
    """The steps, and what else decides who reached which. docs/reports/funnel.md says it in words.

    Attributes:
        steps: in order.
        within_us: from the first step to the last.
        allow_equal: events of one timestamp come after each other as they were received; else none does.
        totals: whether to count all attempts, too.
        held: SQL over `events` for a text that all steps of an attempt share, or None.
    """

    steps: tuple[EventFilter, ...]
    within_us: int
    order: Order = "ordered"
    allow_equal: bool = False
    exclusions: tuple[FunnelExclusion, ...] = ()
    totals: bool = False
    held: str | None = None

    @classmethod
    def of(
        cls,
        steps: Sequence[EventLike],
        within: Duration,
        order: str,
        *,
        allow_equal: bool,
        exclude: Sequence[EventLike] | None,
        holding: str | None,
        promotions: Sequence[Promotion],
        totals: bool = False,
    ) -> Self:
        """What the arguments of a report mean.

        Raises:
            QueryRefused: one of them cannot be read, or it does not go with another.
        """
        if isinstance(steps, str) or not 1 <= len(steps) <= _MOST_STEPS:
            count = 1 if isinstance(steps, str) else len(steps)
            raise QueryRefused(f"a funnel of {count} steps", hint=f"Give a list of 1 to {_MOST_STEPS}")
        if order not in get_args(Order):
            raise QueryRefused(f"order is {str(order)[:40]!r}", hint=f"Use one of {', '.join(get_args(Order))}")
        chosen = tuple(EventFilter.of(step, f"step {at}") for at, step in enumerate(steps, 1))
        exclusions = tuple(FunnelExclusion.of(one, len(steps)) for one in exclude or ())
        if order == "any" and any((one.first, one.last) != (1, len(steps)) for one in exclusions):
            hint = "Exclude it between all of the steps, or give them an order"
            raise QueryRefused('exclude: between does not go with order="any"', hint=hint)
        if totals and order == "any":
            raise QueryRefused('totals do not go with order="any"', hint="Give the steps an order")
        if holding is not None and (not isinstance(holding, str) or not holding):
            raise QueryRefused(f"holding is {str(holding)[:40]!r}", hint="Name a column or a property")
        held = None if holding is None else f"CAST({column_sql(holding, promotions)} AS VARCHAR)"
        return cls(chosen, duration_us("within", within), order, allow_equal, exclusions, totals, held)  # type: ignore[arg-type]  # it was looked up

    @property
    def selections(self) -> tuple[EventFilter, ...]:
        """All of which a condition may be a stranger's."""
        return (*self.steps, *(one.events for one in self.exclusions))

    def sql(self, scope: Scope, bind: Parameters) -> str:
        """SQL for one row a person who began: `person_id, depth, t1 … tn`, microseconds, NULL from `depth` on.

        With `totals` there are `n1 … nn`, how many attempts of theirs reached each step; with `held` there is `held`.
        """
        found = self._any_order(scope, bind) if self.order == "any" else self._in_order(scope, bind)
        if self.held is None:
            return found
        # Each value of a person is a row: the furthest counts, of several the first there, of those the last to begin.
        columns = ["held", "depth", *(f"t{at}" for at in self._numbers)]
        reached = f"coalesce({', '.join(f't{at}' for at in reversed(self._numbers))})"
        attempt = ", ".join(f"'{one}': {one}" for one in columns)
        best = f"arg_max({{{attempt}}}, row(depth, -{reached}, t1, held))"
        sums = "".join(f", sum(n{at}) AS n{at}" for at in self._numbers) if self.totals else ""
        best = f"SELECT person_id, {best} AS best{sums} FROM ({found}) GROUP BY person_id"
        return f"SELECT * EXCLUDE (best), {', '.join(f'best.{one} AS {one}' for one in columns)} FROM ({best})"

    def beginnings(self, went: str, value: str, scope: Scope, bind: Parameters) -> str:
        """SQL for `person_id, value` of the event with which each attempt began, of several the first received.

        Args:
            went: a table of what `sql` gives.
            value: SQL over the columns of `events` for a text; it is computed for these events alone.
        """
        begins = self.steps if self.order == "any" else self.steps[:1]
        condition = " OR ".join(f"({step.condition(bind)})" for step in begins)
        held, same = ("", "") if self.held is None else (", held AS _lakebed_held", f" AND {self.held} = _lakebed_held")
        return (
            f"SELECT _lakebed_who AS person_id, arg_min({{'value': {value}}}, seq).value AS value "
            f"FROM events JOIN (SELECT person_id AS _lakebed_who, t1 AS _lakebed_began{held} FROM {went}) "
            f"ON person_id = _lakebed_who AND epoch_us(timestamp) = _lakebed_began{same} "
            f"WHERE {scope.condition(bind)} AND ({condition}) GROUP BY _lakebed_who"
        )

    def marked(self, scope: Scope, bind: Parameters, *columns: str) -> str:
        """SQL for the events that matter: `person_id, us, seq, is_1 … is_n, out_1 …`, and `columns`."""
        flags = [f"({step.condition(bind)}) AS is_{at}" for at, step in enumerate(self.steps, 1)]
        flags += [f"({one.events.condition(bind)}) AS out_{at}" for at, one in enumerate(self.exclusions, 1)]
        held = [] if self.held is None else [f"{self.held} AS held"]
        names = ["person_id", *held, "epoch_us(timestamp) AS us", "seq", *flags, *columns]
        until = None if scope.end_us is None else min(scope.end_us + self.within_us, _LAST_US)
        conditions = ["person_id IS NOT NULL", scope.between(scope.start_us, until).condition(bind)]
        events = [event for one in self.selections for event in one.events]
        if self.order != "strict" and all(one.events for one in self.selections):
            conditions.append(f"event IN ({', '.join(map(bind, dict.fromkeys(events)))})")
        conditions += [] if self.held is None else [f"{self.held} IS NOT NULL"]
        return f"SELECT {', '.join(names)} FROM events WHERE {' AND '.join(conditions)}"

    @property
    def _who(self) -> str:
        """The columns of those who make attempts: people, or with `held` each of their values by itself."""
        return "person_id" if self.held is None else "person_id, held"

    @property
    def _numbers(self) -> range:
        return range(1, len(self.steps) + 1)

    @property
    def _ranked(self) -> bool:
        """Whether elements are numbered by their order, and not by their time."""
        return self.order == "strict" or self.allow_equal

    def _step(self, number: int) -> int:
        """The code of a step. Of one moment the later steps come first, so that none follows another of that moment."""
        return 2 * (len(self.steps) - number)

    def _excluded(self, number: int) -> int:
        """The code of what is excluded after a step: at one moment it neither precedes the next nor follows this."""
        return self._step(number) - 1

    def _lists(self, scope: Scope, bind: Parameters) -> str:
        """A row a person who began: `s1 … sn`, `x1 …`: lists of key * _CODES + code; `times` by key, if ranked."""
        outs = [f"out_{at}" for at in range(1, len(self.exclusions) + 1)]
        source = self.marked(scope, bind, *(["event"] if self._ranked else []))
        columns, key = [], "us"
        if self._ranked:
            source, key = self._placed(source, outs), "place"
            others = "FILTER (disturbs)" if self._is_between else ""
            columns = [f"list_sort(list({'' if self.allow_equal else 'DISTINCT '}us) {others}) AS times"]
        for at in self._numbers:
            begins = f"is_{at} AND us < {bind(scope.end_us)}" if at == 1 and scope.end_us is not None else f"is_{at}"
            columns.append(f"list({key} * {_CODES} + {self._step(at)}) FILTER ({begins}) AS s{at}")
        for at in self._numbers[:-1]:
            if out := [name for name, one in zip(outs, self.exclusions, strict=True) if one.first <= at < one.last]:
                code = _AFTER if self._is_between else self._excluded(at)
                between = f"({' OR '.join(out)})" + (" AND is_between" if self._is_between else "")
                columns.append(f"list({key} * {_CODES} + {code}) FILTER ({between}) AS x{at}")
            else:
                columns.append(f"NULL::BIGINT[] AS x{at}")
        lists = f"SELECT {self._who}, {', '.join(columns)} FROM ({source}) GROUP BY {self._who}"
        return f"SELECT *, s1 AS v1 FROM ({lists}) WHERE s1 IS NOT NULL"

    @property
    def _is_between(self) -> bool:
        """Whether what is excluded has a place between those that are numbered, and is not one of them."""
        return self.order == "strict" and bool(self.exclusions)

    def _placed(self, source: str, outs: Sequence[str]) -> str:
        """`source` with `place`: the number of each event, or of its moment, among those that matter.

        In strict order these are the named ones and the steps. What is excluded and is none of them has the place of
        the one before, and `is_between` where no such one is of the same moment.
        """
        others = ["event IS NOT NULL"] if self.order == "strict" else []
        matter = " OR ".join([*others, *(f"is_{at}" for at in self._numbers)])
        rank, order = ("row_number()", "us, seq") if self.allow_equal else ("dense_rank()", "us")
        if not self._is_between:
            place = f"{rank} OVER (PARTITION BY {self._who} ORDER BY {order}) AS place"
            return f"SELECT *, {place} FROM ({source}) WHERE {' OR '.join([matter, *outs])}"
        marked = f"SELECT *, coalesce({matter}, false) AS disturbs FROM ({source})"
        marked = f"SELECT * FROM ({marked}) WHERE {' OR '.join(['disturbs', *outs])}"
        ranked = f"SELECT *, {rank} OVER (PARTITION BY {self._who}, disturbs ORDER BY {order}) AS nth FROM ({marked})"
        last = f"OVER (PARTITION BY {self._who} ORDER BY {order})"
        place = f"max(CASE WHEN disturbs THEN nth END) {last}"
        alone = f"{place} > 0" if self.allow_equal else f"us > max(CASE WHEN disturbs THEN us END) {last}"
        return f"SELECT *, {place} AS place, NOT disturbs AND {alone} AS is_between FROM ({ranked})"

    def _time(self, element: str) -> str:
        """SQL for the microseconds of an element."""
        return f"list_extract(times, {element} >> 6)" if self._ranked else f"({element} >> 6)"

    def _in_order(self, scope: Scope, bind: Parameters) -> str:
        found, last = self._lists(scope, bind), len(self.steps)
        for at in self._numbers[1:]:
            found = self._reaching(at, found, bind)
        depth = " ".join(f"WHEN len(v{at}) > 0 THEN {at}" for at in range(last, 1, -1))
        times = []
        for at in self._numbers:  # of the furthest step that has them
            further = [f"a{m}.t{at}" for m in range(last, at, -1)]
            own = self._time("list_min(s1)" if at == 1 else f"a{at}.c")
            times.append(f"coalesce({', '.join([*further, own])}) AS t{at}")
        firsts = ", ".join(["*", *(f"list_extract(v{at}, 1) AS a{at}" for at in self._numbers[1:])])
        depth = f"CASE {depth} ELSE 1 END" if depth else "1"
        if self.totals:
            times += [f"coalesce(len(v{at}), 0) AS n{at}" for at in self._numbers]
        return f"SELECT {self._who}, {depth} AS depth, {', '.join(times)} FROM (SELECT {firsts} FROM ({found}))"

    def _reaching(self, at: int, before: str, bind: Parameters) -> str:
        """Adds `v{at}`: each event with which somebody who waited reached the step, first to last.

        An element of it has the code `c` of that event, and the times `t1 …` of the steps before. `v1` has codes alone.
        """
        others = f"list_concat(s{at}, x{at - 1})"
        x, p = "x", f"list_extract(m{at}, i - 1)"
        times, t1 = [f"'t{at - 1}': {self._time(p)}"], self._time(p)
        if at > _FIRST + 1:
            empty = "".join(f", 't{m}': NULL" for m in range(1, at - 1))
            others = f"list_transform({others}, lambda x: {{'c': x{empty}}})"
            times = [*(f"'t{m}': {p}.t{m}" for m in range(1, at - 1)), f"'t{at - 1}': {self._time(f'{p}.c')}"]
            x, p, t1 = "x.c", f"{p}.c", f"{p}.t1"
        conditions = [f"{x} & 63 = {self._step(at)}", f"{p} & 63 = {self._step(at - 1)}"]
        conditions.append(f"{self._time(x)} - {t1} <= {bind(self.within_us)}")
        if self.order == "strict":
            conditions.append(f"({x} >> 6) = ({p} >> 6) + 1")
        reached = f"CASE WHEN {' AND '.join(conditions)} THEN {{'c': {x}, {', '.join(times)}}} END"
        merged = f"list_sort(list_concat(v{at - 1}, {others}))"
        merged = f"CASE WHEN len(v{at - 1}) > 0 AND s{at} IS NOT NULL THEN {merged} END"
        return (
            f"SELECT *, list_filter(list_transform(m{at}, lambda x, i: {reached}), lambda x: x IS NOT NULL) AS v{at} "
            f"FROM (SELECT *, {merged} AS m{at} FROM ({before}))"
        )

    def _any_order(self, scope: Scope, bind: Parameters) -> str:
        """Of each event, which steps have one in the window that ends with it, and since when; the best of a person.

        Here rows are sorted, once: what came last of each step is no neighbour in any list, and `list_reduce`, which
        could carry it along, takes four times as long.
        """
        groups: dict[tuple[frozenset[str], str | None], list[int]] = {}  # steps that are the same, whatever their label
        for at, selection in enumerate(self.steps, 1):
            groups.setdefault((frozenset(selection.events), selection.where), []).append(at)
        own, last = [], []
        for step, *more in groups.values():  # of equal steps the first needs the last event, the next the one before
            own += [f"lag(us, {n}) OVER (PARTITION BY {self._who}, is_{step} ORDER BY us) AS before_{at}"
                    for n, at in enumerate(more, 1)]  # fmt: skip
            last += [f"max(CASE WHEN is_{step} THEN us END) OVER until AS last_{step}"]
            last += [f"max(CASE WHEN is_{step} THEN before_{at} END) OVER until AS last_{at}" for at in more]
        entry = "us" if scope.end_us is None else f"CASE WHEN us < {bind(scope.end_us)} THEN us END"
        fits = " OR ".join(f"is_{at}" for at in self._numbers)
        outs = " OR ".join(f"out_{at}" for at in range(1, len(self.exclusions) + 1)) or "false"
        since = f"us - {bind(self.within_us)}"
        if self.exclusions:  # who began before one of these has ended by what comes after it
            earlier = f"PARTITION BY {self._who} ORDER BY us RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING"
            since = f"greatest({since}, max(CASE WHEN {outs} THEN us END) OVER ({earlier}))"
        source = f"SELECT {', '.join(['*', *own])} FROM ({self.marked(scope, bind)}) WHERE {fits} OR {outs}"
        source = (
            f"SELECT *, {since} AS since, max({entry}) OVER until AS entry, {', '.join(last)} "
            f"FROM ({source}) WINDOW until AS (PARTITION BY {self._who} ORDER BY us)"
        )
        done = " + ".join(f"CASE WHEN last_{at} >= since THEN 1 ELSE 0 END" for at in self._numbers)
        begun = ", ".join(f"CASE WHEN last_{at} >= since THEN last_{at} END" for at in self._numbers)
        source = f"SELECT *, {done} AS done, least(entry, {begun}) AS begun FROM ({source})"
        source += f" WHERE entry >= since AND ({fits})"
        lists = ", ".join(f"list(us) FILTER (is_{step}) AS s{step}" for step, *_ in groups.values())
        best = f"done * {_BEYOND} - us"  # the most steps, and then the earliest
        own = [
            "max(done) AS depth",
            f"arg_max(begun, {best}) AS begun",
            f"max(done) * {_BEYOND} - max({best}) AS reached",
        ]
        people = f"SELECT {self._who}, {', '.join([*own, lists])} FROM ({source}) GROUP BY {self._who}"
        within = "lambda x: x BETWEEN begun AND reached"
        times = ", ".join(
            f"list_slice(list_sort(list_filter(s{step}, {within})), 1, {1 + len(more)})"
            for step, *more in groups.values()
        )
        columns = ", ".join(f"list_extract(times, {at}) AS t{at}" for at in self._numbers)
        people = f"SELECT *, list_sort(flatten([{times}])) AS times FROM ({people})"
        return f"SELECT {self._who}, depth, {columns} FROM ({people})"
