from __future__ import annotations

import subprocess
import sys

import pytest

from lakebed.errors import InvalidRollup
from lakebed.rollups.expression import Expression
from lakebed.rollups.rollup import Rollup
from lakebed.rollups.rollups import Rollups
from lakebed.settings import Settings
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.storage.storage import Storage
from tests.rollups.rollup_fixtures import PROMOTIONS


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "events"}, "name of a built-in table"),
        ({"name": "Daily_Metrics"}, "name of a built-in table"),
        ({"name": "1st"}, "letters, digits"),
        ({"name": "a b"}, "letters, digits"),
        ({"name": "a" * 64}, "letters, digits"),
        ({"name": None}, "letters, digits"),
        ({"grain": "week"}, "hour, day, month"),
        ({"timezone": "Mars/Olympus"}, "IANA"),
        ({"timezone": "../../etc/passwd"}, "IANA"),
        ({"timezone": ""}, "IANA"),
        ({"by": "plan"}, r"by=\['plan'\]"),
        ({"by": [""]}, "name of a column or property"),
        ({"by": ["plan", "Plan"]}, "two columns 'plan'"),
        ({"by": ["hour"]}, "two columns 'hour'"),
        ({"by": ["plan"], "measures": {"PLAN": "count()"}}, "two columns"),
        ({"measures": {}}, "count"),
        ({"measures": {"a b": "count()"}}, "letters, digits"),
        ({"measures": {"n": "count"}}, "is not a measure"),
        ({"measures": {"n": "median(x)"}}, "quantile"),
        ({"max_groups": 0}, "1 or more"),
        ({"max_groups": "many"}, "1 or more"),
    ],
)
def test_a_declaration_is_checked_at_once(arguments, says):
    """InvalidRollup says what is wrong and what is allowed, before an object exists."""
    with pytest.raises(InvalidRollup, match=says):
        Rollup(**({"name": "r"} | arguments))


def test_a_declaration_in_its_documented_form():
    """As in the design: a name, then keywords; what it was given cannot be changed afterwards."""
    by, measures = ["plan"], {"total": "sum(revenue)", "orders": "count()"}
    rollup = Rollup("revenue", by=by, measures=measures, grain="day")
    by.append("x")
    measures["x"] = "nonsense"
    assert (rollup.by, rollup.measures, rollup.bucket_column) == (
        ("plan",),
        {"total": "sum(revenue)", "orders": "count()"},
        "date",
    )
    with pytest.raises(AttributeError):
        rollup.name = "other"


@pytest.mark.parametrize(
    ("text", "function", "column", "rank"),
    [
        ("count()", "count", "", None),
        (" COUNT ( ) ", "count", "", None),
        ("sum(revenue)", "sum", "revenue", None),
        ("sum( load time )", "sum", "load time", None),
        ('max("a ""b"", (c)")', "max", 'a "b", (c)', None),
        ("distinct(person_id)", "distinct", "person_id", None),
        ("quantile(x, 0.95)", "quantile", "x", 0.95),
        ('quantile("x,y",1)', "quantile", "x,y", 1.0),
    ],
)
def test_measures_are_read(text, function, column, rank):
    """The grammar of measures, with spaces and quoted names."""
    assert Expression.parse(text) == Expression(function, column, rank)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "count(x)",
        "sum()",
        "sum(x, 0.5)",
        "quantile(x)",
        "quantile(x, 1.5)",
        "quantile(x, -0.1)",
        "quantile(x, e)",
        "quantile(0.5)",
        "sum(x) + 1",
        "sum(x); DROP",
        'sum("x)',
        "sum(sum(x))",
        None,
        3,
    ],
)
def test_what_is_no_measure_is_refused(text):
    """Anything else raises InvalidRollup with the list of what is allowed."""
    with pytest.raises(InvalidRollup, match="Use"):
        Expression.parse(text)


def _rollups(tmp_path, *rollups):
    engine = SqlEngine(threads=1, memory_bytes=1 << 28)
    return Rollups(Storage(tmp_path / "s.db"), rollups, PROMOTIONS, engine, lambda *_: None, Settings())


@pytest.mark.parametrize("measure", ["sum(event)", "avg(tier)", "quantile(timestamp, 0.5)", "sum(paid)"])
def test_numbers_are_asked_of_number_columns_only(tmp_path, measure):
    """A measure that its column's type cannot give is refused, naming column and type."""
    with pytest.raises(InvalidRollup, match="needs a number"):
        _rollups(tmp_path, Rollup("r", measures={"m": measure}))


def test_two_rollups_of_one_name(tmp_path):
    """Names differ in more than case: SQL could not tell them apart."""
    with pytest.raises(InvalidRollup, match="two rollups"):
        _rollups(tmp_path, Rollup("r"), Rollup("R"))


@pytest.mark.integration
def test_declaring_imports_nothing_heavy(tmp_path):
    """`from lakebed import Rollup` must cost no DuckDB, datasketches or Arrow kernels."""
    code = """
import sys
from lakebed.rollups.rollup import Rollup
from lakebed.rollups.rollups import Rollups
Rollup("r", measures={"q": "quantile(x, 0.5)", "d": "distinct(x)"})
print([name for name in ("duckdb", "datasketches", "pyarrow.compute") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
