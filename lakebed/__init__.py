"""Lakebed: product analytics that you import.

Events settle through four tiers; every answer is exact, survives a crash, and says which tiers it came from.
`docs/reading-the-source.md` says where to begin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lakebed import errors
from lakebed.analytics import Analytics
from lakebed.clock import Clock, ManualClock, SystemClock
from lakebed.disk import Disk
from lakebed.errors import *
from lakebed.errors import UnknownDeadLetter
from lakebed.events.event import Event, Receipt
from lakebed.identity.merge import Merge
from lakebed.identity.person import Person
from lakebed.ingest.dead_letters import Replayed
from lakebed.monitoring.check import Problem
from lakebed.monitoring.live_snapshot import LiveSnapshot, Stats
from lakebed.monitoring.tier_status import TierStatus
from lakebed.objects.durable_object import DurableObject, Namespace
from lakebed.query.result import Result, Row
from lakebed.rollups.rollup import Rollup
from lakebed.scheduling.schedule import every
from lakebed.settings import Settings
from lakebed.tiers.storage.dead_letters import DeadLetter

# Names of earlier versions.
Inventory = TierStatus
Pulse = LiveSnapshot
UnknownLetter = UnknownDeadLetter

if TYPE_CHECKING:
    from lakebed.integrations.asgi import TrackRequests
    from lakebed.objects.sync import connect

__all__ = [
    "Analytics",
    "Clock",
    "DeadLetter",
    "Disk",
    "DurableObject",
    "Event",
    "Inventory",
    "LiveSnapshot",
    "ManualClock",
    "Merge",
    "Namespace",
    "Person",
    "Problem",
    "Pulse",
    "Receipt",
    "Replayed",
    "Result",
    "Rollup",
    "Row",
    "Settings",
    "Stats",
    "SystemClock",
    "TierStatus",
    "TrackRequests",
    "UnknownLetter",
    "__version__",
    "connect",
    "every",
]
__all__ += errors.__all__


def __getattr__(name: str) -> Any:
    """Import a name that an app which embeds Lakebed rarely needs, at its first use (PEP 562)."""
    if name == "connect":
        from lakebed.objects.sync import connect

        return connect
    if name == "TrackRequests":
        from lakebed.integrations.asgi import TrackRequests

        return TrackRequests
    if name == "__version__":
        from importlib.metadata import version

        return version("lakebed")
    raise AttributeError(f"module 'lakebed' has no attribute {name!r}")
