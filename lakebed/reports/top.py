"""Top: the most frequent events, pages or values of a property; and paths: the events before or after an event."""

from __future__ import annotations

from lakebed.errors import QueryRefused
from lakebed.events.promotions import column_sql
from lakebed.query.result import Result
from lakebed.query.router import HOURLY
from lakebed.reports.arguments import MAX_ROWS, OTHER, Duration, check_name, check_whole_number, duration_us
from lakebed.reports.context import ReportContext
from lakebed.reports.scope import EventFilter, EventLike, Parameters, Time

__all__ = ["paths", "top"]


async def top(
    context: ReportContext,
    what: str = "event",
    *,
    n: int = 10,
    people: bool = True,
    other: bool = False,
    event: EventLike | None = None,
    start: Time | None = None,
    end: Time | None = None,
    where: str | None = None,
    cohort: str | None = None,
    as_of: Time | None = None,
) -> Result:
    """Rows `value, count, people, share`: the most frequent values, and their share of all events that have a value.

    Values with equal counts are in order of their text. Events without a value do not count. `share` is a fraction of
    all events with a value, values without a row included; with `other` the shares add up to 1.

    Args:
        what: name of a column, a promoted column or a property, read as text.
        n: largest number of rows, up to 10,000.
        people: whether to count people, too. If not, names of events come from the hourly rollup, however long the
            history is.
        other: whether to add a last row "(other)" for all values without a row of their own, if there are any.
        event: events to count; by default all.
        start: first moment of the range, included; None is no bound.
        end: end of the range, excluded; None is no bound.
        where: SQL condition over the columns of `events`.
        cohort: name of a saved cohort; only its people count.
        as_of: moment of the answer: only events received up to then count.
    """
    check_whole_number("n", n, MAX_ROWS)
    check_name("what", what)
    selection = EventFilter.of(event)
    scope = await context.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, filters=(selection,))
    bind = Parameters()
    is_rolled_up = what == "event" and not people and selection.where is None
    hours = await context.hours(scope) if is_rolled_up else None
    if hours is not None:
        source, count, condition = HOURLY, "CAST(sum(count) AS BIGINT)", selection.condition(bind)
    else:
        source, count = "events", "count(*)"
        condition = f"{selection.condition(bind)} AND {scope.condition(bind)}"
    column = f"CAST({column_sql(what, context.promotions)} AS VARCHAR)"
    counted = f"FROM {source} WHERE {condition} AND {column} IS NOT NULL"
    rest = ""
    if other:
        # A person may have several of the other values, so people are counted anew.
        people_sql = f"(SELECT count(DISTINCT person_id) {counted} AND {column} NOT IN (SELECT value FROM best)), "
        rest = f"""UNION ALL
            SELECT {bind(OTHER)}, CAST(sum(count) AS BIGINT), {people_sql if people else ""}
                sum(count) / (SELECT sum(count) FROM counts), true
            FROM counts ANTI JOIN best USING (value) HAVING count(*) > 0"""
    sql = f"""
        WITH counts AS (
            SELECT {column} AS value, {count} AS count{", count(DISTINCT person_id) AS people" if people else ""}
            {counted} GROUP BY ALL
        ), best AS (
            SELECT *, count / sum(count) OVER () AS share, false AS is_rest FROM counts
            ORDER BY count DESC, value LIMIT {bind(n)}
        )
        SELECT * EXCLUDE (is_rest) FROM (FROM best {rest}) ORDER BY is_rest, count DESC, value
    """
    return await context.rows(sql, bind, scope, report="top", tables=hours)


_MAX_STEPS = 20
_MAX_TOP = 100
_END, _START = "(end)", "(start)"


async def paths(
    context: ReportContext,
    *,
    after: EventLike | None = None,
    before: EventLike | None = None,
    by: str = "event",
    steps: int = 4,
    top: int = 8,
    collapse: bool = False,
    timeout: Duration = "30m",  # noqa: ASYNC109 - of a visit, not of this call
    start: Time | None = None,
    end: Time | None = None,
    where: str | None = None,
    cohort: str | None = None,
    as_of: Time | None = None,
) -> Result:
    """Rows `step, source, target, people, count`: how many sessions went from one event to the next.

    Each session (as in `sessions`: one that began before `start` is left out whole) gives one path: from its first
    event, or from the first event of `after`, the next `steps` events; or the `steps` events that lead to the last
    event of `before`. A session without that event gives none. If a session ends, its path goes on to "(end)"; a path
    that leads to its beginning comes from "(start)". The paths that enter an event at one step leave it at the next.

    Args:
        after: event that paths begin with.
        before: event that paths end with; not together with `after`.
        by: name of the nodes: "event" (the name of an event, or its type where it has none), or a column or property,
            such as the path of a page; events without a value are ignored.
        steps: number of links of a path, up to 20.
        top: number of events that are shown at each step, up to 100: those of most sessions; the rest is "(other)".
        collapse: whether the same event several times in a row is one.
        timeout: longest gap within a session.
        start: first moment at which a session may begin, included; None is no bound.
        end: end of the events that are read, excluded; None is no bound.
        where: SQL condition over the columns of `events`; other events are ignored.
        cohort: name of a saved cohort; only its people count.
        as_of: moment of the answer: only events received up to then count.
    """
    check_whole_number("steps", steps, _MAX_STEPS)
    check_whole_number("top", top, _MAX_TOP)
    if after is not None and before is not None:
        raise QueryRefused("`after` and `before` cannot be combined", hint="Give one: paths begin or end with an event")
    check_name("by", by)
    anchor = EventFilter.of(after, "after") if before is None else EventFilter.of(before, "before")
    longest = duration_us("timeout", timeout)
    scope = await context.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of, filters=(anchor,))
    bind = Parameters()
    node = "coalesce(event, type)" if by == "event" else f"CAST({column_sql(by, context.promotions)} AS VARCHAR)"
    if before is None:
        order, neighbour, source, target, beyond = "us, seq", "lag", "a", "b", _END
        shown = "k"
    else:
        order, neighbour, source, target, beyond = "us DESC, seq DESC", "lead", "b", "a", _START
        shown = f"{bind(steps)} - k + 1"
    # Events shortly before `start` show whether a session began before it.
    since = None if scope.start_us is None else scope.start_us - longest
    within = "true" if scope.start_us is None else f"visit >= {bind(scope.start_us)}"
    repeated = "AND (NOT coalesce(went_on, false) OR name <> neighbour)" if collapse else ""
    sql = f"""
        WITH stepped AS (
            SELECT *, coalesce(us - lag(us) OVER own > {bind(longest)}, true) AS begins,
                {neighbour}(name) OVER own AS neighbour
            FROM (
                SELECT person_id, seq, epoch_us(timestamp) AS us, {node} AS name,
                    coalesce({anchor.condition(bind)}, false) AS is_anchor FROM events
                WHERE person_id IS NOT NULL AND {node} IS NOT NULL AND {scope.condition(bind, since_us=since)}
            ) WINDOW own AS (PARTITION BY person_id ORDER BY us, seq)
        ), visits AS (
            SELECT *, max(CASE WHEN begins THEN us END) OVER (
                PARTITION BY person_id ORDER BY us, seq ROWS UNBOUNDED PRECEDING) AS visit FROM stepped
        ), reached AS (
            SELECT *, max(is_anchor) OVER (way ROWS UNBOUNDED PRECEDING) AS is_on,
                max(is_anchor) OVER (way ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS went_on
            FROM visits WHERE {within} WINDOW way AS (PARTITION BY person_id, visit ORDER BY {order})
        ), placed AS (
            SELECT person_id, visit, name, row_number() OVER (PARTITION BY person_id, visit ORDER BY {order}) AS nth
            FROM reached WHERE is_on {repeated}
        ), ways AS (
            SELECT person_id, list(name ORDER BY nth) AS way FROM placed WHERE nth <= {bind(steps + 1)}
            GROUP BY person_id, visit
        ), nodes AS (
            SELECT person_id, way, unnest(generate_series(1, len(way))) AS k FROM ways
        ), best AS (
            SELECT k, name FROM (SELECT k, way[k] AS name, count(*) AS n FROM nodes GROUP BY ALL)
            QUALIFY row_number() OVER (PARTITION BY k ORDER BY n DESC, name) <= {bind(top)}
        ), links AS (
            SELECT person_id, nodes.k, if(source.name IS NULL, {bind(OTHER)}, way[nodes.k]) AS a,
                CASE WHEN nodes.k = len(way) THEN {bind(beyond)} WHEN target.name IS NULL THEN {bind(OTHER)}
                    ELSE way[nodes.k + 1] END AS b
            FROM nodes LEFT JOIN best AS source ON source.k = nodes.k AND source.name = way[nodes.k]
            LEFT JOIN best AS target ON target.k = nodes.k + 1 AND target.name = way[nodes.k + 1]
            WHERE nodes.k <= {bind(steps)}
        )
        SELECT {shown} AS step, {source} AS source, {target} AS target,
            count(DISTINCT person_id) AS people, count(*) AS count
        FROM links GROUP BY ALL ORDER BY step, count DESC, source, target
    """
    return await context.rows(sql, bind, scope, report="paths")
