"""The functions of the dialect as DuckDB expressions, including intervals and functions that read other rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import sqlglot
from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB

from lakebed.errors import QueryRefused

__all__ = [
    "AGGREGATES",
    "FUNCTIONS",
    "RUNNING",
    "TIMES",
    "Function",
    "expression",
    "interval",
    "moment",
    "moved",
    "running",
]


class _Plain(DuckDB):
    """DuckDB's dialect for sqlglot, but without special functions: each call stays as it is written."""

    class Parser(DuckDB.Parser):  # type: ignore[misc, valid-type]  # sqlglot nests this class
        FUNCTIONS: dict[str, Any] = {}  # noqa: RUF012 - sqlglot declares it so


_FUNCTIONS = """
lower(S) S = translate(a, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz')
lcase(S) S = translate(a, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz')
lowerUTF8(S) S = lower(a)
toLower(S) S = lower(a)
upper(S) S = translate(a, 'abcdefghijklmnopqrstuvwxyz', 'ABCDEFGHIJKLMNOPQRSTUVWXYZ')
ucase(S) S = translate(a, 'abcdefghijklmnopqrstuvwxyz', 'ABCDEFGHIJKLMNOPQRSTUVWXYZ')
upperUTF8(S) S = upper(a)
toUpper(S) S = upper(a)
length(S) U = CAST(length(a) AS UBIGINT)
lengthUTF8(S) U = CAST(length(a) AS UBIGINT)
empty(S) N = a = ''
notEmpty(S) N = a <> ''
startsWith(SS) N = starts_with(a, b)
endsWith(SS) N = ends_with(a, b)
substring(SN) S = substring(a, b)
substring(SNN) S = substring(a, b, c)
substringUTF8(SN) S = substring(a, b)
substringUTF8(SNN) S = substring(a, b, c)
position(SS) U = CAST(strpos(a, b) AS UBIGINT)
concat(SS*) S = concat(*)
trim(S) S = trim(a)
trimLeft(S) S = ltrim(a)
trimRight(S) S = rtrim(a)
reverse(S) S = reverse(a)
replaceAll(SSS) S = replace(a, b, c)
hex(S) S = hex(a)
hex(U) S = right(concat('0', hex(CAST(a AS UBIGINT))), CAST(2 * ceil(length(hex(CAST(a AS UBIGINT))) / 2) AS BIGINT))
bin(S) S = bin(a)
bin(U) S = right(concat('0000000', bin(CAST(a AS UBIGINT))),
    CAST(8 * ceil(length(bin(CAST(a AS UBIGINT))) / 8) AS BIGINT))
unhex(S) S = decode(unhex(a))
base64Encode(S) S = to_base64(encode(a))
base64Decode(S) S = decode(from_base64(a))
toString(T) S = strftime(a, '%Y-%m-%d %H:%M:%S')
toString(D) S = strftime(a, '%Y-%m-%d')
toString(N) S = regexp_replace(CAST(a AS VARCHAR), '[.]0$', '')
toString(?) S = CAST(a AS VARCHAR)
toUInt8(t) U = CAST(CAST(epoch(a) AS BIGINT) & 255 AS UTINYINT)
toUInt8(S) U = CAST(a AS UTINYINT)
toUInt8(N) U = CAST(sign(a) * floor(abs(a)) AS UTINYINT)
toUInt32(t) U = CAST(epoch(a) AS UINTEGER)
toUInt32(S) U = CAST(a AS UINTEGER)
toUInt32(N) U = CAST(sign(a) * floor(abs(a)) AS UINTEGER)
intDiv(UU) U = CAST(a // b AS UBIGINT)
intDiv(NN) N = CAST(sign(a / b) * floor(abs(a / b)) AS BIGINT)
abs(N) N = abs(a)
log(N) N = ln(a)
ln(N) N = ln(a)
log2(N) N = log2(a)
log10(N) N = log10(a)
exp(N) N = exp(a)
sqrt(N) N = sqrt(a)
pow(NN) N = pow(a, b)
power(NN) N = pow(a, b)
round(N) N = round_even(a, 0)
round(NN) N = round_even(a, b)
floor(N) N = floor(a)
floor(NN) N = floor(a * pow(10, b)) / pow(10, b)
ceil(N) N = ceil(a)
ceil(NN) N = ceil(a * pow(10, b)) / pow(10, b)
ceiling(N) N = ceil(a)
ceiling(NN) N = ceil(a * pow(10, b)) / pow(10, b)
bitAnd(NN) N = CAST(a AS BIGINT) & CAST(b AS BIGINT)
bitOr(NN) N = CAST(a AS BIGINT) | CAST(b AS BIGINT)
bitXor(NN) N = xor(CAST(a AS BIGINT), CAST(b AS BIGINT))
bitNot(N) N = -1 - CAST(a AS BIGINT)
bitCount(N) U = CAST(bit_count(CAST(a AS BIGINT)) AS UTINYINT)
bitHammingDistance(NN) U = CAST(bit_count(xor(CAST(a AS BIGINT), CAST(b AS BIGINT))) AS UTINYINT)
bitTest(NN) U = CAST((CAST(a AS BIGINT) >> CAST(b AS INTEGER)) & 1 AS UTINYINT)
bitShiftLeft(NN) N = CAST(a AS BIGINT) << CAST(b AS INTEGER)
bitShiftRight(NN) N = CAST(a AS BIGINT) >> CAST(b AS INTEGER)
toDate(t) D = CAST(a AS DATE)
toDate(S) D = CAST(a AS DATE)
toDateTime(t) T = CAST(a AS TIMESTAMP)
toDateTime(N) T = timezone('UTC', to_timestamp(floor(a)))
toDateTime(S) T = coalesce(timezone('UTC', to_timestamp(TRY_CAST(a AS BIGINT))),
    date_trunc('second', CAST(CASE WHEN TRY_CAST(a AS BIGINT) IS NULL THEN a END AS TIMESTAMP)))
toDateTime(SS) T = date_trunc('second', timezone('UTC', timezone(b, CAST(a AS TIMESTAMP))))
toDateTime(tS) T = CAST(a AS TIMESTAMP)
toDateTime(NS) T = timezone('UTC', to_timestamp(floor(a)))
toUnixTimestamp(t) U = CAST(epoch(a) AS UINTEGER)
toUnixTimestamp(S) U = CAST(epoch(CAST(a AS TIMESTAMP)) AS UINTEGER)
timezone() S = 'Etc/UTC'
toYear(t) U = CAST(year(a) AS USMALLINT)
toQuarter(t) U = CAST(quarter(a) AS UTINYINT)
toMonth(t) U = CAST(month(a) AS UTINYINT)
toDayOfYear(t) U = CAST(dayofyear(a) AS USMALLINT)
toDayOfMonth(t) U = CAST(day(a) AS UTINYINT)
toDayOfWeek(t) U = CAST(isodow(a) AS UTINYINT)
toHour(t) U = CAST(hour(a) AS UTINYINT)
toMinute(t) U = CAST(minute(a) AS UTINYINT)
toSecond(t) U = CAST(second(a) AS UTINYINT)
toYYYYMM(t) U = CAST(year(a) * 100 + month(a) AS UINTEGER)
toYYYYMMDD(t) U = CAST(year(a) * 10000 + month(a) * 100 + day(a) AS UINTEGER)
toStartOfYear(t) D = CAST(date_trunc('year', a) AS DATE)
toStartOfQuarter(t) D = CAST(date_trunc('quarter', a) AS DATE)
toStartOfMonth(t) D = CAST(date_trunc('month', a) AS DATE)
toStartOfWeek(t) D = CAST(date_trunc('week', a) AS DATE)
toMonday(t) D = CAST(date_trunc('week', a) AS DATE)
toStartOfDay(t) T = CAST(date_trunc('day', a) AS TIMESTAMP)
toStartOfHour(T) T = date_trunc('hour', a)
toStartOfFifteenMinutes(T) T = time_bucket(INTERVAL 15 MINUTE, a)
toStartOfTenMinutes(T) T = time_bucket(INTERVAL 10 MINUTE, a)
toStartOfFiveMinutes(T) T = time_bucket(INTERVAL 5 MINUTE, a)
toStartOfFiveMinute(T) T = time_bucket(INTERVAL 5 MINUTE, a)
toStartOfMinute(T) T = date_trunc('minute', a)
"""

_AGGREGATES = """
count() U = CAST(count(*) AS UBIGINT)
count(?) U = CAST(count(a) AS UBIGINT)
count DISTINCT(?) U = CAST(count(DISTINCT a) AS UBIGINT)
sum(U) U = CAST(coalesce(sum(a), 0) AS UBIGINT)
sum(N) N = coalesce(sum(a), 0)
sum DISTINCT(U) U = CAST(coalesce(sum(DISTINCT a), 0) AS UBIGINT)
sum DISTINCT(N) N = coalesce(sum(DISTINCT a), 0)
avg(N) N = avg(a)
avg DISTINCT(N) N = avg(DISTINCT a)
min(U) U = min(a)
min(N) N = min(a)
min(T) T = min(a)
min(D) D = min(a)
max(U) U = max(a)
max(N) N = max(a)
max(T) T = max(a)
max(D) D = max(a)
argMin(??) ? = arg_min(a, b)
argMax(??) ? = arg_max(a, b)
first_value(?) ? = first(a)
last_value(?) ? = last(a)
groupArray(?) A = coalesce(list_sort(array_agg(a)), [])
"""


class Function(NamedTuple):
    """One form of a function: its argument kinds, its result kind, and its DuckDB SQL."""

    name: str
    arguments: str
    kind: str
    sql: str

    @property
    def many(self) -> bool:
        """Whether the last argument may be repeated."""
        return self.arguments.endswith("*")


def _read(table: str) -> dict[str, list[Function]]:
    functions: dict[str, list[Function]] = {}
    for line in table.strip().replace("\n    ", " ").splitlines():
        head, _, sql = line.partition(" = ")
        name, _, rest = head.partition("(")
        arguments, _, kind = rest.partition(") ")
        functions.setdefault(name.lower(), []).append(Function(name, arguments, kind, sql))
    return functions


FUNCTIONS = _read(_FUNCTIONS)
AGGREGATES = _read(_AGGREGATES)


def expression(sql: str, *arguments: exp.Expr) -> exp.Expr:
    """Parse `sql`, and replace `a`, `b` and `c` by the first three of `arguments`, and `*` by all of them."""
    tree = exp.Paren(this=sqlglot.parse_one(sql, read=_Plain))
    columns, stars = list(tree.find_all(exp.Column)), list(tree.find_all(exp.Star))  # before those of the arguments
    for column in columns:
        column.replace(exp.Paren(this=arguments["abc".index(column.name)].copy()))
    for star in stars:
        if arguments and isinstance(star.parent, exp.Anonymous):
            star.parent.set("expressions", [argument.copy() for argument in arguments])
    return tree


RUNNING = {"runningdifference": (1, 1), "neighbor": (2, 3), "laginframe": (1, 3)}
"""The least and the greatest number of arguments of each."""


def running(
    name: str, arguments: list[exp.Expr], read: Callable[[exp.Expr], tuple[exp.Expr, str]], order: Sequence[exp.Expr]
) -> tuple[exp.Expr, str]:
    """Translate `runningDifference(x)`, `neighbor(x, offset, default)` or `lagInFrame(…)`. Also returns the kind.

    Args:
        name: one of RUNNING, in upper or lower case.
        arguments: arguments in the dialect.
        read: translates an expression to DuckDB's, and returns its kind.
        order: order of the rows.

    Raises:
        QueryRefused: the rows have no order, or the arguments are wrong.
    """
    minimum, maximum = RUNNING[name.lower()]
    if not order:
        raise QueryRefused(f"{name}() needs rows in order", hint="Select FROM (SELECT … ORDER BY t)")
    if not minimum <= len(arguments) <= maximum:
        raise QueryRefused(f"{name}() takes {minimum} to {maximum} arguments", hint=f"There are {len(arguments)}")
    offset = _whole(arguments[1]) if len(arguments) > 1 else 1
    missing = [read(argument)[0] for argument in arguments[2:]] or [exp.Null()]
    value, kind = read(arguments[0])
    if kind == "U":
        value, kind = expression("CAST(a AS BIGINT)", value), "N"
    if name.lower() == "runningdifference":
        if kind != "N":
            raise QueryRefused("runningDifference() takes a number", hint="toUnixTimestamp(timestamp)")
        return exp.Paren(this=exp.Sub(this=value.copy(), expression=_lag(value, 1, value, order))), kind
    # lagInFrame counts backwards, neighbor counts forwards.
    back = -offset if name.lower() == "neighbor" else offset
    return _lag(value, back, missing[0], order), kind


def _lag(value: exp.Expr, back: int, missing: exp.Expr, order: Sequence[exp.Expr]) -> exp.Expr:
    call = exp.Anonymous(
        this="lag" if back >= 0 else "lead", expressions=[value.copy(), exp.Literal.number(abs(back)), missing.copy()]
    )
    return exp.Window(this=call, order=exp.Order(expressions=[ordered.copy() for ordered in order]))


def _whole(node: exp.Expr) -> int:
    try:
        return int(node.sql())
    except ValueError:
        raise QueryRefused("an offset must be a literal whole number", hint="neighbor(x, -1, 0)") from None


_UNITS = ("SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "QUARTER", "YEAR")
# DuckDB's own origins are the Monday of 2000-01-03, and for months 2000-01-01.
_ORIGINS = {"WEEK": "1970-01-05", "MONTH": "2000-01-01", "QUARTER": "2000-01-01", "YEAR": "2000-01-01"}
_PARTS_OF_A_DAY = ("SECOND", "MINUTE", "HOUR")
_EPOCH = "1970-01-01"
_CODES = {
    **{code: f"%{code}" for code in "YmdHSyjuwIp"},
    "i": "%M",
    "M": "%B",
    "b": "%b",
    "a": "%a",
    "W": "%A",
    "e": "%-d",
    "D": "%m/%d/%y",
    "F": "%Y-%m-%d",
    "T": "%H:%M:%S",
    "R": "%H:%M",
    "h": "%I",
    "n": "\n",
    "t": "\t",
    "%": "%%",
}


def interval(node: exp.Interval) -> exp.Interval:
    """Translate an interval, whose number may be quoted or not. Raises QueryRefused."""
    unit = node.args.get("unit")
    name = unit.name.upper() if unit is not None else ""
    name = name.removesuffix("S")
    if name not in _UNITS or not isinstance(node.this, exp.Literal) or not re.fullmatch(r"\d{1,9}", node.this.name):
        raise QueryRefused(
            "an interval needs a whole number and a unit: INTERVAL '1' DAY", hint=f"Units are {', '.join(_UNITS)}"
        )
    return exp.Interval(this=exp.Literal.string(node.this.name), unit=exp.Var(this=name))


def moment(name: str, now: datetime, arguments: list[exp.Expr]) -> tuple[exp.Expr, str]:
    """Translate `now()` or `today()`. Both are the same moment in the whole statement. Raises QueryRefused."""
    if arguments:
        raise QueryRefused(f"{name}() takes no arguments", hint=f"It is in UTC: write {name}()")
    if name == "today":
        return expression("CAST(a AS DATE)", exp.Literal.string(f"{now:%Y-%m-%d}")), "D"
    return expression("CAST(a AS TIMESTAMP)", exp.Literal.string(f"{now:%Y-%m-%d %H:%M:%S}")), "T"


def moved(node: exp.Expr, kinds: list[str]) -> tuple[exp.Expr, str]:
    """Translate a time or date plus or minus an interval. A date stays a date if the interval has whole days.

    A number means seconds with a time and days with a date. The difference of two times is in seconds, of two dates in
    days. Raises QueryRefused.
    """
    if isinstance(node, exp.Sub) and kinds in (["T", "T"], ["D", "D"]):
        between = "a - b" if kinds[0] == "D" else "epoch(a) - epoch(b)"
        return expression(f"CAST({between} AS BIGINT)", node.this, node.expression), "N"
    if kinds[-1] in ("N", "U") and isinstance(node, (exp.Add, exp.Sub)):
        sign = "+" if isinstance(node, exp.Add) else "-"
        if kinds[0] == "D":
            return expression(f"CAST(a {sign} CAST(b AS INTEGER) AS DATE)", node.this, node.expression), "D"
        return expression(f"a {sign} to_seconds(CAST(b AS BIGINT))", node.this, node.expression), "T"
    before, by = (kinds[0], node.expression) if kinds[-1] == "I" else (kinds[-1], node.this)
    if before not in ("T", "D", "?") or not isinstance(node, (exp.Add, exp.Sub)) or not isinstance(by, exp.Interval):
        raise QueryRefused(
            "an interval can only be added to a time, or subtracted from one", hint="timestamp - INTERVAL '1' DAY"
        )
    if before == "D" and by.args["unit"].name not in _PARTS_OF_A_DAY:
        return expression("CAST(a AS DATE)", node), "D"
    return node, "T"


def _start_of_interval(arguments: list[exp.Expr], kinds: list[str]) -> tuple[exp.Expr, str]:
    if len(arguments) not in (2, 3) or kinds[0] not in "TD?" or not isinstance(arguments[1], exp.Interval):
        hint = "toStartOfInterval(timestamp, INTERVAL '15' MINUTE)"
        raise QueryRefused("toStartOfInterval() takes a time, an interval and a time zone", hint=hint)
    step = arguments[1]
    if not int(step.this.name):
        raise QueryRefused("toStartOfInterval() takes an interval of at least 1", hint="INTERVAL '1' MINUTE")
    unit = step.args["unit"].name
    origin = f"TIMESTAMP '{_ORIGINS.get(unit, _EPOCH)}'"
    is_date = unit in _ORIGINS
    kind, cast = ("D", "DATE") if is_date else ("T", "TIMESTAMP")
    if len(arguments) == 2:  # noqa: PLR2004 - without a time zone
        return expression(f"CAST(time_bucket(b, CAST(a AS TIMESTAMP), {origin}) AS {cast})", arguments[0], step), kind
    local = f"time_bucket(b, timezone(c, timezone('UTC', CAST(a AS TIMESTAMP))), {origin})"
    sql = f"CAST({local} AS DATE)" if is_date else f"timezone('UTC', timezone(c, {local}))"
    return expression(sql, *arguments), kind


def _format(arguments: list[exp.Expr], kinds: list[str]) -> tuple[exp.Expr, str]:
    two_or_three = len(arguments) in (2, 3) and kinds[0] in "TD?"
    if not two_or_three or not isinstance(arguments[1], exp.Literal) or not arguments[1].is_string:
        raise QueryRefused(
            "formatDateTime() takes a time, a format and a time zone", hint="formatDateTime(timestamp, '%F')"
        )
    parts = re.findall(r"%(.?)|([^%]+)", arguments[1].name, re.DOTALL)
    unknown = [code for code, text in parts if not text and code not in _CODES]
    if unknown:
        raise QueryRefused(
            f"formatDateTime() does not support %{unknown[0]}", hint=f"There are {' '.join(sorted(_CODES))}"
        )
    form = exp.Literal.string("".join(text or _CODES[code] for code, text in parts))
    if len(arguments) == 2:  # noqa: PLR2004 - without a time zone
        return expression("strftime(a, b)", arguments[0], form), "S"
    sql = "strftime(timezone(c, timezone('UTC', CAST(a AS TIMESTAMP))), b)"
    return expression(sql, arguments[0], form, arguments[2]), "S"


TIMES: dict[str, Callable[[list[exp.Expr], list[str]], tuple[exp.Expr, str]]] = {
    "tostartofinterval": _start_of_interval,
    "formatdatetime": _format,
}
