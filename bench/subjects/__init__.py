"""What is measured, in the order of the table: a module each, with `GOALS` and `rows(run)`."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

NAMES = (
    "ingest",
    "parts",
    "track",
    "counters",
    "rollups",
    "metrics",
    "queries",
    "reports",
    "archive",
    "disk",
    "reopen",
    "objects",
    "memory",
    "history",
    "freshness",
    "interference",
    "seeds",
    "http",
    "page",
)
APART = ("reports", "http", "page")  # with commands and pages of their own: all together take more than ten minutes


def subject(name: str) -> ModuleType:
    """The module of a subject."""
    return import_module(f"bench.subjects.{name}")
