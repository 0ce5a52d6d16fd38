"""Reporting: the verbs of product analytics. What each counts, and how, its file in query/ says."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

from lakebed.assembled import Assembled
from lakebed.definitions.definitions import Definition, Definitions
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

__all__ = ["Reporting"]

_P = ParamSpec("_P")
_S = TypeVar("_S", bound=Assembled)


def _verb(
    report: Callable[Concatenate[ReportContext, _P], Awaitable[Result]],
) -> Callable[Concatenate[_S, _P], Awaitable[Result]]:
    """The report as a method: the same arguments, without the inquiry."""

    @functools.wraps(report)
    async def verb(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> Result:
        return await report(self._up.inquiry, *args, **kwargs)

    verb.__signature__ = _of_method(report)  # type: ignore[attr-defined]  # what inspect.signature looks at
    return verb


def _of_method(report: Callable[..., Any]) -> inspect.Signature:
    signature = inspect.signature(report, eval_str=True)
    _, *others = signature.parameters.values()
    this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    return signature.replace(parameters=[this, *others])


class Reporting(Assembled):
    """The reports of an Analytics object. docs/definitions.md says what each counts."""

    funnel = _verb(funnel)
    funnel_people = _verb(funnel_people)
    funnel_times = _verb(funnel_times)
    retention = _verb(retention)
    lifecycle = _verb(lifecycle)
    stickiness = _verb(stickiness)
    sessions = _verb(sessions)
    session_list = _verb(session_list)
    segmentation = _verb(segmentation)
    top = _verb(top)
    paths = _verb(paths)
    timeline = _verb(timeline)
    anomalies = _verb(anomalies)
    performance = _verb(performance)
    errors = _verb(errors)
    cohort_people = _verb(cohort_people)
    cohort_size = _verb(cohort_size)
    usage = _verb(usage)

    @property
    def definitions(self) -> Definitions:
        """What was saved under names, with all its versions: cohorts and price books, for example."""
        return self._up.definitions

    async def save_cohort(self, name: str, definition: Mapping[str, Any], *, strange: bool = False) -> Definition:
        """Save people by what they did and who they are under a name: the `cohort=` of every report.

        `CohortReader` has the form of a definition, docs/cohorts.md explains it. It is read anew for every report, so
        people come and go; its versions stay, for `as_of`.

        Args:
            name: of the cohort; saving it again makes a new version.
            definition: plain values.
            strange: it came from a stranger: the SQL in it always runs in the sandbox.

        Raises:
            QueryRefused, QueryError: it cannot be read; says where.
            InvalidDefinition: the name is none, or the definition too large.
        """
        return await self._up.cohorts.save(self._up.inquiry, name, definition, strange=strange)

    async def cohorts(self) -> list[Definition]:
        """The saved cohorts, by name; their definitions are in `body["definition"]`."""
        return await self._up.cohorts.all()

    async def cohort(self, name: str) -> Definition:
        """One saved cohort. `cohort_size` counts its people. Raises InvalidDefinition: there is none."""
        return await self._up.cohorts.one(name)

    async def delete_cohort(self, name: str) -> Definition:
        """Let a cohort go. Reports as of an earlier time still know it.

        Raises:
            InvalidDefinition: there is none, or other cohorts are made of it.
        """
        return await self._up.cohorts.delete(name)

    async def report_untrusted(self, name: str, arguments: Mapping[str, Any]) -> Result:
        """The same answer to arguments that a stranger gave: conditions in SQL run in the sandbox of `query_untrusted`.

        Raises:
            QueryRefused: there is no such report, or it does not take these arguments; and what the report raises.
        """
        report = REPORTS.get(name)
        if report is None:
            raise QueryRefused(f"there is no report {name[:40]!r}", hint=f"There are {', '.join(REPORTS)}")
        try:
            given = signature_of(name).bind([], arguments)
        except (TypeError, ValueError) as error:
            raise QueryRefused(str(error), hint=f"docs/definitions.md says what {name} takes") from error
        return await report(self._up.stranger, **given)
