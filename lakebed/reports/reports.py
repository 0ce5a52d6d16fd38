"""Reports: product analytics over one object. The file of each report says what it counts, and how."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Concatenate, ParamSpec

from lakebed.errors import QueryRefused
from lakebed.query.result import Result
from lakebed.reports.anomalies import anomalies
from lakebed.reports.catalog import REPORTS, signature_of
from lakebed.reports.cohort_people import cohort_people, cohort_size
from lakebed.reports.context import ReportContext
from lakebed.reports.errors import errors
from lakebed.reports.funnel import funnel
from lakebed.reports.funnel_people import funnel_people
from lakebed.reports.funnel_times import funnel_times
from lakebed.reports.lifecycle import lifecycle
from lakebed.reports.paths import paths
from lakebed.reports.performance import performance
from lakebed.reports.retention import retention
from lakebed.reports.segmentation import segmentation
from lakebed.reports.session_list import session_list
from lakebed.reports.sessions import sessions
from lakebed.reports.stickiness import stickiness
from lakebed.reports.timeline import timeline
from lakebed.reports.top import top
from lakebed.reports.usage import usage

__all__ = ["Reports"]

_Arguments = ParamSpec("_Arguments")


def _method(
    report: Callable[Concatenate[ReportContext, _Arguments], Awaitable[Result]],
) -> Callable[Concatenate[Reports, _Arguments], Awaitable[Result]]:
    """The report as a method: the same arguments, without the context."""

    @functools.wraps(report)
    async def method(self: Reports, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Result:
        return await report(self.context, *args, **kwargs)

    method.__signature__ = _signature_of_method(report)  # type: ignore[attr-defined]  # what inspect.signature reads
    return method


def _signature_of_method(report: Callable[..., Any]) -> inspect.Signature:
    signature = inspect.signature(report, eval_str=True)
    _, *others = signature.parameters.values()
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    return signature.replace(parameters=[this, *others])


class Reports:
    """The reports of one object. docs/reports says what each counts.

    Args:
        context: for arguments of the app, whose SQL is trusted.
        untrusted: for arguments that came over the network.
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
        """The same answer to untrusted arguments: conditions in SQL run in the sandbox of `query_untrusted`.

        Raises:
            QueryRefused: there is no such report, or it does not take these arguments; and what the report raises.
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
