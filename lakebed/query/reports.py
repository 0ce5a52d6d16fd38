"""The reports, by name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from lakebed.query.funnel import funnel
from lakebed.query.funnel_people import funnel_people
from lakebed.query.result import Result

__all__ = ["REPORTS", "Report"]

Report = Callable[..., Awaitable[Result]]

REPORTS: Mapping[str, Report] = {
    "funnel": funnel,
    "funnel_people": funnel_people,
}
"""Each takes an `Inquiry` and its arguments. Their signatures are what Python, HTTP, RPC, CLI and MCP offer."""
