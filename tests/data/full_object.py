"""The object of `make_full_object.py`: its class, how it is opened, and its answers as JSON. Public names only."""

import asyncio
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal

import msgspec
import pyarrow as pa

from lakebed import Analytics, Result, Rollup, every

NAME = "store"
# Relative, so that the file paths in Iceberg's metadata are valid in whatever directory the test works.
WAREHOUSE = f"{NAME}/archive/warehouse"
SETTINGS = {
    "warehouse": WAREHOUSE,
    "headroom_bytes": 0,
    "retention_s": 0.0,
    "segment_age_s": 1800.0,
    "snapshots_keep": 20,
    "identity_email": True,
}
PROMOTE = {"revenue": float, "plan": str, "items": int, "gift": bool, "price": Decimal, "due": datetime}


class Store(Analytics):
    """An object class with rollups and a schedule of its own."""

    sales = Rollup(
        "sales",
        by=["plan"],
        measures={
            "n": "count()",
            "total": "sum(revenue)",
            "people": "distinct(person_id)",
            "p": "quantile(revenue, 0.5)",
        },
        grain="day",
        timezone="Europe/Berlin",
    )
    busy = Rollup(
        "busy",
        by=["path", "status_code"],
        measures={"n": "count()", "mean": "avg(duration_ms)", "most": "max(duration_ms)", "least": "min(duration_ms)"},
        where="duration_ms IS NOT NULL",
    )

    @every.day.at("6am")
    async def greet(self):
        """Track one event, so that a run can be counted."""
        await self.track("Greeted", {"by": "schedule"}, anonymous_id="robot")


def opened(clock, **settings):
    """The object in the working directory."""
    return Store(NAME, root=".", clock=clock, promote=PROMOTE, **(SETTINGS | settings))


# Facts of the machine, of memory and of the wording of documentation: not answers about events.
PASSED_OVER = {
    "tiers": {"disk", "storage_bytes", "tail_bytes"},
    "vitals": {"log_bytes", "tail_bytes", "lag"},
    "templates": {"title", "description", "about", "sql"},
}


def plain(value, without=frozenset()):
    """A value as JSON. A mapping becomes a list of pairs, because its order counts; a struct becomes an object."""
    for kind, convert in _AS_JSON:
        if isinstance(value, kind):
            return convert(value, without)
    return value


def _result(value, _):
    rows = [[plain(cell) for cell in row] for row in value]
    return {"columns": value.columns, "rows": rows, "seq": list(value.seq), "tiers": list(value.tiers)}


def _table(value, _):
    rows = [[plain(cell) for cell in row.values()] for row in value.to_pylist()]
    return {"columns": value.column_names, "rows": rows}


def _struct(value, without):
    return {name: plain(getattr(value, name), without) for name in value.__struct_fields__ if name not in without}


_AS_JSON = (
    (Result, _result),
    (pa.Table, _table),
    (msgspec.Struct, _struct),
    (Mapping, lambda value, without: [[key, plain(item, without)] for key, item in value.items()]),
    (list | tuple | set | frozenset, lambda value, without: [plain(item, without) for item in value]),
    (bytes, lambda value, _: value.decode("utf-8", "backslashreplace")),
    (date | Decimal | timedelta, lambda value, _: str(value)),
)


async def answer(store, verb, arguments):
    """What the object answers to a verb, as JSON."""
    function = store
    for name in verb.split("."):
        function = getattr(function, name)
    value = function(**arguments) if callable(function) else function
    if asyncio.iscoroutine(value):
        value = await value
    return plain(value, PASSED_OVER.get(verb, frozenset()))
