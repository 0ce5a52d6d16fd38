"""Lakebed: product analytics that you import.

Events settle through four tiers; every answer is exact, survives a crash, and says which tiers it came from.
`docs/reading-the-source.md` says where to begin.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lakebed.analytics import Analytics
from lakebed.checkup import Problem
from lakebed.clock import Clock, ManualClock, SystemClock
from lakebed.disk import Disk
from lakebed.errors import (
    AccessDenied,
    ArchiveConflict,
    ArchiveUnavailable,
    Backpressure,
    DiskFull,
    FontMissing,
    FormatTooNew,
    InvalidAsOf,
    InvalidBilling,
    InvalidDefinition,
    InvalidEvent,
    InvalidMerge,
    InvalidName,
    InvalidRollup,
    InvalidSchedule,
    InvalidSettings,
    KeysUnavailable,
    LakebedError,
    LogBehind,
    LogCorrupted,
    LogUnavailable,
    NotReachable,
    ObjectClosed,
    ObjectLocked,
    ObjectUnavailable,
    PromotionConflict,
    QueryBusy,
    QueryCrashed,
    QueryError,
    QueryRefused,
    QueryTimeout,
    QueryTooLarge,
    SnapshotExpired,
    StorageUnavailable,
    UnknownKey,
    UnknownLetter,
    Unreachable,
    WrongObject,
)
from lakebed.events import Event, Receipt
from lakebed.identity.merge import Merge
from lakebed.identity.person import Person
from lakebed.inventory import Inventory
from lakebed.objects import DurableObject, Namespace
from lakebed.pulse import Pulse
from lakebed.query.result import Result, Row
from lakebed.query.stats import Stats
from lakebed.replays import Replayed
from lakebed.rollups.rollup import Rollup
from lakebed.schedule import every
from lakebed.settings import Settings
from lakebed.tiers.deadletters import DeadLetter

if TYPE_CHECKING:
    from lakebed.blocking import connect
    from lakebed.requests import TrackRequests

__all__ = [
    "AccessDenied",
    "Analytics",
    "ArchiveConflict",
    "ArchiveUnavailable",
    "Backpressure",
    "Clock",
    "DeadLetter",
    "Disk",
    "DiskFull",
    "DurableObject",
    "Event",
    "FontMissing",
    "FormatTooNew",
    "InvalidAsOf",
    "InvalidBilling",
    "InvalidDefinition",
    "InvalidEvent",
    "InvalidMerge",
    "InvalidName",
    "InvalidRollup",
    "InvalidSchedule",
    "InvalidSettings",
    "Inventory",
    "KeysUnavailable",
    "LakebedError",
    "LogBehind",
    "LogCorrupted",
    "LogUnavailable",
    "ManualClock",
    "Merge",
    "Namespace",
    "NotReachable",
    "ObjectClosed",
    "ObjectLocked",
    "ObjectUnavailable",
    "Person",
    "Problem",
    "PromotionConflict",
    "Pulse",
    "QueryBusy",
    "QueryCrashed",
    "QueryError",
    "QueryRefused",
    "QueryTimeout",
    "QueryTooLarge",
    "Receipt",
    "Replayed",
    "Result",
    "Rollup",
    "Row",
    "Settings",
    "SnapshotExpired",
    "Stats",
    "StorageUnavailable",
    "SystemClock",
    "TrackRequests",
    "UnknownKey",
    "UnknownLetter",
    "Unreachable",
    "WrongObject",
    "__version__",
    "connect",
    "every",
]


def __getattr__(name: str) -> Any:
    """What an app that embeds Lakebed rarely needs is imported when it is asked for (PEP 562)."""
    if name == "connect":
        from lakebed.blocking import connect  # noqa: PLC0415

        return connect
    if name == "TrackRequests":
        from lakebed.requests import TrackRequests  # noqa: PLC0415

        return TrackRequests
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415

        return version("lakebed")
    raise AttributeError(f"module 'lakebed' has no attribute {name!r}")
