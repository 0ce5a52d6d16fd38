"""Attempts: how far each person came through the steps of a funnel, as SQL.

All times of a person are gathered in lists, one a step, and the lists are merged step by step: an event is a step that
was reached where what comes right before it, in the sorted list of those who wait for the step, the events that are the
step, and those that are excluded, is somebody who waits. No row is sorted, only short lists of integers are; a person
with a million events costs no more than a thousand with a thousand. Window functions over rows gave the same in four
times the time (a sort by person for each step), `list_reduce` in twice, and it goes through the longest list alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self, get_args

import msgspec

from lakebed.errors import QueryRefused
from lakebed.query.binder import Binder
from lakebed.query.duration import Duration, duration_us
from lakebed.query.exclusion import Exclusion
from lakebed.query.scope import Scope
from lakebed.query.selection import EventLike, Selection

__all__ = ["Attempts", "Order"]

Order = Literal["ordered", "strict", "any"]

_FIRST, _MOST_STEPS = 1, 20
_CODES = 64  # the last six bits of an element say what it is: _step, _excluded
_LAST_US = 253_402_300_799_999_999  # of the year 9999


class Attempts(msgspec.Struct, frozen=True):
    """The steps, and what else decides who reached which. docs/definitions.md, "Funnel", says it in words.

    Attributes:
        steps: in order.
        within_us: from the first step to the last.
        allow_equal: events of one timestamp come after each other as they were received; else none does.
    """

    steps: tuple[Selection, ...]
    within_us: int
    order: Order = "ordered"
    allow_equal: bool = False
    exclusions: tuple[Exclusion, ...] = ()

    @classmethod
    def of(
        cls,
        steps: Sequence[EventLike],
        within: Duration,
        order: str,
        *,
        allow_equal: bool,
        exclude: Sequence[EventLike] | None,
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
        chosen = tuple(Selection.of(step, f"step {at}") for at, step in enumerate(steps, 1))
        exclusions = tuple(Exclusion.of(one, len(steps)) for one in exclude or ())
        if exclusions and order != "ordered":
            hint = "In strict order everything is excluded already" if order == "strict" else "Give the steps an order"
            raise QueryRefused(f"exclude does not go with order={order!r}", hint=hint)
        return cls(chosen, duration_us("within", within), order, allow_equal, exclusions)  # type: ignore[arg-type]  # it was looked up

    @property
    def selections(self) -> tuple[Selection, ...]:
        """All of which a condition may be a stranger's."""
        return (*self.steps, *(one.events for one in self.exclusions))

    def sql(self, scope: Scope, bind: Binder) -> str:
        """SQL for one row a person who began: `person_id, depth, t1 … tn`, microseconds, NULL from `depth` on."""
        if self.order == "any":
            return self._any_order(scope, bind)
        return self._in_order(scope, bind)

    def beginnings(self, went: str, value: str, scope: Scope, bind: Binder) -> str:
        """SQL for `person_id, value` of the event with which each attempt began, of several the first received.

        Args:
            went: a table of what `sql` gives.
            value: SQL over the columns of `events`; it is computed for these events alone.
        """
        begins = self.steps if self.order == "any" else self.steps[:1]
        condition = " OR ".join(f"({step.condition(bind)})" for step in begins)
        return (
            f"SELECT _lakebed_who AS person_id, arg_min({{'value': CAST({value} AS VARCHAR)}}, seq).value AS value "
            f"FROM events JOIN (SELECT person_id AS _lakebed_who, t1 AS _lakebed_began FROM {went}) "
            "ON person_id = _lakebed_who AND epoch_us(timestamp) = _lakebed_began "
            f"WHERE {scope.condition(bind)} AND ({condition}) GROUP BY _lakebed_who"
        )

    def marked(self, scope: Scope, bind: Binder, *columns: str) -> str:
        """SQL for the events that matter: `person_id, us, seq, is_1 … is_n, out_1 …`, and `columns`."""
        flags = [f"({step.condition(bind)}) AS is_{at}" for at, step in enumerate(self.steps, 1)]
        flags += [f"({one.events.condition(bind)}) AS out_{at}" for at, one in enumerate(self.exclusions, 1)]
        names = ["person_id", "epoch_us(timestamp) AS us", "seq", *flags, *columns]
        until = None if scope.end_us is None else min(scope.end_us + self.within_us, _LAST_US)
        conditions = ["person_id IS NOT NULL", scope.between(scope.start_us, until).condition(bind)]
        events = [event for one in self.selections for event in one.events]
        if self.order != "strict" and all(one.events for one in self.selections):
            conditions.append(f"event IN ({', '.join(map(bind, dict.fromkeys(events)))})")
        return f"SELECT {', '.join(names)} FROM events WHERE {' AND '.join(conditions)}"

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

    def _lists(self, scope: Scope, bind: Binder) -> str:
        """A row a person who began: `s1 … sn`, `x1 …`: lists of key * _CODES + code; `times` by key, if ranked."""
        outs = [f"out_{at}" for at in range(1, len(self.exclusions) + 1)]
        source = self.marked(scope, bind, *(["event"] if self._ranked else []))
        columns, key = [], "us"
        if self._ranked:
            others = ["event IS NOT NULL"] if self.order == "strict" else []
            matter = " OR ".join([*others, *(f"is_{at}" for at in self._numbers), *outs])
            rank = "row_number() OVER (PARTITION BY person_id ORDER BY us, seq)"
            rank = rank if self.allow_equal else "dense_rank() OVER (PARTITION BY person_id ORDER BY us)"
            source = f"SELECT *, {rank} AS place FROM ({source}) WHERE {matter}"
            columns, key = [f"list_sort(list({'' if self.allow_equal else 'DISTINCT '}us)) AS times"], "place"
        for at in self._numbers:
            begins = f"is_{at} AND us < {bind(scope.end_us)}" if at == 1 and scope.end_us is not None else f"is_{at}"
            columns.append(f"list({key} * {_CODES} + {self._step(at)}) FILTER ({begins}) AS s{at}")
        for at in self._numbers[:-1]:
            if out := [name for name, one in zip(outs, self.exclusions, strict=True) if one.first <= at < one.last]:
                columns.append(f"list({key} * {_CODES} + {self._excluded(at)}) FILTER ({' OR '.join(out)}) AS x{at}")
            else:
                columns.append(f"NULL::BIGINT[] AS x{at}")
        lists = f"SELECT person_id, {', '.join(columns)} FROM ({source}) GROUP BY person_id"
        return f"SELECT *, s1 AS v1 FROM ({lists}) WHERE s1 IS NOT NULL"

    def _time(self, element: str) -> str:
        """SQL for the microseconds of an element."""
        return f"list_extract(times, {element} >> 6)" if self._ranked else f"({element} >> 6)"

    def _in_order(self, scope: Scope, bind: Binder) -> str:
        found = self._lists(scope, bind)
        for at in self._numbers[1:]:
            found = self._reaching(at, found, bind)
        last = len(self.steps)
        depth = " ".join(f"WHEN len(v{at}) > 0 THEN {at}" for at in range(last, 0, -1))
        times = []
        for at in self._numbers:
            further = " ".join(f"WHEN len(v{m}) > 0 THEN list_extract(v{m}, 1).t{at}" for m in range(last, at, -1))
            own = self._time("list_min(s1)" if at == 1 else f"list_extract(v{at}, 1).c")
            times.append(f"CASE {further} WHEN len(v{at}) > 0 THEN {own} END AS t{at}")
        return f"SELECT person_id, CASE {depth} END AS depth, {', '.join(times)} FROM ({found})"

    def _reaching(self, at: int, before: str, bind: Binder) -> str:
        """Adds `v{at}`: each event with which somebody who waited reached the step, first to last.

        An element of it has the code `c` of that event, and the times `t1 …` of the steps before. `v1` has codes alone.
        """
        others = f"list_concat(s{at}, x{at - 1})"
        x, p = "x", f"list_extract(m{at}, i - 1)"
        times, t1 = [f"'t{at - 1}': {self._time(p)}"], self._time(p)
        if at > _FIRST + 1:
            empty = "".join(f", 't{m}': NULL::BIGINT" for m in range(1, at - 1))
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

    def _any_order(self, scope: Scope, bind: Binder) -> str:
        """One pass over a person's events: which steps have one in the window that ends here, and since when."""
        groups: dict[Selection, list[int]] = {}
        for at, step in enumerate(self.steps, 1):
            groups.setdefault(step, []).append(at)
        lists = [
            f"list(us * {_CODES} + {code}) FILTER (is_{slots[0]}) AS s{slots[0]}"
            for code, slots in enumerate(groups.values())
        ]
        names = [f"s{slots[0]}" for slots in groups.values()]
        merged = names[0]
        for name in names[1:]:
            merged = f"list_concat({merged}, {name})"
        last = {}  # by step, the time of its event: of equal steps the newest, the one before that, and so on
        for code, slots in enumerate(groups.values()):
            for at, older in zip(slots, ["x >> 6", *(f"s.r{slot}" for slot in slots)], strict=False):
                last[at] = f"CASE WHEN x & 63 = {code} THEN {older} ELSE s.r{at} END"
        since, entry = f"(x >> 6) - {bind(self.within_us)}", "x >> 6"
        if scope.end_us is not None:
            entry = f"CASE WHEN x >> 6 < {bind(scope.end_us)} THEN x >> 6 ELSE s.entry END"
        depth = " + ".join(f"CASE WHEN {one} >= {since} THEN 1 ELSE 0 END" for one in last.values())
        depth = f"CASE WHEN {entry} >= {since} THEN {depth} ELSE 0 END"
        begun = ", ".join(f"CASE WHEN {one} >= {since} THEN {one} END" for one in last.values())
        state = {f"r{at}": one for at, one in last.items()} | {
            "entry": entry,
            "depth": f"greatest(s.depth, {depth})",
            "done": f"CASE WHEN {depth} > s.depth THEN x >> 6 ELSE s.done END",
            "begun": f"CASE WHEN {depth} > s.depth OR ({depth} = s.depth AND x >> 6 = s.done) "
            f"THEN least({entry}, {begun}) ELSE s.begun END",
        }
        empty = ", ".join(f"'{name}': {'0' if name == 'depth' else 'NULL'}::BIGINT" for name in state)
        body = ", ".join(f"'{name}': {value}" for name, value in state.items())
        within = "lambda x: x >> 6 BETWEEN best.begun AND best.done"
        times = ", ".join(
            f"list_slice(list_sort(list_filter({name}, {within})), 1, {len(slots)})"
            for name, slots in zip(names, groups.values(), strict=True)
        )
        columns = ", ".join(f"list_extract(times, {at}) >> 6 AS t{at}" for at in self._numbers)
        return (
            f"SELECT person_id, best.depth AS depth, {columns} FROM ("
            f"SELECT *, list_sort(flatten([{times}])) AS times FROM ("
            f"SELECT *, list_reduce(list_sort({merged}), lambda s, x: {{{body}}}, {{{empty}}}) AS best FROM ("
            f"SELECT person_id, {', '.join(lists)} FROM ({self.marked(scope, bind)}) GROUP BY person_id"
            f") WHERE {merged} IS NOT NULL) WHERE best.depth > 0)"
        )
