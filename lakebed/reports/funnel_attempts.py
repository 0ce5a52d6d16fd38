"""Attempts: SQL that computes how far each person came through the steps of a funnel.

All times of a person are gathered in lists, one for each step, and the lists are merged step by step. In the sorted,
merged list of step 2 lie the events that reached step 1, the events of step 2, and excluded events. An event of step 2
reaches its step if the element right before it reached step 1, recently enough. Step 3 continues from the events that
reached step 2. No row is sorted, only lists of integers are, and a person with a million events costs no more than a
thousand people with a thousand events.

An element is the microseconds of an event times 64, plus a code in the last six bits: of step k of n it is 2(n - k), so
that of one moment later steps come first, and no step follows another of the same moment. These are all attempts at
`funnel(["Signup", "Order"], within="7d")`, where `$p0` is "Signup", `$p1` is "Order" and `$p4` is seven days:

    WITH marked AS (
        SELECT person_id, epoch_us(timestamp) AS us, seq, (event = $p0) AS is_1, (event = $p1) AS is_2
        FROM events WHERE person_id IS NOT NULL AND true AND event IN ($p2, $p3)
    ), lists AS (
        SELECT person_id, list(us * 64 + 2) FILTER (is_1) AS events_1, list(us * 64 + 0) FILTER (is_2) AS events_2,
            NULL::BIGINT[] AS excluded_1
        FROM marked GROUP BY person_id
    ), reaching_1 AS (
        SELECT *, events_1 AS reached_1 FROM lists WHERE events_1 IS NOT NULL
    ), merging_2 AS (
        SELECT *, CASE WHEN len(reached_1) > 0 AND events_2 IS NOT NULL
            THEN list_sort(list_concat(reached_1, list_concat(events_2, excluded_1))) END AS merged_2
        FROM reaching_1
    ), reaching_2 AS (
        SELECT *, list_filter(list_transform(merged_2, lambda x, i: CASE
            WHEN x & 63 = 0 AND list_extract(merged_2, i - 1) & 63 = 2
                AND (x >> 6) - (list_extract(merged_2, i - 1) >> 6) <= $p4
            THEN {'code': x, 't1': (list_extract(merged_2, i - 1) >> 6)} END), lambda x: x IS NOT NULL) AS reached_2
        FROM merging_2
    ), first AS (
        SELECT *, list_extract(reached_2, 1) AS first_2 FROM reaching_2
    )
    SELECT person_id, CASE WHEN len(reached_2) > 0 THEN 2 ELSE 1 END AS depth,
        coalesce(first_2.t1, (list_min(events_1) >> 6)) AS t1, coalesce((first_2.code >> 6)) AS t2
    FROM first

If events of one moment have an order (`allow_equal`), or other events matter (`order="strict"`), an element holds
the number of its event in that order instead of microseconds, and a list `times` has the microseconds of each number.

Rejected: window functions over rows, which sort by person for each step, took four times as long.
`list_reduce` with all columns of a row took as long, and for each 2,048 people goes through the longest list.
Joins of each step's events with the step before have unbounded size: a person's views times their orders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, get_args

import msgspec

from lakebed.errors import QueryRefused
from lakebed.events.promotions import Promotion, column_sql
from lakebed.reports.arguments import Duration, check_choice, check_name, duration_us
from lakebed.reports.scope import EventFilter, EventLike, Parameters, Scope, with_tables

__all__ = ["FunnelAttempts", "FunnelExclusion", "Order"]

Order = Literal["ordered", "strict", "any"]

_MAX_STEPS = 20
_CODES = 64  # the last six bits of an element are its code: see _step_code, _excluded_code
_LAST_CODE = _CODES - 1  # code of an excluded event that comes after everything else with its number
_BEYOND = 1 << 58  # more than any time has microseconds; twenty times that is a BIGINT
_LAST_US = 253_402_300_799_999_999  # the last microsecond of the year 9999


class FunnelExclusion(msgspec.Struct, frozen=True):
    """Events that end an attempt between two steps, `first` and `last`. Steps count from 1."""

    events: EventFilter
    first: int
    last: int

    @classmethod
    def of(cls, value: EventLike, steps: int) -> Self:
        """The exclusion of `"A"` or `{"event": "A", "where": "…", "between": [1, 3]}`; by default between all `steps`.

        Raises:
            QueryRefused: `value` is neither, or `between` is not a pair of steps in order.
        """
        between: Any = None
        if isinstance(value, Mapping) and "between" in value:
            between = value["between"]
            value = {key: part for key, part in value.items() if key != "between"}
        events = EventFilter.of(value, "exclude")
        match between:
            case None:
                first, last = 1, steps
            case [int(first), int(last)]:
                pass
            case _:
                first, last = 0, 0
        if not 1 <= first < last <= steps:
            hint = f"Give the numbers of two steps in order, such as [1, {max(steps, 2)}]"
            raise QueryRefused(f"`between` is {str(between)[:40]!r}, not two of the {steps} steps in order", hint=hint)
        return cls(events, first, last)


class FunnelAttempts(msgspec.Struct, frozen=True):
    """The steps of a funnel, and the rules for who reached which step. docs/reports/funnel.md explains the rules.

    Attributes:
        steps: filters of the steps, in order.
        within_us: the longest time from the first step to the last, microseconds.
        order: "ordered", "strict" or "any".
        allow_equal: whether events of one timestamp may follow each other, in the order in which they were received.
        exclusions: events that end an attempt.
        totals: whether all attempts are counted, too.
        held: SQL over `events` for a text that has to be the same in all steps of an attempt, or None.
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
        exclude: Sequence[EventLike] | None,
        holding: str | None,
        promotions: Sequence[Promotion],
        *,
        allow_equal: bool,
        totals: bool = False,
    ) -> Self:
        """The attempts for the arguments that `funnel`, `funnel_people` and `funnel_times` have in common.

        Raises:
            QueryRefused: an argument is not valid, or does not go with another.
        """
        if isinstance(steps, str) or not 1 <= len(steps) <= _MAX_STEPS:
            count = 1 if isinstance(steps, str) else len(steps)
            raise QueryRefused(f"the funnel has {count} steps", hint=f"Give a list of 1 to {_MAX_STEPS}")
        check_choice("order", order, get_args(Order))
        filters = tuple(EventFilter.of(step, f"step {number}") for number, step in enumerate(steps, 1))
        exclusions = tuple(FunnelExclusion.of(value, len(steps)) for value in exclude or ())
        if order == "any" and any((exclusion.first, exclusion.last) != (1, len(steps)) for exclusion in exclusions):
            hint = "Leave `between` out, to exclude between all steps, or choose another order"
            raise QueryRefused('`between` and order="any" cannot be combined', hint=hint)
        if totals and order == "any":
            raise QueryRefused('`totals` and order="any" cannot be combined', hint="Choose another order")
        if holding is not None:
            check_name("holding", holding)
        held = None if holding is None else f"CAST({column_sql(holding, promotions)} AS VARCHAR)"
        return cls(filters, duration_us("within", within), order, allow_equal, exclusions, totals, held)  # type: ignore[arg-type]  # order was checked

    @property
    def filters(self) -> tuple[EventFilter, ...]:
        """The filters of steps and exclusions. Their conditions may be untrusted."""
        return (*self.steps, *(exclusion.events for exclusion in self.exclusions))

    def sql(self, scope: Scope, bind: Parameters) -> str:
        """SQL for one row for each person who reached the first step: `person_id, depth, t1 … tn`.

        `depth` is the last step reached. The times are microseconds, NULL for the steps after `depth`. `totals` adds
        `n1 … nn`, the number of the person's attempts that reached each step; `held` adds a column `held`.
        """
        attempts = self._in_any_order(scope, bind) if self.order == "any" else self._in_order(scope, bind)
        if self.held is None:
            return attempts
        # Each value of a person is a row of `attempts`. The furthest counts, then the first there, then the last begun.
        columns = ["held", "depth", *(f"t{step}" for step in self._numbers)]
        reached = f"coalesce({', '.join(f't{step}' for step in reversed(self._numbers))})"
        attempt = ", ".join(f"'{column}': {column}" for column in columns)
        best = f"arg_max({{{attempt}}}, row(depth, -{reached}, t1, held)) AS best"
        sums = [f"sum(n{step}) AS n{step}" for step in self._numbers] if self.totals else []
        people = f"SELECT person_id, {', '.join([best, *sums])} FROM ({attempts}) GROUP BY person_id"
        shown = ", ".join(f"best.{column} AS {column}" for column in columns)
        return f"SELECT * EXCLUDE (best), {shown} FROM ({people})"

    def first_values(self, attempts: str, value: str, scope: Scope, bind: Parameters) -> str:
        """SQL for `person_id, value`: the value in the event that began each attempt; of several, the first stored.

        Args:
            attempts: name of a table with the rows of `sql`.
            value: SQL over the columns of `events` for a text; it is computed for these events alone.
            scope: the scope that was passed to `sql`.
            bind: parameters of the statement; the values are added to them.
        """
        begins = self.steps if self.order == "any" else self.steps[:1]
        condition = " OR ".join(f"({step.condition(bind)})" for step in begins)
        held, same = ("", "") if self.held is None else (", held AS _lakebed_held", f" AND {self.held} = _lakebed_held")
        return (
            f"SELECT _lakebed_who AS person_id, arg_min({{'value': {value}}}, seq).value AS value "
            f"FROM events JOIN (SELECT person_id AS _lakebed_who, t1 AS _lakebed_began{held} FROM {attempts}) "
            f"ON person_id = _lakebed_who AND epoch_us(timestamp) = _lakebed_began{same} "
            f"WHERE {scope.condition(bind)} AND ({condition}) GROUP BY _lakebed_who"
        )

    @property
    def _attempter(self) -> str:
        """The columns that identify who makes attempts: a person, or with `held` one value of a person."""
        return "person_id" if self.held is None else "person_id, held"

    @property
    def _numbers(self) -> range:
        return range(1, len(self.steps) + 1)

    @property
    def _is_numbered(self) -> bool:
        """Whether elements hold the number of an event in its order, and not its time."""
        return self.order == "strict" or self.allow_equal

    @property
    def _has_events_between(self) -> bool:
        """Whether excluded events have no number of their own, but lie between numbered events."""
        return self.order == "strict" and bool(self.exclusions)

    def _step_code(self, step: int) -> int:
        return 2 * (len(self.steps) - step)

    def _excluded_code(self, step: int) -> int:
        """The code of an event excluded after `step`: of one time, it sorts before `step` and after the next step."""
        return self._step_code(step) - 1

    def _time(self, element: str) -> str:
        """SQL for the microseconds of an element."""
        return f"list_extract(times, {element} >> 6)" if self._is_numbered else f"({element} >> 6)"

    def _marked(self, scope: Scope, bind: Parameters, *columns: str) -> str:
        """SQL for the events that are a step or excluded: `person_id, us, seq, is_1 … is_n, out_1 …`, and `columns`."""
        flags = [f"({step.condition(bind)}) AS is_{number}" for number, step in enumerate(self.steps, 1)]
        excluded = enumerate((exclusion.events for exclusion in self.exclusions), 1)
        flags += [f"({selection.condition(bind)}) AS out_{number}" for number, selection in excluded]
        held = [] if self.held is None else [f"{self.held} AS held"]
        names = ["person_id", *held, "epoch_us(timestamp) AS us", "seq", *flags, *columns]
        until_us = None if scope.end_us is None else min(scope.end_us + self.within_us, _LAST_US)
        conditions = ["person_id IS NOT NULL", scope.between(scope.start_us, until_us).condition(bind)]
        if self.order != "strict" and all(selection.events for selection in self.filters):
            events = dict.fromkeys(event for selection in self.filters for event in selection.events)
            conditions.append(f"event IN ({', '.join(map(bind, events))})")
        conditions += [] if self.held is None else [f"{self.held} IS NOT NULL"]
        return f"SELECT {', '.join(names)} FROM events WHERE {' AND '.join(conditions)}"

    def _in_order(self, scope: Scope, bind: Parameters) -> str:
        """The SQL for ordered and strict steps; the docstring of this file has an example."""
        last = len(self.steps)
        tables = self._lists(scope, bind)
        tables["reaching_1"] = "SELECT *, events_1 AS reached_1 FROM lists WHERE events_1 IS NOT NULL"
        for step in self._numbers[1:]:
            tables[f"merging_{step}"] = self._merging(step)
            tables[f"reaching_{step}"] = self._reaching(step, bind)
        firsts = [f"list_extract(reached_{step}, 1) AS first_{step}" for step in self._numbers[1:]]
        tables["first"] = f"SELECT {', '.join(['*', *firsts])} FROM reaching_{last}"
        depths = " ".join(f"WHEN len(reached_{step}) > 0 THEN {step}" for step in range(last, 1, -1))
        columns = [self._attempter, f"CASE {depths} ELSE 1 END AS depth" if depths else "1 AS depth"]
        for step in self._numbers:  # the time of `step` in the attempt that went furthest
            own = self._time("list_min(events_1)" if step == 1 else f"first_{step}.code")
            further = [f"first_{later}.t{step}" for later in range(last, step, -1)]
            columns.append(f"coalesce({', '.join([*further, own])}) AS t{step}")
        if self.totals:
            columns += [f"coalesce(len(reached_{step}), 0) AS n{step}" for step in self._numbers]
        return with_tables(tables, f"SELECT {', '.join(columns)} FROM first")

    def _lists(self, scope: Scope, bind: Parameters) -> dict[str, str]:
        """SQL of tables. The last, `lists`, has a row for each attempter: `events_1 …`, `excluded_1 …`, `times`."""
        exclusions = [f"out_{number}" for number in range(1, len(self.exclusions) + 1)]
        tables = {"marked": self._marked(scope, bind, *(["event"] if self._is_numbered else []))}
        source, key, columns = "marked", "us", []
        if self._is_numbered:
            tables |= self._placed(exclusions)
            source, key = "placed", "place"
            others = "FILTER (disturbs)" if self._has_events_between else ""
            columns = [f"list_sort(list({'' if self.allow_equal else 'DISTINCT '}us) {others}) AS times"]
        for step in self._numbers:
            is_step = f"is_{step}"
            if step == 1 and scope.end_us is not None:  # attempts begin before the end, and may go on after it
                is_step += f" AND us < {bind(scope.end_us)}"
            columns.append(f"list({key} * {_CODES} + {self._step_code(step)}) FILTER ({is_step}) AS events_{step}")
        for step in self._numbers[:-1]:
            pairs = zip(exclusions, self.exclusions, strict=True)
            if ends := [name for name, exclusion in pairs if exclusion.first <= step < exclusion.last]:
                code = _LAST_CODE if self._has_events_between else self._excluded_code(step)
                is_excluded = f"({' OR '.join(ends)})" + (" AND is_between" if self._has_events_between else "")
                columns.append(f"list({key} * {_CODES} + {code}) FILTER ({is_excluded}) AS excluded_{step}")
            else:
                columns.append(f"NULL::BIGINT[] AS excluded_{step}")
        tables["lists"] = f"SELECT {self._attempter}, {', '.join(columns)} FROM {source} GROUP BY {self._attempter}"
        return tables

    def _placed(self, exclusions: Sequence[str]) -> dict[str, str]:
        """SQL of tables. The last, `placed`, is `marked` with `place`: the number of each event, or of its moment.

        In strict order, named events and steps are numbered. An excluded event that is neither has the number of the
        numbered event before it; `is_between` is true if no numbered event is of the same moment.
        """
        counting = ["event IS NOT NULL"] if self.order == "strict" else []
        counts = " OR ".join([*counting, *(f"is_{step}" for step in self._numbers)])
        rank, order = ("row_number()", "us, seq") if self.allow_equal else ("dense_rank()", "us")
        if not self._has_events_between:
            place = f"{rank} OVER (PARTITION BY {self._attempter} ORDER BY {order}) AS place"
            return {"placed": f"SELECT *, {place} FROM marked WHERE {' OR '.join([counts, *exclusions])}"}
        until = f"OVER (PARTITION BY {self._attempter} ORDER BY {order})"
        place = f"max(CASE WHEN disturbs THEN nth END) {until}"
        alone = f"{place} > 0" if self.allow_equal else f"us > max(CASE WHEN disturbs THEN us END) {until}"
        number = f"{rank} OVER (PARTITION BY {self._attempter}, disturbs ORDER BY {order}) AS nth"
        return {
            "disturbing": f"SELECT *, coalesce({counts}, false) AS disturbs FROM marked",
            "numbered": f"SELECT *, {number} FROM disturbing WHERE {' OR '.join(['disturbs', *exclusions])}",
            "placed": f"SELECT *, {place} AS place, NOT disturbs AND {alone} AS is_between FROM numbered",
        }

    def _merging(self, step: int) -> str:
        """SQL that adds `merged_k`: events that reached the step before, those of `step`, and excluded ones, sorted."""
        others = f"list_concat(events_{step}, excluded_{step - 1})"
        if step > 2:  # noqa: PLR2004 - `reached_1` has integers, the later ones have structs
            times = "".join(f", 't{earlier}': NULL" for earlier in range(1, step - 1))
            others = f"list_transform({others}, lambda x: {{'code': x{times}}})"
        condition = f"len(reached_{step - 1}) > 0 AND events_{step} IS NOT NULL"
        merged = f"list_sort(list_concat(reached_{step - 1}, {others}))"
        return f"SELECT *, CASE WHEN {condition} THEN {merged} END AS merged_{step} FROM reaching_{step - 1}"

    def _reaching(self, step: int, bind: Parameters) -> str:
        """SQL that adds `reached_k`: events that reached `step`, in order, with the times `t1 …` of earlier steps."""
        event, previous = "x", f"list_extract(merged_{step}, i - 1)"
        times, began = "", self._time(previous)
        if step > 2:  # noqa: PLR2004 - as in _merging
            times = "".join(f", 't{earlier}': {previous}.t{earlier}" for earlier in range(1, step - 1))
            began = f"{previous}.t1"
            event, previous = "x.code", f"{previous}.code"
        conditions = [
            f"{event} & 63 = {self._step_code(step)}",
            f"{previous} & 63 = {self._step_code(step - 1)}",
            f"{self._time(event)} - {began} <= {bind(self.within_us)}",
        ]
        if self.order == "strict":
            conditions.append(f"({event} >> 6) = ({previous} >> 6) + 1")
        attempt = f"{{'code': {event}{times}, 't{step - 1}': {self._time(previous)}}}"
        attempt = f"CASE WHEN {' AND '.join(conditions)} THEN {attempt} END"
        reached = f"list_filter(list_transform(merged_{step}, lambda x, i: {attempt}), lambda x: x IS NOT NULL)"
        return f"SELECT *, {reached} AS reached_{step} FROM merging_{step}"

    def _in_any_order(self, scope: Scope, bind: Parameters) -> str:
        """The SQL for steps in any order: finds the window with most steps, among the windows that end with each event.

        Here rows are sorted, once: the last event of each step is not a neighbour in any list, and `list_reduce`, which
        could carry it along, takes four times as long.
        """
        groups: dict[tuple[frozenset[str], str | None], list[int]] = {}  # equal steps, whatever their labels
        for number, selection in enumerate(self.steps, 1):
            groups.setdefault((frozenset(selection.events), selection.where), []).append(number)
        earlier, lasts = [], []
        for number, *equal in groups.values():  # the first of equal steps needs the last event, the next the one before
            own = f"PARTITION BY {self._attempter}, is_{number} ORDER BY us"
            earlier += [f"lag(us, {n}) OVER ({own}) AS before_{later}" for n, later in enumerate(equal, 1)]
            for step, us in [(number, "us"), *((later, f"before_{later}") for later in equal)]:
                lasts.append(f"max(CASE WHEN is_{number} THEN {us} END) OVER until AS last_{step}")
        entry = "us" if scope.end_us is None else f"CASE WHEN us < {bind(scope.end_us)} THEN us END"
        is_step = " OR ".join(f"is_{step}" for step in self._numbers)
        is_excluded = " OR ".join(f"out_{number}" for number in range(1, len(self.exclusions) + 1)) or "false"
        since = f"us - {bind(self.within_us)}"
        if self.exclusions:  # attempts that began before an excluded event end with it
            before = f"PARTITION BY {self._attempter} ORDER BY us RANGE BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING"
            since = f"greatest({since}, max(CASE WHEN {is_excluded} THEN us END) OVER ({before}))"
        done = " + ".join(f"CASE WHEN last_{step} >= since THEN 1 ELSE 0 END" for step in self._numbers)
        begun = ", ".join(f"CASE WHEN last_{step} >= since THEN last_{step} END" for step in self._numbers)
        best = f"done * {_BEYOND} - us"  # the largest has the most steps; of several, the earliest
        lists = ", ".join(f"list(us) FILTER (is_{number}) AS events_{number}" for number, *_ in groups.values())
        times = ", ".join(
            f"list_slice(list_sort(list_filter(events_{number}, lambda x: x BETWEEN begun AND reached)), 1, "
            f"{1 + len(equal)})"
            for number, *equal in groups.values()
        )
        columns = ", ".join(f"list_extract(times, {step}) AS t{step}" for step in self._numbers)
        tables = {
            "marked": self._marked(scope, bind),
            "repeated": f"SELECT {', '.join(['*', *earlier])} FROM marked WHERE {is_step} OR {is_excluded}",
            "windows": f"SELECT *, {since} AS since, max({entry}) OVER until AS entry, {', '.join(lasts)} "
            f"FROM repeated WINDOW until AS (PARTITION BY {self._attempter} ORDER BY us)",
            "attempts": f"SELECT *, {done} AS done, least(entry, {begun}) AS begun "
            f"FROM windows WHERE entry >= since AND ({is_step})",
            "best": f"SELECT {self._attempter}, max(done) AS depth, arg_max(begun, {best}) AS begun, "
            f"max(done) * {_BEYOND} - max({best}) AS reached, {lists} FROM attempts GROUP BY {self._attempter}",
            "timed": f"SELECT *, list_sort(flatten([{times}])) AS times FROM best",
        }
        return with_tables(tables, f"SELECT {self._attempter}, depth, {columns} FROM timed")
