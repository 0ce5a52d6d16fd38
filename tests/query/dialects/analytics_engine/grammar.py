"""Statements of the dialect that hypothesis makes, each with the same computation in plain Python over the rows.

Numbers are multiples of 1/8 and stay small, so that sums are exact in whatever order they are added.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple

from hypothesis import strategies as st

Row = Mapping[str, Any]
Columns = tuple[tuple[str, tuple[str, ...]], ...]  # the names of each kind
COLUMNS: Columns = (
    ("S", ("index1", "blob1", "blob2")),
    ("N", ("double1", "double2")),
    ("T", ("timestamp",)),
    ("D", ()),
)
UNIQUE = "double3"  # no two rows have the same: argMax has one answer
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the dialect's times have no zone: UTC
_TEXTS = ("", "a", "GET", "get", "it's", "Über", "a_b%", "back\\slash")
_NUMBERS = ("0", "1", "2", "3", "0.5", "2.25", "40")
_SPANS = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86400}


class Made(NamedTuple):
    """An expression: its SQL, its kind (S text, N number, T time, D date, B truth, A array), its value.

    The argument of `of` is a row; for an aggregate it is the rows of its group.
    """

    sql: str
    kind: str
    of: Callable[[Any], Any]


class Statement(NamedTuple):
    """A SELECT over `t`, and the rows that answer it; their order counts if the statement orders them."""

    sql: str
    answer: Callable[[Sequence[Row]], list[list[Any]]]
    is_ordered: bool
    names: tuple[str, ...]
    kinds: tuple[str, ...]


def literal(text: str) -> str:
    """A text as a literal of SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def same(actual: list[list[Any]], expected: list[list[Any]], *, is_ordered: bool) -> bool:
    """Whether two lists of rows are equal: floats to nine digits, in any order unless `is_ordered`."""
    expected = [[_plain(value) for value in row] for row in expected]
    if not is_ordered:
        actual, expected = sorted(actual, key=_near), sorted(expected, key=_near)
    return [_near(row) for row in actual] == [_near(row) for row in expected]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return value.isoformat() if isinstance(value, date) else value


def _near(row: list[Any]) -> list[str]:
    return [f"{round(value, 9) + 0:.9g}" if isinstance(value, (int, float)) else repr(value) for value in row]


def _leaf(kind: str, columns: Columns) -> st.SearchStrategy[Made]:
    named = [Made(name, kind, lambda row, name=name: row[name]) for name in dict(columns)[kind]]
    if kind == "S":
        written = [Made(literal(text), kind, lambda _, text=text: text) for text in _TEXTS]
    elif kind == "N":
        written = [Made(text, kind, lambda _, text=text: float(text)) for text in _NUMBERS]
    elif kind == "T":
        moments = [datetime(2026, 1, 5, 6), datetime(2026, 1, 6, 23, 59, 59)]  # noqa: DTZ001 - the same
        written = [Made(f"toDateTime('{at}')", kind, lambda _, at=at: at) for at in moments]
    else:
        written = [Made("toDate('2026-01-06')", kind, lambda _: date(2026, 1, 6))]
    return st.sampled_from([*named, *named, *written])


def _call(form: str, kind: str, value: Callable[..., Any], *parts: st.SearchStrategy[Made]) -> st.SearchStrategy[Made]:
    """`form` with the parts in its places; its value is `value` of the values of the parts."""
    return st.tuples(*parts).map(
        lambda made: Made(
            form.format(*(part.sql for part in made)), kind, lambda row: value(*(part.of(row) for part in made))
        )
    )


@functools.cache
def expressions(kind: str, columns: Columns, depth: int = 2) -> st.SearchStrategy[Made]:
    """Expressions of a kind over the columns of each kind."""
    if not depth:
        return _leaf("N" if kind == "B" else kind, columns) if kind != "B" else conditions(columns, 0)
    s, n, t, d, b = (
        st.deferred(lambda letter=letter: expressions(letter, columns, depth - 1))
        for letter in ("S", "N", "T", "D", "B")
    )
    if kind == "B":
        return conditions(columns, depth)
    either = _call(
        "if({}, {}, {})", kind, lambda c, x, y: x if c else y, b, *(2 * [{"S": s, "N": n, "T": t, "D": d}[kind]])
    )
    few = st.integers(1, 4).map(lambda k: Made(str(k), "N", lambda _: k))
    made = {
        "S": lambda: [
            _call("lower({})", "S", lambda x: re.sub("[A-Z]", lambda m: m[0].lower(), x), s),
            _call("upperUTF8({})", "S", str.upper, s),
            _call("concat({}, '-', {})", "S", lambda x, y: f"{x}-{y}", s, s),
            _call("substring({}, {}, {})", "S", lambda x, k, m: x[k - 1 : k - 1 + m], s, few, few),
            _call("replaceAll({}, 'a', 'bb')", "S", lambda x: x.replace("a", "bb"), s),
            _call("toString({})", "S", str, t),
            _call("formatDateTime({}, '%d.%m. %H:%i')", "S", lambda x: f"{x:%d.%m. %H:%M}", t),
            either,
        ],
        "N": lambda: [
            _call("({} + {})", "N", lambda x, y: x + y, n, n),
            _call("({} - {})", "N", lambda x, y: x - y, n, n),
            _call("({} * {})", "N", lambda x, y: x * y, n, few),
            _call("({} / 2)", "N", lambda x: x / 2, n),
            _call("abs({})", "N", abs, n),
            _call("floor({})", "N", math.floor, n),
            _call("ceil({})", "N", math.ceil, n),
            _call("round({})", "N", round, n),
            _call("length({})", "N", len, s),
            _call("position({}, 'a')", "N", lambda x: x.find("a") + 1, s),
            _call("(length({}) - {})", "N", lambda x, k: len(x) - k, s, few),
            _call("(length({}) % {})", "N", lambda x, k: len(x) % k, s, few),
            _call("intDiv(length({}), {})", "N", lambda x, k: len(x) // k, s, few),
            _call("toUInt32(abs({}))", "N", lambda x: int(abs(x)), n),
            _call("toHour({})", "N", lambda x: x.hour, t),
            _call("toDayOfWeek({})", "N", lambda x: x.isoweekday(), t),
            _call("(toUnixTimestamp({}) - 1767500000)", "N", lambda x: _seconds(x) - 1767500000, t),
            either,
        ],
        "T": lambda: [
            *(
                _call(
                    f"toStartOfInterval({{}}, INTERVAL '{{}}' {unit})",
                    "T",
                    lambda x, k, w=width: _bucket(x, k * w),
                    t,
                    few,
                )
                for unit, width in _SPANS.items()
            ),
            _call("toStartOfHour({})", "T", lambda x: x.replace(minute=0, second=0), t),
            _call("toStartOfFiveMinutes({})", "T", lambda x: _bucket(x, 300), t),
            _call("({} + INTERVAL '{}' HOUR)", "T", lambda x, k: x + timedelta(hours=k), t, few),
            _call("({} - INTERVAL '{}' DAY)", "T", lambda x, k: x - timedelta(days=k), t, few),
            either,
        ],
        "D": lambda: [
            _call("toDate({})", "D", datetime.date, t),
            _call("toMonday({})", "D", lambda x: x.date() - timedelta(days=x.weekday()), t),
            _call("toStartOfMonth({})", "D", lambda x: x.date().replace(day=1), t),
            _call("({} + INTERVAL '{}' DAY)", "D", lambda x, k: x + timedelta(days=k), d, few),
        ],
    }[kind]()
    return st.one_of(_leaf(kind, columns), *made)


@functools.cache
def conditions(columns: Columns, depth: int = 2) -> st.SearchStrategy[Made]:
    """Expressions that are true or false."""
    s, n, t = (expressions(kind, columns, max(depth - 1, 0)) for kind in ("S", "N", "T"))
    compared = [
        _call(f"({{}} {sign} {{}})", "B", does, operand, operand)
        for operand in (s, n, t)
        for sign, does in (
            ("=", lambda x, y: x == y),
            ("!=", lambda x, y: x != y),
            ("<", lambda x, y: x < y),
            (">=", lambda x, y: x >= y),
        )
    ]
    many = [
        _call("({} BETWEEN {} AND {})", "B", lambda x, y, z: y <= x <= z, n, n, n),
        _call("({} NOT IN ({}, 'GET'))", "B", lambda x, y: x not in (y, "GET"), s, s),
        _call("({} IN ({}, 2, 2.5))", "B", lambda x, y: x in (y, 2, 2.5), n, n),
        _call("({} > '2026-01-05 12:00:00')", "B", lambda x: x > datetime(2026, 1, 5, 12), t),  # noqa: DTZ001 - the same
        _call("startsWith({}, 'a')", "B", lambda x: x.startswith("a"), s),
        _call("empty({})", "B", lambda x: x == "", s),
        *(_like(s, sign) for sign in ("LIKE", "NOT LIKE", "ILIKE")),
    ]
    if not depth:
        return st.one_of(*compared, *many)
    b = st.deferred(lambda: conditions(columns, depth - 1))
    both = [
        _call("({} AND {})", "B", lambda x, y: x and y, b, b),
        _call("({} OR {})", "B", lambda x, y: x or y, b, b),
        _call("(NOT {})", "B", lambda x: not x, b),
    ]
    return st.one_of(*compared, *many, *both, *both)


_PATTERN = {"%": ".*", "_": ".", "\\%": "%", "\\_": "_", "a": "a", "G": "G", "Ü": "Ü", "e": "e"}


def _like(texts: st.SearchStrategy[Made], sign: str) -> st.SearchStrategy[Made]:
    flags = re.DOTALL | (re.IGNORECASE if sign == "ILIKE" else 0)
    pattern = st.lists(st.sampled_from(sorted(_PATTERN)), max_size=4).map(
        lambda parts: Made(literal("".join(parts)), "S", lambda _: "".join(_PATTERN[part] for part in parts))
    )
    return _call(
        f"({{}} {sign} {{}})",
        "B",
        lambda x, form: bool(re.fullmatch(form, x, flags)) != (sign == "NOT LIKE"),
        texts,
        pattern,
    )


@functools.cache
def aggregates(columns: Columns, *, is_table: bool) -> st.SearchStrategy[Made]:
    """Aggregates over the columns; aggregates of a table's own columns only if the source is a table."""
    s, n, t = (expressions(kind, columns, 1) for kind in ("S", "N", "T"))
    made = [
        st.just(Made("count()", "N", len)),
        _over("count(DISTINCT {})", "N", lambda values: len(set(values)), s),
        _over("sum({})", "N", sum, n),
        _over("avg({})", "N", lambda values: sum(values) / len(values) if values else None, n),
        _over("max({})", "N", lambda values: max(values, default=None), n),
        _over("min({})", "N", lambda values: min(values, default=None), n),
        _over("min({})", "T", lambda values: min(values, default=None), t),
        st.integers(1, 3).flatmap(lambda k: _over(f"topK({k})({{}})", "A", lambda values: _most(values, k), s)),
    ]
    if is_table:
        made += [
            st.just(Made("sum(_sample_interval)", "N", len)),
            s.map(lambda text: Made(f"argMax({text.sql}, {UNIQUE})", "S", lambda rows: _latest(rows, text))),
            st.sampled_from((0, 0.25, 0.5, 0.75, 1)).flatmap(
                lambda q: _over(
                    f"quantileExactWeighted({q})({{}}, _sample_interval)", "N", lambda values: _quantile(values, q), n
                )
            ),
        ]
    few = st.integers(1, 4).map(lambda k: Made(str(k), "N", lambda _: k))
    total = st.one_of(made[0], made[2])
    made += [
        _call("({} - {} * {})", "N", lambda x, y, k: x - y * k, total, total, few),
        _call("if({} > {}, 'many', 'few')", "S", lambda x, k: "many" if x > k else "few", total, few),
    ]
    return st.one_of(*made)


def _over(
    form: str, kind: str, value: Callable[[list[Any]], Any], part: st.SearchStrategy[Made]
) -> st.SearchStrategy[Made]:
    return part.map(
        lambda expression: Made(
            form.format(expression.sql), kind, lambda rows: value([expression.of(row) for row in rows])
        )
    )


@st.composite
def statements(draw: st.DrawFn, columns: Columns = COLUMNS, source: str = "t") -> Statement:
    """SELECTs of rows, of groups, and of groups of the rows of another SELECT."""
    shape = draw(st.sampled_from(("rows", "groups", "groups", "nested") if source == "t" else ("groups",)))
    if shape == "nested":
        return draw(_nested())
    where = draw(st.none() | conditions(columns))
    if shape == "rows":
        kinds = st.lists(st.sampled_from("SNTDB"), min_size=1, max_size=3)
        items = [draw(expressions(kind, columns)) for kind in draw(kinds)]
        distinct, keys, totals = draw(st.booleans()), items, []
    else:
        kinds = st.lists(st.sampled_from("SNTDB"), max_size=2)
        keys = [draw(expressions(kind, columns, 1)) for kind in draw(kinds)]
        totals = draw(st.lists(aggregates(columns, is_table=source == "t"), min_size=1, max_size=3))
        distinct, items = False, [*keys, *totals]
    return _assembled(draw, source, where, distinct=distinct, keys=keys, totals=totals, items=items)


def _assembled(
    draw: st.DrawFn,
    source: str,
    where: Made | None,
    *,
    distinct: bool,
    keys: list[Made],
    totals: list[Made],
    items: list[Made],
) -> Statement:
    # The inner statement has other names: an alias takes precedence over a column of the same name.
    names = tuple(f"{'x' if source == 't' else 'y'}{number}" for number in range(len(items)))
    listed = ", ".join(f"{item.sql} AS {name}" for item, name in zip(items, names, strict=True))
    sql = f"SELECT {'DISTINCT ' if distinct else ''}{listed} FROM {source}"
    sql += f" WHERE {where.sql}" if where else ""
    having = None
    if totals and keys:
        forms = [names, [str(number) for number in range(1, len(keys) + 1)], [key.sql for key in keys]]
        sql += " GROUP BY " + ", ".join(draw(st.sampled_from(forms))[: len(keys)])
        counted = [
            at for at, item in enumerate(items) if at >= len(keys) and item.kind == "N" and "avg" not in item.sql
        ]
        if counted and draw(st.booleans()):
            at, threshold = draw(st.sampled_from(counted)), draw(st.sampled_from(_NUMBERS))
            having = (at, float(threshold))
            sql += f" HAVING {draw(st.sampled_from((names[at], items[at].sql)))} >= {threshold}"
    order = None
    if draw(st.booleans()):
        order = [(at, draw(st.booleans())) for at, item in enumerate(items) if item.kind != "A"]
        order = draw(st.permutations(order))
        sql += " ORDER BY " + ", ".join(f"{names[at]}{' DESC' if down else ''}" for at, down in order) if order else ""
    limit, offset = (
        draw(st.tuples(st.integers(0, 5), st.integers(0, 3))) if order and draw(st.booleans()) else (None, 0)
    )
    sql += f" LIMIT {limit} OFFSET {offset}" if limit is not None else ""

    def answer(rows: Sequence[Row]) -> list[list[Any]]:
        selected = [row for row in rows if where is None or where.of(row)]
        result = _grouped(selected, keys, totals) if totals else [[item.of(row) for item in items] for row in selected]
        if distinct:
            result = [list(row) for row in dict.fromkeys(map(tuple, result))]
        if having is not None:
            result = [row for row in result if row[having[0]] >= having[1]]
        for at, down in reversed(order or ()):
            result.sort(key=lambda row: row[at], reverse=down)
        return result if limit is None else result[offset : offset + limit]

    return Statement(sql, answer, bool(order), names, tuple(item.kind for item in items))


@st.composite
def _nested(draw: st.DrawFn) -> Statement:
    inner = draw(statements().filter(lambda statement: "GROUP BY" in statement.sql and "FROM (" not in statement.sql))
    named = list(zip(inner.names, inner.kinds, strict=True))
    columns = tuple((kind, tuple(name for name, column_kind in named if column_kind == kind)) for kind in "SNTD")
    # Numbers of the inner statement are as exact as its sums, except averages.
    outer = draw(statements(columns=columns, source=f"({inner.sql})"))

    def answer(rows: Sequence[Row]) -> list[list[Any]]:
        return outer.answer([dict(zip(inner.names, row, strict=True)) for row in inner.answer(rows)])

    return outer._replace(answer=answer)


def _grouped(rows: Sequence[Row], keys: list[Made], totals: list[Made]) -> list[list[Any]]:
    groups: dict[tuple[Any, ...], list[Row]] = {} if keys else {(): []}
    for row in rows:
        groups.setdefault(tuple(key.of(row) for key in keys), []).append(row)
    return [[*key, *(total.of(group) for total in totals)] for key, group in groups.items()]


def _seconds(at: datetime) -> int:
    return int((at - _EPOCH).total_seconds())


def _bucket(at: datetime, width: int) -> datetime:
    return _EPOCH + timedelta(seconds=_seconds(at) // width * width)


def _most(values: list[str], k: int) -> list[str]:
    counts = Counter(values)
    return sorted(counts, key=lambda value: (-counts[value], value))[:k]


def _latest(rows: Sequence[Row], expression: Made) -> Any:
    return expression.of(max(rows, key=lambda row: row[UNIQUE])) if rows else None


def _quantile(values: list[float], q: float) -> float | None:
    return sorted(values)[max(math.ceil(q * len(values)), 1) - 1] if values else None
