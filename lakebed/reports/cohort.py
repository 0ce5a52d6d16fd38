"""Cohort: a set of people, defined by what they did and who they are, as SQL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from lakebed.clock import from_us
from lakebed.errors import QueryRefused
from lakebed.events.promotions import Promotion
from lakebed.reports.arguments import duration_us
from lakebed.reports.measure import Measure
from lakebed.reports.scope import EventFilter, Parameters, instant

__all__ = ["COHORT", "Cohort", "CohortReader", "Lookup", "conditions_of", "names_of"]

COHORT = "cohort"
"""The kind of the definitions of saved cohorts."""
_MAX_LEVELS = 20
_MAX_PARTS = 200
_MAX_STEPS = 10
_LARGEST = 1e300  # Python writes larger numbers as inf, which is not SQL
_DID = {"did", "at_least", "at_most", "within", "start", "end", "measure", "above", "below"}
_TRAIT = {"trait", "is", "in", "above", "below", "contains", "exists"}
_KINDS = "did, first, sequence, trait, people, cohort, all, any, not"
_EVERYBODY = "SELECT person_id FROM events WHERE person_id IS NOT NULL"


class Cohort(msgspec.Struct, frozen=True):
    """A set of people.

    Attributes:
        sql: function that returns a SELECT of the person_ids of these people, in one column.
        untrusted: whether `sql` contains SQL that came over the network.
    """

    sql: Callable[[Parameters], str]
    untrusted: bool = False


Sql = Callable[[Parameters], str]
Lookup = Callable[[str], Awaitable[tuple[Any, bool] | None]]


class CohortReader:
    """Reads the definitions of cohorts. docs/reports/cohorts.md explains them.

    A definition is a mapping with one of:

    - `did`: an event, `"A"` or `{"event": "A", "where": "…"}`, done `at_least` (1) and `at_most` so many times,
      `within` ("30d" up to now or `as_of`) or from `start` to `end`; or with a `measure` of these events, such as
      `"sum(revenue)"`, that is `above` or `below` a number.
    - `first`: an event whose first time ever lies in `within`, or from `start` to `end`.
    - `sequence`: a list of events, each at a later time than the one before; all `within`, or from `start` to `end`.
    - `trait`: a trait's name, which `is` a value, is `in` a list, `contains` a text, is `above` or `below` a number, or
      `exists` (true or false).
    - `people`: a list of ids; the people who have one of them now.
    - `cohort`: the name of another saved cohort.
    - `all`, `any`: a list of definitions; `not`: one definition.

    Args:
        lookup: function that returns the definition of a saved cohort and whether it is untrusted; None if there is
            none of that name.
        promotions: the promoted columns.
        now_us: moment from which `within` counts back, microseconds since 1970.
    """

    def __init__(self, lookup: Lookup, promotions: Sequence[Promotion], now_us: int) -> None:
        self._lookup = lookup
        self._promotions = promotions
        self._now_us = now_us
        self._parts = 0
        self._untrusted = False

    async def named(self, name: str) -> Cohort:
        """The saved cohort `name`. Raises QueryRefused if it does not exist, or is a part of itself."""
        return Cohort(await self._named(name, (), "cohort"), self._untrusted)

    async def read(self, definition: Any) -> Cohort:
        """The cohort of a definition. Raises QueryRefused if the definition is not valid; the message says where."""
        return Cohort(await self._read(definition, (), "cohort"), self._untrusted)

    async def _named(self, name: Any, above: tuple[str, ...], path: str) -> Sql:
        if not isinstance(name, str):
            raise _refused(path, name, "a name")
        if name in above:
            raise QueryRefused(f"{path}: {name} is a part of itself", hint=f"Remove a reference of {' → '.join(above)}")
        saved = await self._lookup(name)
        if saved is None:
            raise QueryRefused(f"{path}: there is no cohort {name[:80]!r}", hint="cohorts() lists them")
        definition, untrusted = saved
        self._untrusted |= untrusted and bool(conditions_of(definition))
        return await self._read(definition, (*above, name), f"cohort {name}")

    async def _read(self, part: Any, above: tuple[str, ...], path: str) -> Sql:
        self._parts += 1
        if self._parts > _MAX_PARTS or path.count(".") > _MAX_LEVELS:
            raise QueryRefused(f"{path[:80]}: more than {_MAX_PARTS} parts or {_MAX_LEVELS} levels", hint="Simplify it")
        if not isinstance(part, Mapping):
            raise _refused(path, part, f"an object with one of {_KINDS}")
        for kind in ("all", "any"):
            if kind in part:
                return await self._several(part, kind, above, path)
        if "not" in part:
            _only(part, {"not"}, path)
            other = await self._read(part["not"], above, f"{path}.not")
            return lambda bind: f"({_EVERYBODY} EXCEPT {other(bind)})"
        if "cohort" in part:
            _only(part, {"cohort"}, path)
            return await self._named(part["cohort"], above, f"{path}.cohort")
        forms = {"people": _people, "trait": _trait, "first": self._first, "did": self._did}
        forms["sequence"] = self._sequence
        for kind, form in forms.items():
            if kind in part:
                return form(part, path)
        raise _refused(path, part, f"an object with one of {_KINDS}")

    async def _several(self, part: Mapping[str, Any], kind: str, above: tuple[str, ...], path: str) -> Sql:
        _only(part, {kind}, path)
        parts = part[kind]
        if not isinstance(parts, Sequence) or isinstance(parts, str) or not parts:
            raise _refused(f"{path}.{kind}", parts, "a list that is not empty")
        read = [await self._read(child, above, f"{path}.{kind}[{n}]") for n, child in enumerate(parts)]
        return _joined(" INTERSECT " if kind == "all" else " UNION ", read)

    def _range(self, part: Mapping[str, Any], path: str) -> tuple[int | None, int | None]:
        if "within" in part and ("start" in part or "end" in part):
            raise QueryRefused(f"{path}: `within` cannot be combined with `start` or `end`", hint="Leave `within` out")
        if "within" in part:
            return self._now_us - duration_us(f"{path}.within", part["within"]), None
        return instant(f"{path}.start", part.get("start")), instant(f"{path}.end", part.get("end"))

    def _did(self, part: Mapping[str, Any], path: str) -> Sql:
        _only(part, _DID, path)
        selection = EventFilter.of(part["did"], f"{path}.did")
        low, high = self._range(part, path)
        minimum, maximum = _count(part, "at_least", path), _count(part, "at_most", path)
        tests = [f"count(*) >= {max(1, minimum or 1)}"] + ([] if maximum is None else [f"count(*) <= {maximum}"])
        measure = part.get("measure")
        bounds = _bounds(part, path)
        if (measure is None) != (not bounds):
            missing = "`measure`" if measure is None else "`above` or `below`"
            raise QueryRefused(f"{path}: {missing} is missing", hint="Give `measure` with `above` or `below`")
        if measure is not None:
            sql = Measure.parse(measure, self._promotions).sql
            tests += [f"{sql} {sign} {number!r}" for sign, number in bounds]
        having = " AND ".join(tests)

        def sql_of(bind: Parameters) -> str:
            where = f"person_id IS NOT NULL AND {selection.condition(bind)}{_within(low, high, bind)}"
            return f"(SELECT person_id FROM events WHERE {where} GROUP BY person_id HAVING {having})"

        return sql_of

    def _first(self, part: Mapping[str, Any], path: str) -> Sql:
        _only(part, {"first", "within", "start", "end"}, path)
        selection = EventFilter.of(part["first"], f"{path}.first")
        low, high = self._range(part, path)

        def sql_of(bind: Parameters) -> str:
            where = f"person_id IS NOT NULL AND {selection.condition(bind)}"
            firsts = f"SELECT person_id, min(timestamp) AS first FROM events WHERE {where} GROUP BY person_id"
            return f"(SELECT person_id FROM ({firsts}) WHERE true{_within(low, high, bind, 'first')})"

        return sql_of

    def _sequence(self, part: Mapping[str, Any], path: str) -> Sql:
        _only(part, {"sequence", "within", "start", "end"}, path)
        steps = part["sequence"]
        if not isinstance(steps, Sequence) or isinstance(steps, str) or not 1 < len(steps) <= _MAX_STEPS:
            raise _refused(f"{path}.sequence", steps, f"a list of 2 to {_MAX_STEPS} events")
        selections = [EventFilter.of(step, f"{path}.sequence[{n}]") for n, step in enumerate(steps)]
        low, high = self._range(part, path)

        def sql_of(bind: Parameters) -> str:
            reached = ""
            for step in selections:
                where = f"person_id IS NOT NULL AND {step.condition(bind)}{_within(low, high, bind)}"
                done = f"SELECT person_id, timestamp FROM events WHERE {where}"
                # A person who can reach the next step from any event of this one can reach it from the earliest.
                later = f" JOIN ({reached}) USING (person_id) WHERE timestamp > since" if reached else ""
                reached = f"SELECT person_id, min(timestamp) AS since FROM ({done}){later} GROUP BY person_id"
            return f"(SELECT person_id FROM ({reached}))"

        return sql_of


def conditions_of(definition: Any) -> list[str]:
    """Every SQL condition in a definition, without those of the cohorts that it names."""
    return [part["where"] for part in _objects(definition) if isinstance(part.get("where"), str)]


def names_of(definition: Any) -> set[str]:
    """The other cohorts that a definition names."""
    return {part["cohort"] for part in _objects(definition) if isinstance(part.get("cohort"), str)}


def _objects(definition: Any) -> Iterator[Mapping[str, Any]]:
    """Every object in a definition, the definition included. Without recursion, because it may be deeply nested."""
    waiting = [definition]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            yield part
            waiting.extend(part.values())
        elif isinstance(part, list | tuple):
            waiting.extend(part)


def _joined(sign: str, parts: Sequence[Sql]) -> Sql:
    return lambda bind: f"({sign.join(part(bind) for part in parts)})"


def _people(part: Mapping[str, Any], path: str) -> Sql:
    _only(part, {"people"}, path)
    ids = part["people"]
    if (
        not isinstance(ids, Sequence)
        or isinstance(ids, str)
        or not all(isinstance(identifier, str) for identifier in ids)
    ):
        raise _refused(f"{path}.people", ids, "a list of ids")

    def sql_of(bind: Parameters) -> str:
        # Ids of events would be wrong: the anonymous id of a person's event may be another person's, or have no event.
        return f"(SELECT person_id FROM people WHERE list_has_any(ids, CAST({bind(list(ids))} AS VARCHAR[])))"

    return sql_of


def _trait(part: Mapping[str, Any], path: str) -> Sql:
    _only(part, _TRAIT, path)
    name = part["trait"]
    if not isinstance(name, str) or not name:
        raise _refused(f"{path}.trait", name, "the name of a trait")
    tests = [key for key in ("is", "in", "contains", "exists") if key in part]
    numbers = _bounds(part, path)
    if len(tests) + bool(numbers) != 1:
        choices = ", ".join(sorted(_TRAIT - {"trait"}))
        raise QueryRefused(f"{path}: a trait must have exactly one test", hint=f"Give one of {choices}")
    pointer = "/" + name.replace("~", "~0").replace("/", "~1")

    def sql_of(bind: Parameters) -> str:
        value = f"json_extract_string(traits, {bind(pointer)})"
        if numbers:
            test = " AND ".join(f"try_cast({value} AS DOUBLE) {sign} {number!r}" for sign, number in numbers)
        elif "exists" in part:
            test = f"{value} IS {'NOT NULL' if part['exists'] else 'NULL'}"
        elif "contains" in part:
            test = f"contains(lower({value}), lower({bind(_text(part['contains']))}))"
        else:
            allowed = part["in"] if "in" in part else [part["is"]]
            test = f"{value} IN (SELECT unnest(CAST({bind([_text(value) for value in allowed])} AS VARCHAR[])))"
        return f"(SELECT person_id FROM people WHERE {test})"

    if "in" in part and (not isinstance(part["in"], Sequence) or isinstance(part["in"], str)):
        raise _refused(f"{path}.in", part["in"], "a list")
    return sql_of


def _text(value: Any) -> str:
    """The text that DuckDB's json_extract_string returns for `value`."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _bounds(part: Mapping[str, Any], path: str) -> list[tuple[str, float]]:
    bounds = []
    for key, sign in (("above", ">"), ("below", "<")):
        if key in part:
            value = part[key]
            if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _LARGEST:
                raise _refused(f"{path}.{key}", value, "a number")
            bounds.append((sign, float(value)))
    return bounds


def _count(part: Mapping[str, Any], key: str, path: str) -> int | None:
    value = part.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise _refused(f"{path}.{key}", value, "a whole number from 1 on (`not` selects those who never did)")
    return value


def _within(low: int | None, high: int | None, bind: Parameters, column: str = "timestamp") -> str:
    after = "" if low is None else f" AND {column} >= {bind(from_us(low))}"
    return after + ("" if high is None else f" AND {column} < {bind(from_us(high))}")


def _only(part: Mapping[str, Any], known: set[str], path: str) -> None:
    unknown = sorted(set(part) - known)
    if unknown:
        raise QueryRefused(f"{path}: {unknown[0][:40]!r} is not known here", hint=f"Use {', '.join(sorted(known))}")


def _refused(path: str, value: object, wanted: str) -> QueryRefused:
    return QueryRefused(f"{path} is {str(value)[:60]!r}", hint=f"Give {wanted}")
