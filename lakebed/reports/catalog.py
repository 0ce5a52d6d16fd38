"""The reports, by name."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping

from lakebed.query.anomalies import anomalies
from lakebed.query.cohort_people import cohort_people, cohort_size
from lakebed.query.failures import errors
from lakebed.query.funnel import funnel
from lakebed.query.funnel_people import funnel_people
from lakebed.query.funnel_times import funnel_times
from lakebed.query.lifecycle import lifecycle
from lakebed.query.paths import paths
from lakebed.query.performance import performance
from lakebed.query.result import Result
from lakebed.query.retention import retention
from lakebed.query.segmentation import segmentation
from lakebed.query.session_list import session_list
from lakebed.query.sessions import sessions
from lakebed.query.stickiness import stickiness
from lakebed.query.timeline import timeline
from lakebed.query.top import top
from lakebed.query.usage import usage
from lakebed.signature import Signature

__all__ = ["REPORTS", "Report", "signature_of"]

Report = Callable[..., Awaitable[Result]]

REPORTS: Mapping[str, Report] = {
    "funnel": funnel,
    "funnel_people": funnel_people,
    "funnel_times": funnel_times,
    "retention": retention,
    "lifecycle": lifecycle,
    "stickiness": stickiness,
    "sessions": sessions,
    "session_list": session_list,
    "segmentation": segmentation,
    "top": top,
    "paths": paths,
    "timeline": timeline,
    "anomalies": anomalies,
    "performance": performance,
    "errors": errors,
    "cohort_people": cohort_people,
    "cohort_size": cohort_size,
    "usage": usage,
}
"""Each takes an `Inquiry` and its arguments. Their signatures are what Python, HTTP, RPC, CLI and MCP offer."""


@functools.cache
def signature_of(name: str) -> Signature:
    """What a report takes, but for the inquiry. Raises KeyError: there is none of that name."""
    return Signature.of(name, REPORTS[name], without={"inquiry"})
