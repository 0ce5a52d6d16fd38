"""Reports: product analytics over one object, by name or as methods. The docstring of a report says what it counts."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Concatenate, ParamSpec

from lakebed.errors import QueryRefused
from lakebed.interface.signature import Signature
from lakebed.interface.verbs import VERBS
from lakebed.query.result import Result
from lakebed.reports.anomalies import anomalies
from lakebed.reports.arguments import MAX_ROWS, check_whole_number
from lakebed.reports.context import ReportContext
from lakebed.reports.errors import errors
from lakebed.reports.funnel import funnel, funnel_people, funnel_times
from lakebed.reports.lifecycle import lifecycle
from lakebed.reports.performance import performance
from lakebed.reports.retention import retention, stickiness
from lakebed.reports.scope import Parameters, Time
from lakebed.reports.segmentation import segmentation
from lakebed.reports.sessions import session_list, sessions
from lakebed.reports.timeline import timeline
from lakebed.reports.top import paths, top
from lakebed.reports.usage import usage

__all__ = ["REPORTS", "Reports", "signature_of"]


async def cohort_people(
    context: ReportContext, cohort: str, *, limit: int = 100, after: str | None = None, as_of: Time | None = None
) -> Result:
    """Rows `person_id, first_seen, last_seen, events`: the people of a saved cohort, in order of their ids.

    Args:
        cohort: name of the cohort.
        limit: largest number of rows, up to 10,000.
        after: `person_id` of the last row of the page before: only people who come after it.
        as_of: moment of the answer: the cohort as it was defined then, and the people as they were then.
    """
    check_whole_number("limit", limit, MAX_ROWS)
    scope = await context.scope(cohort=cohort, as_of=as_of)
    bind = Parameters()
    later = "" if after is None else f" AND person_id > {bind(after)}"
    sql = f"""
        SELECT person_id, min(timestamp) AS first_seen, max(timestamp) AS last_seen, count(*) AS events
        FROM events WHERE {scope.condition(bind)}{later} GROUP BY person_id ORDER BY person_id LIMIT {bind(limit)}
    """
    return await context.rows(sql, bind, scope, report="cohort_people")


async def cohort_size(context: ReportContext, cohort: str, *, as_of: Time | None = None) -> Result:
    """One row `people`: the number of people in a saved cohort.

    Args:
        cohort: name of the cohort.
        as_of: moment of the answer: the cohort as it was defined then, and the people as they were then.
    """
    scope = await context.scope(cohort=cohort, as_of=as_of)
    bind = Parameters()
    sql = f"SELECT count(DISTINCT person_id) AS people FROM events WHERE {scope.condition(bind)}"
    return await context.rows(sql, bind, scope, report="cohort_size")


Report = Callable[..., Awaitable[Result]]

_REPORTS: tuple[Report, ...] = (
    *(funnel, funnel_people, funnel_times),
    *(retention, lifecycle, stickiness),
    *(sessions, session_list),
    *(segmentation, top, paths, timeline, anomalies),
    *(performance, errors),
    *(cohort_people, cohort_size),
    usage,
)
REPORTS: Mapping[str, Report] = {report.__name__: report for report in _REPORTS}
"""Reports by name. Each takes a `ReportContext` and arguments; Python, HTTP, RPC, CLI and MCP offer its signature."""


@functools.cache
def signature_of(name: str) -> Signature:
    """The signature of a report with only the arguments that the catalogue of verbs (`VERBS`) lists.

    Raises:
        KeyError: there is no report of that name.
    """
    return Signature.of(name, REPORTS[name], only=VERBS[name].arguments)


_Arguments = ParamSpec("_Arguments")


def _method(
    report: Callable[Concatenate[ReportContext, _Arguments], Awaitable[Result]],
) -> Callable[Concatenate[Reports, _Arguments], Awaitable[Result]]:
    """A method of `Reports` with the arguments of `report`, except its context."""

    @functools.wraps(report)
    async def method(self: Reports, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Result:
        return await report(self.context, *args, **kwargs)

    return method


class Reports:
    """The reports of one object. docs/reports says what each counts.

    Args:
        context: context for arguments that come from the app; their SQL is trusted.
        untrusted: context for arguments that came over the network.
    """

    def __init__(self, context: ReportContext, untrusted: ReportContext) -> None:
        self.context = context
        self._untrusted = untrusted

    funnel = _method(funnel)
    funnel_people = _method(funnel_people)
    funnel_times = _method(funnel_times)
    retention = _method(retention)
    lifecycle = _method(lifecycle)
    stickiness = _method(stickiness)
    sessions = _method(sessions)
    session_list = _method(session_list)
    segmentation = _method(segmentation)
    top = _method(top)
    paths = _method(paths)
    timeline = _method(timeline)
    anomalies = _method(anomalies)
    performance = _method(performance)
    errors = _method(errors)
    cohort_people = _method(cohort_people)
    cohort_size = _method(cohort_size)
    usage = _method(usage)

    async def report_untrusted(self, name: str, arguments: Mapping[str, Any]) -> Result:
        """The report `name` with untrusted arguments: their SQL conditions run in the sandbox of `query_untrusted`.

        Raises:
            QueryRefused: there is no such report, or it does not take these arguments. Also the errors of the report.
        """
        report = REPORTS.get(name)
        if report is None:
            raise QueryRefused(f"there is no report {name[:40]!r}", hint=f"There are {', '.join(REPORTS)}")
        try:
            bound = signature_of(name).bind([], arguments)
        except (TypeError, ValueError) as error:
            hint = f"docs/reports/{name.replace('_', '-')}.md lists the arguments of {name}"
            raise QueryRefused(str(error), hint=hint) from error
        return await report(self._untrusted, **bound)
