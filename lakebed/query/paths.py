"""Paths: what people did after, or before, an event, step by step: the data of a Sankey diagram."""

from __future__ import annotations

from lakebed.errors import QueryRefused
from lakebed.query.binder import Binder
from lakebed.query.duration import Duration, duration_us
from lakebed.query.inquiry import Inquiry
from lakebed.query.result import Result
from lakebed.query.scope import Time

__all__ = ["paths"]

_MOST_STEPS = 20
_MOST_TOP = 100
OTHER, END, START = "(other)", "(end)", "(start)"


async def paths(
    inquiry: Inquiry,
    *,
    after: str | None = None,
    before: str | None = None,
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

    Each session (as in `sessions`) gives one path: from its first event, or from the first one called `after`, the next
    `steps` events; or the `steps` events that lead to its last one called `before`. A session without that event gives
    none. Where a session ends, its path goes on to "(end)"; before its beginning it comes from "(start)". What enters
    an event at one step leaves it at the next.

    Args:
        after: the name of the event that paths begin with.
        before: the name of the event that paths end with; not both.
        steps: links of a path.
        top: so many events are shown of each step, those with the most sessions; the others are one, "(other)".
        collapse: the same event several times in a row is one.
        timeout: the longest gap within a session.
        start: events from here on; None is no bound, like `end`.
        end: events before it.
        where: SQL over the columns of `events`; the others are as if they had never been.
        cohort: only people of this saved cohort.
        as_of: only what was received up to then.
    """
    for name, value, most in (("steps", steps, _MOST_STEPS), ("top", top, _MOST_TOP)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise QueryRefused(f"{name} is {str(value)[:40]!r}", hint=f"Give 1 to {most}")
    if after is not None and before is not None:
        raise QueryRefused("after and before were both given", hint="Paths begin with an event or end with one")
    longest = duration_us("timeout", timeout)
    scope = await inquiry.scope(start=start, end=end, where=where, cohort=cohort, as_of=as_of)
    bind = Binder()
    anchor = after if before is None else before
    named = "1" if anchor is None else f"CASE WHEN name = {bind(anchor)} THEN nth END"
    anchored = f"{'min' if before is None else 'max'}({named}) OVER visit"
    if before is None:
        kept, order, source, target, beyond = "nth >= anchor", "nth", "a", "b", END
        shown = "k"
    else:
        kept, order, source, target, beyond = "nth <= anchor", "nth DESC", "b", "a", START
        shown = f"{bind(steps)} - k + 1"
    repeated = "WHERE begins OR name IS DISTINCT FROM before_name" if collapse else ""
    sql = f"""
        WITH stepped AS (
            SELECT *, lag(us) OVER own AS before_us, lag(name) OVER own AS before_name FROM (
                SELECT person_id, seq, epoch_us(timestamp) AS us, coalesce(event, type) AS name FROM events
                WHERE person_id IS NOT NULL AND {scope.condition(bind)}
            ) WINDOW own AS (PARTITION BY person_id ORDER BY us, seq)
        ), edges AS (
            SELECT *, before_us IS NULL OR us - before_us > {bind(longest)} AS begins FROM stepped
        ), visits AS (
            SELECT *, sum(CAST(begins AS BIGINT)) OVER (
                PARTITION BY person_id ORDER BY us, seq ROWS UNBOUNDED PRECEDING) AS visit FROM edges
        ), counted AS (
            SELECT person_id, visit, name, row_number() OVER (PARTITION BY person_id, visit ORDER BY us, seq) AS nth
            FROM visits {repeated}
        ), anchors AS (
            SELECT *, {anchored} AS anchor FROM counted WINDOW visit AS (PARTITION BY person_id, visit)
        ), ways AS (
            SELECT person_id, list(name ORDER BY {order}) AS way FROM anchors
            WHERE {kept} AND abs(nth - anchor) <= {bind(steps)} GROUP BY person_id, visit
        ), nodes AS (
            SELECT person_id, way, unnest(generate_series(1, len(way))) AS k FROM ways
        ), best AS (
            SELECT k, name FROM (SELECT k, way[k] AS name, count(*) AS n FROM nodes GROUP BY ALL)
            QUALIFY row_number() OVER (PARTITION BY k ORDER BY n DESC, name) <= {bind(top)}
        ), links AS (
            SELECT person_id, nodes.k, if(one.name IS NULL, {bind(OTHER)}, way[nodes.k]) AS a,
                CASE WHEN nodes.k = len(way) THEN {bind(beyond)} WHEN two.name IS NULL THEN {bind(OTHER)}
                    ELSE way[nodes.k + 1] END AS b
            FROM nodes LEFT JOIN best one ON one.k = nodes.k AND one.name = way[nodes.k]
            LEFT JOIN best two ON two.k = nodes.k + 1 AND two.name = way[nodes.k + 1]
            WHERE nodes.k <= {bind(steps)}
        )
        SELECT {shown} AS step, {source} AS source, {target} AS target,
            count(DISTINCT person_id) AS people, count(*) AS count
        FROM links GROUP BY ALL ORDER BY step, count DESC, source, target
    """
    return await inquiry.rows(sql, bind, scope, report="paths")
