"""The SQL of funnel attempts, as the top of `reports/funnel_attempts.py` shows it."""

from __future__ import annotations

import inspect

from lakebed.reports import funnel_attempts
from lakebed.reports.funnel_attempts import FunnelAttempts
from lakebed.reports.scope import Parameters, Scope


def words(sql: str) -> list[str]:
    """The words of a statement, without its layout."""
    return sql.replace("(", " ( ").replace(")", " ) ").replace(",", " , ").split()


def test_docstring_shows_the_sql_of_two_steps_in_order() -> None:
    """The example in the docstring is the statement that a funnel of two steps runs, with its parameters."""
    bind = Parameters()
    attempts = FunnelAttempts.of(["Signup", "Order"], "7d", "ordered", None, None, (), allow_equal=False)
    sql = attempts.sql(Scope(), bind)
    text = inspect.getdoc(funnel_attempts) or ""
    (example,) = [part for part in text.split("\n\n") if part.strip().startswith("WITH marked")]
    assert words(sql) == words(example)
    assert bind.params == {"p0": "Signup", "p1": "Order", "p2": "Signup", "p3": "Order", "p4": 7 * 86_400_000_000}
