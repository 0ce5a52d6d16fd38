"""Evaluates constant SQL expressions that are compared with a timestamp. Results are microseconds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from lakebed.clock import DAY_US, EPOCH, HOUR_US, MINUTE_US, SECOND_US, WEEK_US, parse_moment, to_us

if TYPE_CHECKING:
    from sqlglot import exp

__all__ = ["UNITS_US", "Constants", "NotUnderstood", "type_name"]

UNITS_US = {
    "MICROSECOND": 1,
    "MILLISECOND": 1_000,
    "SECOND": SECOND_US,
    "MINUTE": MINUTE_US,
    "HOUR": HOUR_US,
    "DAY": DAY_US,
    "WEEK": WEEK_US,
}
_FIRST_US = to_us(datetime(1600, 1, 1, tzinfo=UTC))  # before 1582 calendars differ
# Only forms that DuckDB and Python read alike. Seconds have at most six decimals: DuckDB rounds further ones.
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)(?:[ T](\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)(Z|[+-]\d\d(?::\d\d)?)?)?")


class NotUnderstood(Exception):
    """Raised if a part of a condition has an unknown form. `find_bounds` never raises it."""


def type_name(cast: exp.Expression) -> str:
    """The type to which `cast` converts: DATE, TIMESTAMP or TIMESTAMPTZ; "" for any other type."""
    kind = cast.args["to"]
    name = getattr(getattr(kind, "this", None), "value", "")
    if kind.expressions or cast.args.get("format") or cast.args.get("default"):
        return ""
    return {"TIMESTAMPNTZ": "TIMESTAMP", "TIMESTAMP": "TIMESTAMP", "TIMESTAMPTZ": "TIMESTAMPTZ", "DATE": "DATE"}.get(
        name, ""
    )


class Constants:
    """Evaluates expressions without columns. Raises NotUnderstood for any unknown form.

    Args:
        params: values of the parameters by name.
        now_us: value of `now()`; None if it is not known.
    """

    def __init__(self, params: Mapping[str, Any], now_us: int | None) -> None:
        self._params = params
        self._now_us = now_us

    def value(self, node: exp.Expression, *, zoned: bool, is_date: bool) -> int:
        """The value of `node` in microseconds. DuckDB reads text by the type with which it is compared.

        Args:
            node: the expression.
            zoned: whether `node` is compared with a TIMESTAMPTZ.
            is_date: whether `node` is compared with a DATE.
        """
        text = self._text(node)
        if text is None:
            us = self._moment(node)
        else:
            us, has_zone = _read(text)
            if (has_zone and not zoned) or (is_date and us % DAY_US):
                raise NotUnderstood
        if us < _FIRST_US:
            raise NotUnderstood
        return us

    def _text(self, node: exp.Expression) -> str | None:
        from sqlglot import exp  # see find_bounds

        if isinstance(node, exp.Literal):
            if not node.is_string:
                raise NotUnderstood
            return str(node.this)
        value = self._parameter(node)
        return value if isinstance(value, str) else None

    def _parameter(self, node: exp.Expression) -> Any:
        from sqlglot import exp  # see find_bounds

        return self._params.get(node.name) if isinstance(node, (exp.Placeholder, exp.Parameter)) else None

    def _moment(self, node: exp.Expression) -> int:
        from sqlglot import exp  # see find_bounds

        if isinstance(node, exp.Paren):
            return self._moment(node.this)
        if type(node) is exp.Cast:
            return self._cast(node)
        if isinstance(node, (exp.Add, exp.Sub)):
            amount = _interval_us(node.expression)
            return self._moment(node.this) + (amount if isinstance(node, exp.Add) else -amount)
        if isinstance(node, (exp.Placeholder, exp.Parameter)):
            return _python_us(self._parameter(node))
        return self._now(node)

    def _now(self, node: exp.Expression) -> int:
        from sqlglot import exp  # see find_bounds

        if self._now_us is not None and not node.args.get("this"):
            if isinstance(node, exp.CurrentTimestamp):
                return self._now_us
            if isinstance(node, exp.CurrentDate):
                return self._now_us // DAY_US * DAY_US
        if self._now_us is not None and isinstance(node, exp.Anonymous) and not node.expressions:
            if node.name.lower() in ("now", "transaction_timestamp"):
                return self._now_us
            if node.name.lower() == "today":
                return self._now_us // DAY_US * DAY_US
        raise NotUnderstood

    def _cast(self, node: exp.Expression) -> int:
        kind = type_name(node)
        if not kind:
            raise NotUnderstood
        text = self._text(node.this) if not node.this.args.get("to") else None
        if text is None:
            us = self._moment(node.this)
        else:
            us, has_zone = _read(text)
            if has_zone and kind != "TIMESTAMPTZ":
                raise NotUnderstood  # DuckDB drops the offset there
        return us // DAY_US * DAY_US if kind == "DATE" else us


def _read(text: str) -> tuple[int, bool]:
    """The microseconds that an ISO 8601 text means, and whether the text names a zone."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise NotUnderstood
    try:
        return _after_1600(parse_moment(match[0])), match[3] is not None
    except ValueError:
        raise NotUnderstood from None


def _python_us(value: Any) -> int:
    if isinstance(value, datetime):
        us = to_us(value if value.tzinfo is not None else value.replace(tzinfo=UTC))
    elif isinstance(value, date):
        us = (value - EPOCH.date()).days * DAY_US
    else:
        raise NotUnderstood
    return _after_1600(us)


def _after_1600(us: int) -> int:
    if us < _FIRST_US:
        raise NotUnderstood
    return us


def _interval_us(node: exp.Expression) -> int:
    from sqlglot import exp  # see find_bounds

    if not isinstance(node, exp.Interval) or node.this is None:
        raise NotUnderstood
    amount = node.this.this if isinstance(node.this, exp.Paren) else node.this
    unit = node.args["unit"].name.upper() if isinstance(node.args.get("unit"), exp.Var) else ""
    unit = unit if unit in UNITS_US else unit.removesuffix("S")
    if not isinstance(amount, exp.Literal) or not re.fullmatch(r"\d{1,9}", amount.name) or unit not in UNITS_US:
        raise NotUnderstood
    return int(amount.name) * UNITS_US[unit]
