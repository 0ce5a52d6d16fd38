import json
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakebed.errors import PromotionConflict
from lakebed.events.decoding import decode_items
from lakebed.events.event import BASE_COLUMNS, Event
from lakebed.events.promotions import BUILT_IN, Promotion, as_promotions, property_sql, quoted, with_promoted
from tests.tiers.pipeline.logs import ENGINE


def promoted(documents, **kinds):
    texts = [document if isinstance(document, str) else json.dumps(document) for document in documents]
    table = pa.table({"properties": pa.array(texts, pa.string())})
    return with_promoted(table, as_promotions(kinds, known=()), ENGINE)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (str, ["x", 1, 1.5, True, None, "", {"a": 1}], ["x", "1", "1.5", "true", None, "", '{"a":1}']),
        (
            float,
            [1, 1.5, "2.5", "nan", "inf", "x", True, None, 1e308],
            [1, 1.5, 2.5, None, None, None, None, None, 1e308],
        ),
        (int, [1, -1, 1.0, "7", 1.5, "x", 2**63 - 1, 2**63, None], [1, -1, 1, 7, None, None, 2**63 - 1, None, None]),
        (bool, [True, False, "true", 1, "yes", None], [True, False, True, None, None, None]),
        (Decimal, ["1.25", 2, "x", None, 1e40], [Decimal("1.25"), 2, None, None, None]),
        (
            datetime,
            ["2026-01-01", "2026-01-01T02:00:00+02:00", "2026-01-01 00:00:00.123456Z", "no", None],
            [datetime(2026, 1, 1, tzinfo=UTC)] * 2 + [datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=UTC), None, None],
        ),
    ],
)
def test_values_that_do_not_convert_are_null(kind, values, expected):
    """A promoted column has the values that its type can hold, and NULL for each value that does not convert."""
    table = promoted([{"p": value} for value in values] + [{}], p=kind)
    assert table["p"].to_pylist() == [*expected, None]
    assert table.schema.field("p").type == Promotion("p", kind.__name__).arrow_type


def test_a_name_is_one_member_and_never_sql():
    """A name may hold spaces, dots and dollars, and is one top-level member: never a path, never SQL."""
    names = ["a.b", "a$", "a b", "select", "a-b"]
    table = promoted([{name: i for i, name in enumerate(names)} | {"a": {"b": 9}}], **dict.fromkeys(names, int))
    assert [table[name].to_pylist() for name in names] == [[0], [1], [2], [3], [4]]
    assert quoted('a"b') == '"a""b"'
    evil = promoted(['{"it\'s": 1, "q\\"": 2}'])
    for name, value in (("it's", "1"), ('q"', "2")):
        result = ENGINE.arrow(f"SELECT {property_sql(name)} AS v FROM input", input=evil)
        assert result["v"].to_pylist() == [value]


def test_only_missing_columns_are_computed():
    """Existing columns of a table are kept; many rows stay in order, too."""
    documents = [{"a": i, "b": -i} for i in range(20_000)]
    table = promoted(documents, a=int)
    marked = table.set_column(1, "a", pa.array([7] * len(documents), pa.int64()))
    both = with_promoted(marked, as_promotions({"a": int, "b": int}, known=()), ENGINE)
    assert set(both["a"].to_pylist()) == {7}
    assert both["b"].to_pylist() == [-i for i in range(20_000)]
    assert with_promoted(both, (), ENGINE) is both


def test_an_empty_table_gets_the_columns():
    """An empty table has the same columns and types, so that queries work alike."""
    table = promoted([], a=int, b=datetime)
    assert table.num_rows == 0
    assert table.schema.field("b").type == pa.timestamp("us", tz="UTC")


def test_built_in_promotions_come_first():
    """Properties of usage and performance are promoted by default, in a fixed order: field ids follow it."""
    assert [promotion.name for promotion in BUILT_IN] == [
        "quantity",
        "unit",
        "sku",
        "organization_id",
        "duration_ms",
        "status_code",
        "path",
        "method",
    ]
    assert as_promotions({"revenue": float}) == (*BUILT_IN, Promotion("revenue", "float"))
    assert as_promotions({"quantity": Decimal}) == BUILT_IN


@pytest.mark.parametrize(
    ("promote", "reason"),
    [
        ({"quantity": int}, "promoted as Decimal in this object"),
        ({"x": list}, "cannot be promoted as"),
        ({"x": "float"}, "cannot be promoted as"),
        ({"": str}, "cannot be promoted"),
        ({"a\n": str}, "cannot be promoted"),
        ({"1a": str}, "cannot be promoted"),
        ({'a"b': str}, "cannot be promoted"),
        ({"x" * 101: str}, "cannot be promoted"),
        ({"SKU": str}, "differ only in case"),
        ({"a": str, "A": str}, "differ only in case"),
        ({"person_id": str}, "cannot be promoted"),
        ({7: str}, "cannot be promoted"),
        *(({name.upper(): str}, "cannot be promoted") for name in BASE_COLUMNS),
    ],
)
def test_an_invalid_promotion_is_an_error(promote, reason):
    """Reserved, unusable or ambiguous names, unknown types, a second type for a known property: PromotionConflict."""
    with pytest.raises(PromotionConflict, match=reason):
        as_promotions(promote)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,40})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
NAMES = st.sampled_from(["f", "i", "b", "d", "t", "s"])
KINDS = {"f": float, "i": int, "b": bool, "d": Decimal, "t": datetime, "s": str}


@pytest.mark.integration
@settings(max_examples=60)
@given(st.lists(st.dictionaries(NAMES, JSON.map(json.dumps) | NUMBERS, max_size=4), min_size=1, max_size=12))
def test_valid_events_can_be_promoted(documents):
    """No valid event can make sealing fail: DuckDB reads every JSON object that Lakebed accepts."""
    objects = ["{" + ",".join(f'"{key}": {value}' for key, value in document.items()) + "}" for document in documents]
    body = "[" + ",".join('{"event":"e","properties":' + text + "}" for text in objects) + "]"
    admitted = [event for event in decode_items(body.encode("utf-8", "surrogatepass"), 0) if isinstance(event, Event)]
    table = promoted([bytes(event.properties).decode() for event in admitted], **KINDS)
    assert table.num_rows == len(admitted)
    for event, row in zip(admitted, table.to_pylist(), strict=True):
        properties = msgspec.json.decode(bytes(event.properties))
        if isinstance(properties.get("b"), bool):
            assert row["b"] is properties["b"]
        if type(properties.get("i")) is int and -(2**63) <= properties["i"] < 2**63:
            assert row["i"] == properties["i"]
        if isinstance(properties.get("f"), float):
            assert row["f"] == properties["f"]
        if isinstance(properties.get("s"), str):
            assert row["s"] == properties["s"]
