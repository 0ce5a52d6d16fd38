"""The reports, by name. `charts/chart_types.py` has the same names: how each is drawn."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping

from lakebed.interface.signature import Signature
from lakebed.interface.verbs import VERBS
from lakebed.query.result import Result
from lakebed.reports.anomalies import anomalies
from lakebed.reports.cohort_people import cohort_people, cohort_size
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

__all__ = ["REPORTS", "Report", "signature_of"]

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
"""Each takes a `ReportContext` and its arguments. Their signatures are the verbs of Python, HTTP, RPC, CLI and MCP."""


@functools.cache
def signature_of(name: str) -> Signature:
    """The arguments that a report takes from outside, as the catalogue of verbs lists them.

    Raises:
        KeyError: there is no report of that name.
    """
    return Signature.of(name, REPORTS[name], only=VERBS[name].arguments)
