"""Translates expressions of the dialect to DuckDB, with their kinds. Unknown nodes are refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlglot import exp
from sqlglot.dialects.clickhouse import ClickHouse

from lakebed.errors import QueryRefused
from lakebed.query.dialects.analytics_engine.functions import (
    AGGREGATES,
    FUNCTIONS,
    RUNNING,
    TIMES,
    Function,
    expression,
    interval,
    moment,
    moved,
    running,
)

__all__ = ["EngineDialect", "Expressions", "is_whole", "quoted", "unsupported"]

_KINDS = {
    "S": "String",
    "N": "Number",
    "U": "Number",
    "T": "DateTime",
    "D": "Date",
    "t": "DateTime",
    "A": "Array",
    "P": "Tuple",
}
_PLAIN = (
    *(
        exp.Paren,
        exp.Not,
        exp.And,
        exp.Or,
        exp.Neg,
        exp.Add,
        exp.Sub,
        exp.Mul,
        exp.Div,
        exp.Mod,
        exp.EQ,
        exp.NEQ,
        exp.GT,
    ),
    *(exp.GTE, exp.LT, exp.LTE, exp.Like, exp.ILike, exp.Between, exp.In, exp.Is, exp.Null, exp.Boolean),
)
_NUMERIC = (exp.Neg, exp.Mul, exp.Div, exp.Mod)
_IGNORED = ("this", "over")  # arguments of a window without a meaning of their own
_WIDENED = (exp.Add, exp.Sub, exp.Mul, exp.Neg)


class EngineDialect(ClickHouse):
    """ClickHouse's dialect for sqlglot, but without special functions: each call stays as it is written."""

    class Parser(ClickHouse.Parser):  # type: ignore[misc, valid-type]  # sqlglot nests this class
        """The parser of the dialect."""

        FUNCTIONS: dict[str, Any] = {}  # noqa: RUF012 - sqlglot declares it so

    class Generator(ClickHouse.Generator):  # type: ignore[misc, valid-type]  # sqlglot nests this class
        """Writes an expression as the user wrote it: this text is the name of a result column without an alias."""

        TRANSFORMS: dict[Any, Any] = {  # noqa: RUF012 - sqlglot declares it so
            **ClickHouse.Generator.TRANSFORMS,
            exp.If: lambda self, node: self.func("if", node.this, node.args.get("true"), node.args.get("false")),
            exp.Floor: lambda self, node: self.func("floor", node.this, node.args.get("decimals")),
            exp.Ceil: lambda self, node: self.func("ceil", node.this, node.args.get("decimals")),
            exp.StrPosition: lambda self, node: self.func("position", node.this, node.args.get("substr")),
            exp.Substring: lambda self, node: self.func(
                "substring", node.this, node.args.get("start"), node.args.get("length")
            ),
            exp.Boolean: lambda _, node: "true" if node.this else "false",
        }


class Expressions:
    """Translates the expressions of a SELECT over columns of known kinds; "?" is an unknown kind."""

    def __init__(
        self,
        columns: dict[str, str],
        aliased: dict[str, str],
        now: datetime,
        order: Sequence[exp.Expr],
        named: set[str],
    ) -> None:
        self._columns = columns
        self._aliased = aliased
        self._now = now
        self._order = order
        self._named = named

    def read(self, node: exp.Expr) -> tuple[exp.Expr, str]:  # noqa: PLR0911 - a line a kind of node
        """Translate `node` to DuckDB. Returns the translation and its kind. Raises QueryRefused."""
        if isinstance(node, exp.Literal):
            return _literal(node)
        if isinstance(node, exp.Column):
            return self._column(node)
        if isinstance(node, exp.Interval):
            return interval(node), "I"
        if isinstance(node, exp.If):
            return self._if(node)
        if isinstance(node, exp.ParameterizedAgg):
            return self._with_parameter(str(node.this), node.expressions, node.args["params"])
        call = _call(node)
        if call is not None:
            return self._function(*call)
        return self._plain(node) if isinstance(node, _PLAIN) else self._rare(node)

    def _rare(self, node: exp.Expr) -> tuple[exp.Expr, str]:
        if isinstance(node, exp.Extract):
            made, _ = self.read(node.expression)
            unit = node.this.name.lower()
            if unit not in ("year", "quarter", "month", "day", "hour", "minute", "second"):
                raise QueryRefused(
                    f"extract() does not support {unit[:20]}", hint="Use YEAR, MONTH, DAY, HOUR, MINUTE or SECOND"
                )
            return expression(f"CAST({unit}(a) AS USMALLINT)", made), "U"
        if isinstance(node, exp.Tuple) and len(node.expressions) == len("kv"):
            return expression("struct_pack(k := a, v := b)", *(self.read(part)[0] for part in node.expressions)), "P"
        if isinstance(node, exp.Window) and not any(value for name, value in node.args.items() if name not in _IGNORED):
            call = _call(node.this)
            if call is not None and call[0].lower() == "laginframe":
                return self._function(*call)
        raise unsupported(node)

    def _column(self, node: exp.Column) -> tuple[exp.Expr, str]:
        if isinstance(node.this, exp.Star) or node.args.get("db"):
            raise unsupported(node)
        kind = self._columns.get(node.name) or self._aliased.get(node.name)
        if kind is None and node.name.lower() == "nan":
            return expression("CAST(a AS DOUBLE)", exp.Literal.string("nan")), "N"
        if kind is None:
            raise QueryRefused(f"unknown column: {node.name[:80]}", hint="Use index1, blob1, double1 and so on")
        self._named.add(node.name)
        return exp.column(quoted(node.name), table=quoted(node.table) if node.table else None), kind

    def _plain(self, node: exp.Expr) -> tuple[exp.Expr, str]:
        kinds = self._parts(node)
        if isinstance(node, exp.Paren):
            return node, kinds[0]
        if isinstance(node, (exp.Like, exp.ILike)):
            return exp.Escape(this=node, expression=exp.Literal.string("\\")), "N"
        if isinstance(node, _NUMERIC) and "S" in kinds:
            raise QueryRefused(f"cannot use the String type in {node.key}", hint="Use a double")
        return _widened(node, kinds) if isinstance(node, _WIDENED) else (node, "N")

    def _parts(self, node: exp.Expr) -> list[str]:
        """Translate the parts of `node` in place. Returns their kinds."""
        kinds = []
        for name, value in list(node.args.items()):
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, exp.Query):
                    raise unsupported(part)
                if isinstance(part, exp.Expr):
                    made, kind = self.read(part)
                    kinds.append(kind)
                    if isinstance(value, list):
                        value[value.index(part)] = made
                    else:
                        node.set(name, made)
        if isinstance(node, exp.In) and node.args.get("expressions"):
            node.set("expressions", node.args["expressions"])
        return kinds

    def _if(self, node: exp.If) -> tuple[exp.Expr, str]:
        if node.args.get("false") is None:
            raise QueryRefused("if() takes three arguments", hint="if(condition, then, else)")
        (condition, _), (then, kind), (other, other_kind) = (
            self.read(node.args[part]) for part in ("this", "true", "false")
        )
        if _base(kind) != _base(other_kind) and "?" not in kind + other_kind:
            raise QueryRefused(
                f"the branches of if() are {_KINDS.get(kind)} and {_KINDS.get(other_kind)}", hint="Use one type"
            )
        made = exp.Case(ifs=[exp.If(this=condition, true=then)], default=other)
        return made, kind if kind == other_kind else _base(kind)

    def _with_parameter(self, name: str, parameters: list[exp.Expr], arguments: list[exp.Expr]) -> tuple[exp.Expr, str]:
        if len(parameters) != 1 or not isinstance(parameters[0], exp.Literal) or parameters[0].is_string:
            raise QueryRefused(
                f"{name}() takes a literal number in its first brackets", hint="quantileExactWeighted(0.5)(…)"
            )
        made = [self.read(argument) for argument in arguments]
        weighted = name.lower() in ("quantileexactweighted", "quantileweighted", "topkweighted")
        if name.lower() not in ("topk", "quantileexactweighted", "quantileweighted", "topkweighted"):
            raise QueryRefused(f"unknown function call: {name}", hint="See the dialect's page")
        if len(made) != 1 + weighted:
            raise QueryRefused(f"{name}() takes {1 + weighted} arguments", hint="The second is the weight")
        if weighted and not _is_one_weight(arguments[1]):
            raise QueryRefused(f"the weight of {name}() must be _sample_interval", hint="Events are never sampled here")
        (value, kind), number = made[0], parameters[0]
        if name.lower().startswith("topk"):
            if not is_whole(number) or not 0 < int(number.name) <= _MOST_TOP:
                raise QueryRefused(f"{name}() takes a whole number from 1 to {_MOST_TOP}", hint="topK(10)(blob1)")
            return expression(_TOP, value, number), "A"
        if kind == "S" or not 0 <= float(number.name) <= 1:
            raise QueryRefused(f"{name}() takes a level from 0 to 1, and numbers", hint=f"{name}(0.5)(double1, …)")
        return expression("quantile_disc(a, b)", value, number), kind

    def _function(self, name: str, arguments: list[exp.Expr]) -> tuple[exp.Expr, str]:
        special = self._special(name, arguments)
        return self._listed(name, arguments) if special is None else special

    def _special(self, name: str, arguments: list[exp.Expr]) -> tuple[exp.Expr, str] | None:
        called = name.lower()
        if called in ("now", "today"):
            return moment(called, self._now, arguments)
        if called in TIMES:
            made = [self.read(argument) for argument in arguments]
            return TIMES[called]([sql for sql, _ in made], [kind for _, kind in made])
        if called in RUNNING:
            return running(name, arguments, self.read, self._order)
        if called in ("topk", "topkweighted"):
            return self._with_parameter(name, [exp.Literal.number(10)], arguments)
        if called == "quantileweighted":
            return self._with_parameter(name, arguments[:1], arguments[1:])
        return self._format(arguments) if called == "format" else None

    def _listed(self, name: str, arguments: list[exp.Expr]) -> tuple[exp.Expr, str]:
        if len(arguments) == 1 and isinstance(arguments[0], exp.Distinct):
            name, arguments = f"{name} DISTINCT", arguments[0].expressions
        if name.lower() == "count" and len(arguments) == 1 and isinstance(arguments[0], exp.Star):
            arguments = []
        forms = FUNCTIONS.get(name.lower()) or AGGREGATES.get(name.lower())
        if forms is None:
            raise QueryRefused(f"unknown function call: {name[:60]}", hint="See the dialect's page")
        written = [argument.sql(dialect=EngineDialect) for argument in arguments]
        made = [self.read(argument) for argument in arguments]
        kinds = [kind for _, kind in made]
        form = next((form for form in forms if _fits(form, kinds)), None)
        if form is None:
            raise _misused(forms, kinds, written)
        kind = kinds[0] if form.kind == "?" else form.kind
        return expression(form.sql, *(sql for sql, _ in made)), kind

    def _format(self, arguments: list[exp.Expr]) -> tuple[exp.Expr, str]:
        """Translate `format()`. `{}` is the only placeholder supported, as in Analytics Engine."""
        if not arguments or not isinstance(arguments[0], exp.Literal) or not arguments[0].is_string:
            raise QueryRefused("format() takes a literal text and values", hint="format('{} ms', double1)")
        parts = arguments[0].name.split("{}")
        if len(parts) != len(arguments) or any("{" in part or "}" in part for part in parts):
            message = f"format() has {len(parts) - 1} placeholders for {len(arguments) - 1} values"
            raise QueryRefused(message, hint="Write {} for each value, and no other bracket")
        pieces: list[exp.Expr] = [exp.Literal.string(parts[0])]
        for part, value in zip(parts[1:], arguments[1:], strict=True):
            pieces += [self._function("toString", [value])[0], exp.Literal.string(part)]
        return exp.Anonymous(this="concat", expressions=pieces), "S"


_MOST_TOP = 1000
# The most frequent values; of equally frequent ones the smallest first. Exact, whereas ClickHouse estimates.
_TOP = (
    "list_transform(list_slice(list_sort(list_transform(map_entries(histogram(a)),"
    " lambda x: struct_pack(n := -CAST(x.value AS BIGINT), k := x.key))), 1, b), lambda x: x.k)"
)


def _call(node: exp.Expr) -> tuple[str, list[exp.Expr]] | None:
    """The name and arguments of a call in any form of sqlglot's tree; None if `node` is not a call."""
    if isinstance(node, (exp.Anonymous, exp.AnonymousAggFunc)) and not isinstance(node, exp.ParameterizedAgg):
        return str(node.this), list(node.expressions)
    special: dict[type[exp.Expr], tuple[str, tuple[str, ...]]] = {
        exp.ArgMax: ("argMax", ("this", "expression")),
        exp.ArgMin: ("argMin", ("this", "expression")),
        exp.Ceil: ("ceil", ("this", "decimals")),
        exp.Floor: ("floor", ("this", "decimals")),
        exp.StrPosition: ("position", ("this", "substr")),
        exp.Substring: ("substring", ("this", "start", "length")),
    }
    for kind, (name, parts) in special.items():
        if isinstance(node, kind):
            if any(value for part, value in node.args.items() if part not in parts and part != "count"):
                raise unsupported(node)
            return name, [node.args[part] for part in parts if node.args.get(part) is not None]
    return None


def _fits(form: Function, kinds: list[str]) -> bool:
    wanted = form.arguments.rstrip("*")
    if len(kinds) < len(wanted) or (len(kinds) > len(wanted) and not form.many):
        return False
    wanted += wanted[-1:] * (len(kinds) - len(wanted))
    return all(
        want in ("?", kind, _base(kind)) or kind == "?" or (want == "t" and kind in "TD")
        for want, kind in zip(wanted, kinds, strict=True)
    )


def _literal(node: exp.Literal) -> tuple[exp.Expr, str]:
    if node.is_string or is_whole(node):
        return node.copy(), "S" if node.is_string else "U"
    # In DuckDB 0.1 is a decimal, in the dialect it is a double.
    return exp.Literal.number(node.name if "e" in node.name.lower() else f"{node.name}e0"), "N"


def _widened(node: exp.Expr, kinds: list[str]) -> tuple[exp.Expr, str]:
    """Make arithmetic use 64 bits, as in ClickHouse. DuckDB alone would use the types of the operands."""
    if "I" in kinds or kinds[0] in ("T", "D"):
        return moved(node, kinds)
    unsigned = isinstance(node, (exp.Add, exp.Mul)) and kinds == ["U", "U"]
    for name, kind in zip(("this", "expression"), kinds, strict=False):
        if kind == "U":
            node.set(name, expression(f"CAST(a AS {'UBIGINT' if unsigned else 'BIGINT'})", node.args[name]))
    return node, "U" if unsigned else "N"


def _base(kind: str) -> str:
    """`kind`, but N (number) in place of U (unsigned number)."""
    return "N" if kind == "U" else kind


def _misused(forms: list[Function], kinds: list[str], written: list[str]) -> QueryRefused:
    name, _, distinct = forms[0].name.partition(" ")
    lengths = sorted({len(form.arguments.rstrip("*")) for form in forms})
    if len(kinds) not in lengths:
        return QueryRefused(
            f"{name}() takes {' or '.join(map(str, lengths))} arguments", hint=f"There are {len(kinds)}"
        )
    wrong = next(
        (
            index
            for index in range(len(kinds))
            if not any(form.arguments[index : index + 1] in ("?", kinds[index], _base(kinds[index])) for form in forms)
        ),
        0,
    )
    kind = _KINDS.get(kinds[wrong], "Interval")
    call = f"{name}({distinct and 'DISTINCT '}{', '.join(written)})"
    message = f"cannot use the {kind} type as argument {wrong + 1} in {call}"
    return QueryRefused(message, hint="See the dialect's page")


def unsupported(node: exp.Expr) -> QueryRefused:
    """Make the error for a node that the dialect does not support."""
    text = " ".join(node.sql(dialect=EngineDialect).split())[:80]
    return QueryRefused(f"unsupported expression type: {text}", hint="See the dialect's page")


def is_whole(node: exp.Expr) -> bool:
    """Whether `node` is a literal whole number."""
    return isinstance(node, exp.Literal) and not node.is_string and re.fullmatch(r"\d{1,18}", node.name) is not None


def _is_one_weight(node: exp.Expr) -> bool:
    return (isinstance(node, exp.Column) and node.name == "_sample_interval") or (is_whole(node) and int(node.name) > 0)


def quoted(name: str) -> exp.Identifier:
    """Quote a name as a SQL identifier."""
    return exp.to_identifier(name, quoted=True)
