"""Usage: the quantity of each product that organisations used, summed exactly, by calendar period."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal

import pyarrow as pa

from lakebed.query.result import Result
from lakebed.reports.calendar import Calendar, Grain, WeekStart
from lakebed.reports.context import ReportContext
from lakebed.reports.scope import Parameters, Time

__all__ = ["usage"]

_GRAINS = ("hour", "day", "week", "month")
_QUANTITY = pa.decimal128(38, 9)
# DuckDB's decimals end at 38 digits, so it cannot add quantities that have as many. It adds two parts of each: the
# digits before this place and the 19 behind it, which leaves room for as many events as there can be. Dividing is slow,
# but nearly all quantities are below it.
_PLACE = 10**10
_HIGH = f"CASE WHEN abs(quantity) < {_PLACE} THEN 0 ELSE CAST(trunc(quantity) AS HUGEINT) // {_PLACE} END"
_LOW = f"CASE WHEN abs(quantity) < {_PLACE} THEN quantity ELSE quantity % {_PLACE} END"


async def usage(
    context: ReportContext,
    *,
    organization_id: str | None = None,
    sku: str | None = None,
    grain: Grain | None = "month",
    start: Time | None = None,
    end: Time | None = None,
    where: str | None = None,
    tz: str = "UTC",
    week_start: WeekStart = "monday",
    as_of: Time | None = None,
) -> Result:
    """Rows `time, organization_id, sku, unit, quantity, events`: exact sums; quantities are decimals, never floats.

    An event is usage if it has the properties `quantity` (a number or text of at most 29 digits and 9 decimals) and
    `sku`. Units are never converted: each has rows of its own. Without an organisation, `organization_id` is NULL.

    Args:
        organization_id: id of an organisation; by default all.
        sku: name of a product; by default all.
        grain: length of a period: hour, day, week or month; None gives one row for all, without `time`.
        start: first moment of the range, included; None is no bound.
        end: end of the range, excluded; None is no bound.
        where: SQL condition over the columns of `events`.
        tz: IANA name of the time zone of days, weeks and months.
        week_start: first day of a week: monday, sunday or saturday.
        as_of: moment of the answer: only events received up to then count.
    """
    calendar = Calendar.of(tz, week_start, grain or "month", _GRAINS)
    scope = await context.scope(start=start, end=end, where=where, as_of=as_of)
    bind = Parameters()
    condition = "quantity IS NOT NULL AND sku IS NOT NULL"
    condition += "" if organization_id is None else f" AND organization_id = {bind(organization_id)}"
    condition += "" if sku is None else f" AND sku = {bind(sku)}"
    number = "0" if grain is None else calendar.number(grain, "timestamp")
    time = "" if grain is None else f"{calendar.start(grain, 'n')} AS time, "
    sql = f"""
        SELECT {time}organization_id, sku, unit, high, low, events FROM (
            SELECT {number} AS n, organization_id, sku, coalesce(unit, '') AS unit,
                sum({_HIGH}) AS high, sum({_LOW}) AS low, count(*) AS events
            FROM events WHERE {condition} AND {scope.condition(bind)} GROUP BY ALL
        ) ORDER BY n, organization_id NULLS LAST, sku, unit
    """
    result = await context.rows(sql, bind, scope, report="usage")
    return result.named("usage", _joined(result.arrow()))


def _joined(table: pa.Table) -> pa.Table:
    """`table` with `quantity` instead of its parts `high` and `low`: a DECIMAL(38, 9), unless a sum has more digits."""
    import pyarrow.compute as pc  # a quarter of the time that importing pyarrow takes

    high, quantity = table["high"], table["low"]
    if not pc.all(pc.equal(high, 0)).as_py():
        place = pa.scalar(Decimal(_PLACE), pa.decimal256(11, 0))
        quantity = pc.add(pc.multiply(high.cast(pa.decimal256(38, 0)), place), quantity.cast(pa.decimal256(38, 9)))
        with suppress(pa.ArrowInvalid):  # more than 29 digits before the point
            quantity = quantity.cast(_QUANTITY)
    position = table.column_names.index("high")
    return table.set_column(position, "quantity", quantity).remove_column(position + 1)
