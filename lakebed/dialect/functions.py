"""The functions of the dialect, each as an expression of DuckDB over its arguments `a`, `b`, `c`.

A line is `name(kinds of the arguments) kind = expression`. Kinds: S text, N number, T time, D date, t time or date, A
array, ? any. With `*` the arguments may be any number. What has no line is refused: `unknown function call`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlglot
from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB

__all__ = ["AGGREGATES", "FUNCTIONS", "Function", "expression"]


class _Plain(DuckDB):
    """DuckDB's dialect, in which every function stays what it is called."""

    class Parser(DuckDB.Parser):  # type: ignore[misc, valid-type]  # a class, as sqlglot has it
        FUNCTIONS: dict[str, Any] = {}  # noqa: RUF012 - sqlglot's way


_FUNCTIONS = """
lower(S) S = lower(a)
lcase(S) S = lower(a)
lowerUTF8(S) S = lower(a)
upper(S) S = upper(a)
ucase(S) S = upper(a)
upperUTF8(S) S = upper(a)
length(S) N = CAST(strlen(a) AS UBIGINT)
lengthUTF8(S) N = CAST(length(a) AS UBIGINT)
empty(S) N = a = ''
notEmpty(S) N = a <> ''
startsWith(SS) N = starts_with(a, b)
endsWith(SS) N = ends_with(a, b)
substring(SN) S = substring(a, b)
substring(SNN) S = substring(a, b, c)
substringUTF8(SN) S = substring(a, b)
substringUTF8(SNN) S = substring(a, b, c)
position(SS) N = CAST(strpos(a, b) AS UBIGINT)
concat(SS*) S = concat(*)
trim(S) S = trim(a)
trimLeft(S) S = ltrim(a)
trimRight(S) S = rtrim(a)
reverse(S) S = reverse(a)
replaceAll(SSS) S = replace(a, b, c)
hex(S) S = hex(a)
unhex(S) S = decode(unhex(a))
base64Encode(S) S = to_base64(encode(a))
base64Decode(S) S = decode(from_base64(a))
toString(t) S = strftime(a, '%Y-%m-%d %H:%M:%S')
toString(?) S = CAST(a AS VARCHAR)
toUInt8(t) N = CAST(CAST(epoch(a) AS BIGINT) & 255 AS UTINYINT)
toUInt8(S) N = CAST(a AS UTINYINT)
toUInt8(N) N = CAST(trunc(a) AS UTINYINT)
toUInt32(t) N = CAST(epoch(a) AS UINTEGER)
toUInt32(S) N = CAST(a AS UINTEGER)
toUInt32(N) N = CAST(trunc(a) AS UINTEGER)
intDiv(NN) N = CAST(trunc(a / b) AS BIGINT)
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
ceil(N) N = ceil(a)
ceiling(N) N = ceil(a)
bitAnd(NN) N = CAST(a AS BIGINT) & CAST(b AS BIGINT)
bitOr(NN) N = CAST(a AS BIGINT) | CAST(b AS BIGINT)
bitXor(NN) N = xor(CAST(a AS BIGINT), CAST(b AS BIGINT))
bitNot(N) N = -1 - CAST(a AS BIGINT)
bitCount(N) N = bit_count(CAST(a AS BIGINT))
bitShiftLeft(NN) N = CAST(a AS BIGINT) << CAST(b AS INTEGER)
bitShiftRight(NN) N = CAST(a AS BIGINT) >> CAST(b AS INTEGER)
now() T = date_trunc('second', timezone('UTC', now()))
today() D = CAST(timezone('UTC', now()) AS DATE)
toDate(t) D = CAST(a AS DATE)
toDate(S) D = CAST(a AS DATE)
toDateTime(t) T = CAST(a AS TIMESTAMP)
toDateTime(N) T = timezone('UTC', to_timestamp(trunc(a)))
toDateTime(S) T = date_trunc('second', CAST(a AS TIMESTAMP))
toDateTime(SS) T = date_trunc('second', timezone('UTC', timezone(b, CAST(a AS TIMESTAMP))))
toDateTime(tS) T = CAST(a AS TIMESTAMP)
toDateTime(NS) T = timezone('UTC', to_timestamp(trunc(a)))
toUnixTimestamp(t) N = CAST(epoch(a) AS UINTEGER)
toUnixTimestamp(S) N = CAST(epoch(CAST(a AS TIMESTAMP)) AS UINTEGER)
toYear(t) N = CAST(year(a) AS USMALLINT)
toQuarter(t) N = CAST(quarter(a) AS UTINYINT)
toMonth(t) N = CAST(month(a) AS UTINYINT)
toDayOfYear(t) N = CAST(dayofyear(a) AS USMALLINT)
toDayOfMonth(t) N = CAST(day(a) AS UTINYINT)
toDayOfWeek(t) N = CAST(isodow(a) AS UTINYINT)
toHour(t) N = CAST(hour(a) AS UTINYINT)
toMinute(t) N = CAST(minute(a) AS UTINYINT)
toSecond(t) N = CAST(second(a) AS UTINYINT)
toYYYYMM(t) N = CAST(year(a) * 100 + month(a) AS UINTEGER)
toYYYYMMDD(t) N = CAST(year(a) * 10000 + month(a) * 100 + day(a) AS UINTEGER)
toStartOfYear(t) D = CAST(date_trunc('year', a) AS DATE)
toStartOfQuarter(t) D = CAST(date_trunc('quarter', a) AS DATE)
toStartOfMonth(t) D = CAST(date_trunc('month', a) AS DATE)
toStartOfWeek(t) D = CAST(date_trunc('week', a + INTERVAL 1 DAY) - INTERVAL 1 DAY AS DATE)
toMonday(t) D = CAST(date_trunc('week', a) AS DATE)
toStartOfDay(t) T = CAST(date_trunc('day', a) AS TIMESTAMP)
toStartOfHour(T) T = date_trunc('hour', a)
toStartOfFifteenMinutes(T) T = time_bucket(INTERVAL 15 MINUTE, a)
toStartOfTenMinutes(T) T = time_bucket(INTERVAL 10 MINUTE, a)
toStartOfFiveMinutes(T) T = time_bucket(INTERVAL 5 MINUTE, a)
toStartOfMinute(T) T = date_trunc('minute', a)
"""

_AGGREGATES = """
count() N = CAST(count(*) AS UBIGINT)
count(?) N = CAST(count(a) AS UBIGINT)
sum(N) N = coalesce(sum(a), 0)
avg(N) N = avg(a)
min(N) N = min(a)
min(t) T = min(a)
max(N) N = max(a)
max(t) T = max(a)
argMin(??) ? = arg_min(a, b)
argMax(??) ? = arg_max(a, b)
first_value(?) ? = first(a)
last_value(?) ? = last(a)
"""


class Function(NamedTuple):
    """One form of a function."""

    name: str
    arguments: str
    kind: str
    sql: str

    @property
    def many(self) -> bool:
        """Whether more arguments of the last kind may follow."""
        return self.arguments.endswith("*")


def _read(table: str) -> dict[str, list[Function]]:
    found: dict[str, list[Function]] = {}
    for line in table.strip().splitlines():
        head, _, sql = line.partition(" = ")
        name, _, rest = head.partition("(")
        arguments, _, kind = rest.partition(") ")
        found.setdefault(name.lower(), []).append(Function(name, arguments, kind, sql))
    return found


FUNCTIONS = _read(_FUNCTIONS)
AGGREGATES = _read(_AGGREGATES)


def expression(sql: str, *arguments: exp.Expr) -> exp.Expr:
    """The expression that `sql` is, with `arguments` in the place of `a`, `b` and `c`, or all of them of `*`."""
    tree = exp.Paren(this=sqlglot.parse_one(sql, read=_Plain))
    for column in list(tree.find_all(exp.Column)):
        column.replace(exp.Paren(this=arguments["abc".index(column.name)].copy()))
    for star in list(tree.find_all(exp.Star)):
        if arguments and isinstance(star.parent, exp.Anonymous):
            star.parent.set("expressions", [one.copy() for one in arguments])
    return tree
