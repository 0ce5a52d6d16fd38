"""The messages between server and worker process, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from lakebed.query.bounds import Bounds

__all__ = ["PASSED_PREFIX", "Failure", "Inputs", "Plan", "SandboxRequest"]

PASSED_PREFIX = "passed://"
"""The paths of passed files: this, and the number of a descriptor."""


class SandboxRequest(msgspec.Struct, frozen=True):
    """A query. Its parameters follow as an Arrow stream of one row.

    Attributes:
        names: names of the parameters; None for `?`.
        tables: tables that the SQL may name, in lower case.
        seconds: time after which the worker ends itself.
    """

    sql: str
    names: list[str] | None
    tables: list[str]
    seconds: float
    memory_bytes: int
    threads: int


class Plan(msgspec.Struct, frozen=True):
    """The inputs that a parsed query needs.

    Attributes:
        tables: number of times that each table is named, in lower case.
        is_count: whether the query is `SELECT count(*) FROM events`.
        mentions_person: whether the query may read `person_id` of events.
        bounds: timestamps that each use of `events` can read.
        layers: layers that confine the worker.
    """

    tables: Mapping[str, int]
    is_count: bool
    mentions_person: bool
    bounds: tuple[Bounds, ...]
    layers: tuple[str, ...]


class Inputs(msgspec.Struct, frozen=True):
    """The inputs of a query. Descriptors follow: the files, then a memory file with an Arrow stream for each table.

    Attributes:
        files: number of files.
        tables: names of the tables.
        statements: SQL of Lakebed that creates the views, with its parameters.
        rows: limit of rows in the answer.
    """

    files: int
    tables: list[str]
    statements: list[tuple[str, list[Any] | None]]
    rows: int


class Failure(msgspec.Struct, frozen=True):
    """The reason why there is no answer."""

    kind: Literal["refused", "error", "too_large", "crashed"]
    message: str
    facts: Mapping[str, Any] = {}
