"""Translates a statement of Analytics Engine to DuckDB, node by node. Unknown nodes are refused."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from lakebed.errors import QueryRefused
from lakebed.query.dialects.analytics_engine.dataset import COLUMNS, DATABASE, SYSTEM
from lakebed.query.dialects.analytics_engine.expressions import (
    EngineDialect,
    Expressions,
    is_whole,
    quoted,
    unsupported,
)
from lakebed.query.dialects.analytics_engine.span import EVERYTHING, Span, span_of

__all__ = ["Show", "Translated", "translate"]

TABLE = "_dataset"
_FORMATS = {"json": "JSON", "jsoneachrow": "JSONEachRow", "tabseparated": "TabSeparated"}
_SHOWN = ("TABLES", "TIMEZONES", "TIMEZONE")
_CLAUSES = {"kind", "expressions", "distinct", "from_", "where", "group", "having", "order", "limit", "offset"}
_MAX_CHARACTERS = 64 << 10


class Show(NamedTuple):
    """A statement `SHOW TABLES`, `SHOW TIMEZONES` or `SHOW TIMEZONE`."""

    what: str
    format: str


class Translated(NamedTuple):
    """A translated SELECT.

    Attributes:
        dataset: name of the dataset that it reads; None if it reads none.
        system: name of the table of SYSTEM that it reads; None if it reads none.
        sql: DuckDB SQL, which reads the table TABLE.
        format: format of the answer.
        span: range of times of the rows that it can read.
        columns: columns of the dataset that it reads; all of them for `*`.
    """

    dataset: str | None
    system: str | None
    sql: str
    format: str
    span: Span = EVERYTHING
    columns: tuple[str, ...] = tuple(COLUMNS)

    def over(self, table: str) -> str:
        """The complete DuckDB SQL. `table` is the SQL of the dataset; it must end with a condition."""
        return f"WITH {TABLE} AS ({table}{self.span.sql()}) {self.sql}"


def translate(sql: str, now: datetime) -> Show | Translated:
    """Translate a statement.

    Args:
        sql: the statement.
        now: value of `now()`.

    Raises:
        QueryRefused: `sql` is not one statement, or uses something that the dialect does not have.
    """
    if len(sql) > _MAX_CHARACTERS:
        raise QueryRefused(f"the statement has more than {_MAX_CHARACTERS} characters", hint="Send a shorter one")
    try:
        words = [token.text for token in sqlglot.tokenize(sql, read=EngineDialect) if token.text != ";"]
        if words and words[0].upper() == "SHOW":
            return _show(" ".join(words).split())
        trees = [tree for tree in sqlglot.parse(sql, read=EngineDialect) if tree is not None]
        if len(trees) != 1:
            raise QueryRefused(f"there are {len(trees)} statements", hint="Send one statement")
        return _Reader(now).statement(trees[0])
    except SqlglotError as error:
        raise QueryRefused(
            f"the statement cannot be parsed: {str(error).splitlines()[0]}", hint="Send one SELECT"
        ) from None
    except RecursionError:
        raise QueryRefused("the statement is nested too deeply", hint="Send a simpler statement") from None


def _show(words: list[str]) -> Show:
    rest = [word.upper() for word in words[1:]]
    form = _format(words[-1]) if len(rest) == len(("TABLES", "FORMAT", "JSON")) and rest[1] == "FORMAT" else "JSON"
    if rest[:1] not in [[name] for name in _SHOWN] or (len(rest) > 1 and rest[1:2] != ["FORMAT"]):
        raise QueryRefused("SHOW supports " + ", ".join(_SHOWN), hint="Write SHOW TABLES")
    return Show(rest[0], form)


def _format(name: str) -> str:
    if name.lower() not in _FORMATS:
        raise QueryRefused(f"unknown format: {name[:40]}", hint=f"There are {', '.join(_FORMATS.values())}")
    return _FORMATS[name.lower()]


class _Reader:
    """Translates one statement."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._dataset: str | None = None
        self._system: str | None = None
        self._span = EVERYTHING
        self._named_columns: set[str] = set()
        self._star = False

    def statement(self, tree: exp.Expr) -> Translated:
        """Translate the whole statement."""
        if not isinstance(tree, exp.Select):
            raise unsupported(tree)
        named = tree.args.get("format")
        tree.set("format", None)
        form = "JSON" if named is None else _format(named.name)
        select, _ = self._select(tree)
        columns = tuple(COLUMNS if self._star else sorted(self._named_columns & COLUMNS.keys()))
        return Translated(self._dataset, self._system, select.sql(dialect="duckdb"), form, self._span, columns)

    def _select(self, tree: exp.Select) -> tuple[exp.Select, dict[str, str]]:
        for clause, value in tree.args.items():
            if value and clause not in _CLAUSES:
                raise QueryRefused(f"unsupported clause: {clause.strip('_').upper()}", hint="See the dialect's page")
        columns, order = self._source(tree)
        aliased: dict[str, str] = {}
        scope = Expressions(columns, aliased, self._now, order, self._named_columns)
        projections: list[exp.Expr] = []
        kinds: dict[str, str] = {}
        for projection in tree.expressions:
            if isinstance(projection, exp.Star):
                if any(projection.args.values()):
                    raise unsupported(projection)
                self._star = True
                projections.append(projection)
                kinds.update(columns)
                continue
            inner = projection.this if isinstance(projection, exp.Alias) else projection
            name = projection.alias or inner.sql(dialect=EngineDialect)
            made, kind = scope.read(inner)
            kinds[name] = kind
            if isinstance(projection, exp.Alias):
                aliased[name] = kind
            projections.append(exp.alias_(made, exp.to_identifier(name, quoted=True)))
        tree.set("expressions", projections)
        self._clauses(
            tree,
            scope,
            {projection.alias: projection.this for projection in projections if isinstance(projection, exp.Alias)},
        )
        return tree, kinds

    def _clauses(self, tree: exp.Select, scope: Expressions, made: dict[str, exp.Expr]) -> None:
        for clause in ("where", "having"):
            if tree.args.get(clause):
                tree.args[clause].set("this", scope.read(tree.args[clause].this)[0])
        self._group(tree.args.get("group"), scope, made)
        order = tree.args.get("order")
        for ordered in order.expressions if order else ():
            if not isinstance(ordered, exp.Ordered) or ordered.args.get("with_fill"):
                raise unsupported(ordered)
            ordered.set("this", _position(ordered.this) or scope.read(ordered.this)[0])
        distinct = tree.args.get("distinct")
        if distinct and distinct.args.get("on"):
            raise unsupported(distinct)
        self._ends(tree)

    def _group(self, group: exp.Expr | None, scope: Expressions, made: dict[str, exp.Expr]) -> None:
        if group:
            if any(value for name, value in group.args.items() if name != "expressions"):
                raise QueryRefused("unsupported clause: GROUP BY with modifiers", hint="Group by columns")
            # An alias wins over a column of the same name, as in ClickHouse; in DuckDB the column wins.
            group.set(
                "expressions",
                [
                    made[term.name].copy()
                    if isinstance(term, exp.Column) and not term.table and term.name in made
                    else _position(term) or scope.read(term)[0]
                    for term in group.expressions
                ],
            )

    def _ends(self, tree: exp.Select) -> None:
        for clause in ("limit", "offset"):
            limit = tree.args.get(clause)
            if limit is None:
                continue
            if clause == "limit" and limit.expression.name.upper() == "ALL":
                tree.set("limit", None)
            elif not isinstance(limit, (exp.Limit, exp.Offset)) or not is_whole(limit.expression):
                raise QueryRefused(f"{clause.upper()} takes a whole number", hint="Or LIMIT ALL")

    def _source(self, tree: exp.Select) -> tuple[dict[str, str], list[exp.Expr]]:
        """The columns of the FROM with their kinds, and the order of its rows."""
        source = tree.args.get("from_")
        if source is None:
            return {}, []
        table = source.this
        if isinstance(table, exp.Subquery):
            if not isinstance(table.this, exp.Select) or any(
                table.args.get(part) for part in ("joins", "pivots", "with_")
            ):
                raise unsupported(table)
            order = table.this.args.get("order")
            ordered = [term.copy() for term in order.expressions] if order else []
            inner, kinds = self._select(table.this)
            alias = table.args.get("alias")
            if alias is not None and alias.args.get("columns"):
                raise unsupported(alias)
            made = exp.Subquery(this=inner, alias=alias)
            source.set("this", made)
            return kinds, _outside(ordered, list(kinds))
        known = {"this", "alias", "db"}
        if not isinstance(table, exp.Table) or any(value for name, value in table.args.items() if name not in known):
            raise unsupported(table)
        if not isinstance(table.this, exp.Identifier):
            raise unsupported(table.this)
        columns = self._named(table, tree)
        # The alias keeps qualified columns valid, such as `dataset.blob1`.
        source.set(
            "this", exp.Table(this=exp.to_identifier(TABLE), alias=exp.TableAlias(this=quoted(table.alias_or_name)))
        )
        return columns, []

    def _named(self, table: exp.Table, tree: exp.Select) -> dict[str, str]:
        """The columns of a named table, with their kinds."""
        if table.db.lower() == "system" and table.name in SYSTEM:
            self._system = table.name
            return SYSTEM[table.name]
        if table.db and table.db != DATABASE:
            message = f"unknown table: {table.db[:40]}.{table.name[:40]}"
            raise QueryRefused(message, hint=f"Datasets are in {DATABASE}; system has {', '.join(SYSTEM)}")
        self._dataset = table.name
        where = tree.args.get("where")
        self._span = span_of(where and where.this, self._now)
        return COLUMNS


def _outside(order: list[exp.Expr], names: list[str]) -> list[exp.Expr]:
    """The ORDER BY of a subquery, as names of its columns; empty if it has another expression."""
    outside: list[exp.Expr] = []
    for ordered in order:
        if is_whole(ordered.this) and 0 < int(ordered.this.name) <= len(names):
            name = names[int(ordered.this.name) - 1]
        elif isinstance(ordered.this, exp.Column) and ordered.this.name in names:
            name = ordered.this.name
        else:
            return []
        outside.append(exp.Ordered(this=exp.column(quoted(name)), desc=ordered.args.get("desc")))
    return outside


def _position(node: exp.Expr) -> exp.Expr | None:
    return node if is_whole(node) else None
