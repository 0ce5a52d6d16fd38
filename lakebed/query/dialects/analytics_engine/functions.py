"""The functions of the dialect, each as a DuckDB expression over its arguments `a`, `b`, `c`.

A line is `name(kinds of the arguments) kind = expression`; an indented line continues it. Kinds: S text, N number, U
whole number of at least 0, T time, D date, t time or date, A array, ? any. After `*` the last argument may be repeated.
The first line that fits is used. A function without a line is refused: `unknown function call`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlglot
from sqlglot import exp
from sqlglot.dialects.duckdb import DuckDB

__all__ = ["AGGREGATES", "FUNCTIONS", "Function", "expression"]


class _Plain(DuckDB):
    """DuckDB's dialect without special functions: each call stays as it is written."""

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
    """One form of a function."""

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
    """`sql` as an expression, with `arguments` in place of `a`, `b` and `c`; `*` is replaced by all of them."""
    tree = exp.Paren(this=sqlglot.parse_one(sql, read=_Plain))
    columns, stars = list(tree.find_all(exp.Column)), list(tree.find_all(exp.Star))  # before those of the arguments
    for column in columns:
        column.replace(exp.Paren(this=arguments["abc".index(column.name)].copy()))
    for star in stars:
        if arguments and isinstance(star.parent, exp.Anonymous):
            star.parent.set("expressions", [argument.copy() for argument in arguments])
    return tree
