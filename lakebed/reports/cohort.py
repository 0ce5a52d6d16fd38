"""Cohort: people by what they did and who they are, as SQL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from lakebed.clock import from_us
from lakebed.errors import QueryRefused
from lakebed.events.promotions import Promotion
from lakebed.reports.duration import duration_us
from lakebed.reports.event_filter import EventFilter
from lakebed.reports.measure import Measure
from lakebed.reports.parameters import Parameters
from lakebed.reports.scope import instant

__all__ = ["COHORT", "Cohort", "CohortReader", "Lookup", "conditions_of", "names_of"]

COHORT = "cohort"  # the kind of its definitions
_MOST_DEEP = 20
_MOST_PARTS = 200
_MOST_STEPS = 10
_DID = {"did", "at_least", "at_most", "within", "start", "end", "measure", "above", "below"}
_TRAIT = {"trait", "is", "in", "above", "below", "contains", "exists"}
_KINDS = "did, first, sequence, trait, people, cohort, all, any, not"
_EVERYBODY = "SELECT person_id FROM events WHERE person_id IS NOT NULL"


class Cohort(msgspec.Struct, frozen=True):
    """Who is in it.

    Attributes:
        sql: gives the SELECT of their person_ids, one column.
        strange: whether it has SQL of a stranger in it.
    """

    sql: Callable[[Parameters], str]
    strange: bool = False


Sql = Callable[[Parameters], str]
Lookup = Callable[[str], Awaitable[tuple[Any, bool] | None]]


class CohortReader:
    """Reads definitions.

    A definition is a mapping with one of:

    - `did`: an event, `"A"` or `{"event": "A", "where": "…"}`, with `at_least` (1) and `at_most` times, `within` ("30d"
      up to now or `as_of`) or from `start` to `end`; or with a `measure` of them, such as `"sum(revenue)"`, that is
      `above` or `below` a number.
    - `first`: an event whose first time ever lies in `within`, or from `start` to `end`.
    - `sequence`: a list of events, each at a later time than the one before; all within such a range.
    - `trait`: a trait's name, which `is` a value, is `in` a list, `contains` a text, is `above` or `below` a number, or
      `exists` (true or false).
    - `people`: a list of ids; whoever has one of them now.
    - `cohort`: the name of another one.
    - `all`, `any`: lists of such mappings; `not`: one of them.

    Args:
        lookup: the definition of a saved cohort, and whether a stranger saved it.
        promotions: the promoted columns.
        now_us: what `within` counts back from.
    """

    def __init__(self, lookup: Lookup, promotions: Sequence[Promotion], now_us: int) -> None:
        self._lookup = lookup
        self._promotions = promotions
        self._now_us = now_us
        self._parts = 0
        self._strange = False

    async def named(self, name: str) -> Cohort:
        """A saved cohort. Raises QueryRefused where there is none, or its definition leads to itself."""
        return Cohort(await self._named(name, (), "cohort"), self._strange)

    async def read(self, definition: Any) -> Cohort:
        """The cohort of a definition. Raises QueryRefused, which says where in it something is wrong."""
        return Cohort(await self._read(definition, (), "cohort"), self._strange)

    async def _named(self, name: Any, above: tuple[str, ...], at: str) -> Sql:
        if not isinstance(name, str):
            raise _refused(at, name, "a name")
        if name in above:
            raise QueryRefused(f"{at}: {name} is a part of itself", hint=f"It leads there by {' → '.join(above)}")
        found = await self._lookup(name)
        if found is None:
            raise QueryRefused(f"{at}: there is no cohort {name[:80]!r}", hint="cohorts() lists them")
        definition, strange = found
        self._strange |= strange and bool(conditions_of(definition))
        return await self._read(definition, (*above, name), f"cohort {name}")

    async def _read(self, given: Any, above: tuple[str, ...], at: str) -> Sql:
        self._parts += 1
        if self._parts > _MOST_PARTS or at.count(".") > _MOST_DEEP:
            raise QueryRefused(f"{at[:80]}: more than {_MOST_PARTS} parts or {_MOST_DEEP} levels", hint="Simplify it")
        if not isinstance(given, Mapping):
            raise _refused(at, given, f"an object with one of {_KINDS}")
        for kind in ("all", "any"):
            if kind in given:
                return await self._several(given, kind, above, at)
        if "not" in given:
            _only(given, {"not"}, at)
            other = await self._read(given["not"], above, f"{at}.not")
            return lambda bind: f"({_EVERYBODY} EXCEPT {other(bind)})"
        if "cohort" in given:
            _only(given, {"cohort"}, at)
            return await self._named(given["cohort"], above, f"{at}.cohort")
        forms = {"people": _people, "trait": _trait, "first": self._first, "did": self._did}
        forms["sequence"] = self._sequence
        for kind, form in forms.items():
            if kind in given:
                return form(given, at)
        raise _refused(at, given, f"an object with one of {_KINDS}")

    async def _several(self, given: Mapping[str, Any], kind: str, above: tuple[str, ...], at: str) -> Sql:
        _only(given, {kind}, at)
        parts = given[kind]
        if not isinstance(parts, Sequence) or isinstance(parts, str) or not parts:
            raise _refused(f"{at}.{kind}", parts, "a list that is not empty")
        read = [await self._read(one, above, f"{at}.{kind}[{n}]") for n, one in enumerate(parts)]
        return _joined(" INTERSECT " if kind == "all" else " UNION ", read)

    def _range(self, given: Mapping[str, Any], at: str) -> tuple[int | None, int | None]:
        if "within" in given and ("start" in given or "end" in given):
            raise QueryRefused(f"{at}: within is beside start or end", hint="Give the one or the others")
        if "within" in given:
            return self._now_us - duration_us(f"{at}.within", given["within"]), None
        return instant(f"{at}.start", given.get("start")), instant(f"{at}.end", given.get("end"))

    def _did(self, given: Mapping[str, Any], at: str) -> Sql:
        _only(given, _DID, at)
        chosen = EventFilter.of(given["did"], f"{at}.did")
        low, high = self._range(given, at)
        least, most = _count(given, "at_least", at), _count(given, "at_most", at)
        tests = [f"count(*) >= {max(1, least or 1)}"] + ([] if most is None else [f"count(*) <= {most}"])
        measure = given.get("measure")
        bounds = _bounds(given, at)
        if (measure is None) != (not bounds):
            raise QueryRefused(f"{at}: measure and above or below belong together", hint="Give both or none")
        if measure is not None:
            sql = Measure.parse(measure, self._promotions).sql
            tests += [f"{sql} {sign} {number!r}" for sign, number in bounds]
        having = " AND ".join(tests)

        def sql_of(bind: Parameters) -> str:
            where = f"person_id IS NOT NULL AND {chosen.condition(bind)}{_within(low, high, bind)}"
            return f"(SELECT person_id FROM events WHERE {where} GROUP BY person_id HAVING {having})"

        return sql_of

    def _first(self, given: Mapping[str, Any], at: str) -> Sql:
        _only(given, {"first", "within", "start", "end"}, at)
        chosen = EventFilter.of(given["first"], f"{at}.first")
        low, high = self._range(given, at)

        def sql_of(bind: Parameters) -> str:
            where = f"person_id IS NOT NULL AND {chosen.condition(bind)}"
            firsts = f"SELECT person_id, min(timestamp) AS first FROM events WHERE {where} GROUP BY person_id"
            return f"(SELECT person_id FROM ({firsts}) WHERE true{_within(low, high, bind, 'first')})"

        return sql_of

    def _sequence(self, given: Mapping[str, Any], at: str) -> Sql:
        _only(given, {"sequence", "within", "start", "end"}, at)
        steps = given["sequence"]
        if not isinstance(steps, Sequence) or isinstance(steps, str) or not 1 < len(steps) <= _MOST_STEPS:
            raise _refused(f"{at}.sequence", steps, f"a list of 2 to {_MOST_STEPS} events")
        chosen = [EventFilter.of(step, f"{at}.sequence[{n}]") for n, step in enumerate(steps)]
        low, high = self._range(given, at)

        def sql_of(bind: Parameters) -> str:
            found = ""
            for step in chosen:
                where = f"person_id IS NOT NULL AND {step.condition(bind)}{_within(low, high, bind)}"
                done = f"SELECT person_id, timestamp FROM events WHERE {where}"
                # Whoever can go on at all can go on from the earliest.
                later = f" JOIN ({found}) USING (person_id) WHERE timestamp > since" if found else ""
                found = f"SELECT person_id, min(timestamp) AS since FROM ({done}){later} GROUP BY person_id"
            return f"(SELECT person_id FROM ({found}))"

        return sql_of


def conditions_of(definition: Any) -> list[str]:
    """Every condition in SQL that a definition has, itself and not by other cohorts."""
    return [one["where"] for one in _objects(definition) if isinstance(one.get("where"), str)]


def names_of(definition: Any) -> set[str]:
    """The other cohorts that a definition names."""
    return {one["cohort"] for one in _objects(definition) if isinstance(one.get("cohort"), str)}


def _objects(definition: Any) -> Iterator[Mapping[str, Any]]:
    """Every object in a definition, itself included. Without recursion: it may be deep."""
    waiting = [definition]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            yield one
            waiting.extend(one.values())
        elif isinstance(one, list | tuple):
            waiting.extend(one)


def _joined(sign: str, parts: Sequence[Sql]) -> Sql:
    return lambda bind: f"({sign.join(part(bind) for part in parts)})"


def _people(given: Mapping[str, Any], at: str) -> Sql:
    _only(given, {"people"}, at)
    ids = given["people"]
    if not isinstance(ids, Sequence) or isinstance(ids, str) or not all(isinstance(one, str) for one in ids):
        raise _refused(f"{at}.people", ids, "a list of ids")

    def sql_of(bind: Parameters) -> str:
        # Not by the ids of events: an anonymous id on somebody's event may be another's, and one may be on none.
        return f"(SELECT person_id FROM people WHERE list_has_any(ids, CAST({bind(list(ids))} AS VARCHAR[])))"

    return sql_of


def _trait(given: Mapping[str, Any], at: str) -> Sql:
    _only(given, _TRAIT, at)
    name = given["trait"]
    if not isinstance(name, str) or not name:
        raise _refused(f"{at}.trait", name, "the name of a trait")
    tests = [key for key in ("is", "in", "contains", "exists") if key in given]
    numbers = _bounds(given, at)
    if len(tests) + bool(numbers) != 1:
        raise QueryRefused(f"{at}: a trait has one test", hint=f"Give one of {', '.join(sorted(_TRAIT - {'trait'}))}")
    path = "/" + name.replace("~", "~0").replace("/", "~1")

    def sql_of(bind: Parameters) -> str:
        value = f"json_extract_string(traits, {bind(path)})"
        if numbers:
            test = " AND ".join(f"try_cast({value} AS DOUBLE) {sign} {number!r}" for sign, number in numbers)
        elif "exists" in given:
            test = f"{value} IS {'NOT NULL' if given['exists'] else 'NULL'}"
        elif "contains" in given:
            test = f"contains(lower({value}), lower({bind(_text(given['contains']))}))"
        else:
            allowed = given["in"] if "in" in given else [given["is"]]
            test = f"{value} IN (SELECT unnest(CAST({bind([_text(one) for one in allowed])} AS VARCHAR[])))"
        return f"(SELECT person_id FROM people WHERE {test})"

    if "in" in given and (not isinstance(given["in"], Sequence) or isinstance(given["in"], str)):
        raise _refused(f"{at}.in", given["in"], "a list")
    return sql_of


def _text(value: Any) -> str:
    """A value as DuckDB gives a member of JSON as text."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _bounds(given: Mapping[str, Any], at: str) -> list[tuple[str, float]]:
    found = []
    for key, sign in (("above", ">"), ("below", "<")):
        if key in given:
            value = given[key]
            if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) > 1e300:  # noqa: PLR0124, PLR2004 - NaN, and what prints as inf
                raise _refused(f"{at}.{key}", value, "a number")
            found.append((sign, float(value)))
    return found


def _count(given: Mapping[str, Any], key: str, at: str) -> int | None:
    value = given.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise _refused(f"{at}.{key}", value, "a whole number from 1 on (`not` says that somebody never did)")
    return value


def _within(low: int | None, high: int | None, bind: Parameters, column: str = "timestamp") -> str:
    after = "" if low is None else f" AND {column} >= {bind(from_us(low))}"
    return after + ("" if high is None else f" AND {column} < {bind(from_us(high))}")


def _only(given: Mapping[str, Any], known: set[str], at: str) -> None:
    unknown = sorted(set(given) - known)
    if unknown:
        raise QueryRefused(f"{at}: {unknown[0][:40]!r} is not known here", hint=f"There are {', '.join(sorted(known))}")


def _refused(at: str, value: object, wanted: str) -> QueryRefused:
    return QueryRefused(f"{at} is {str(value)[:60]!r}", hint=f"Give {wanted}")
