"""What server and child tell each other, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from lakebed.query.bounds import Bounds

__all__ = ["Failure", "Inputs", "Plan", "SandboxRequest"]


class SandboxRequest(msgspec.Struct, frozen=True):
    """What is asked. Its parameters follow as an Arrow stream of one row.

    Attributes:
        names: of the parameters; None where they are `?`.
        tables: what it may name, in lower case.
        seconds: after which the child ends itself.
    """

    sql: str
    names: list[str] | None
    tables: list[str]
    seconds: float
    memory_bytes: int
    threads: int


class Plan(msgspec.Struct, frozen=True):
    """What the question needs.

    Attributes:
        tables: how often it names each, in lower case.
        is_count: whether it asks for the number of events and nothing else.
        mentions_person: whether it may see `person_id` of events.
        bounds: of each use of `events`.
        layers: what confines the child.
    """

    tables: Mapping[str, int]
    is_count: bool
    mentions_person: bool
    bounds: tuple[Bounds, ...]
    layers: tuple[str, ...]


class Inputs(msgspec.Struct, frozen=True):
    """What it gets; the descriptors follow, files first, then a memory file with an Arrow stream for each table.

    Attributes:
        files: how many.
        tables: their names.
        statements: SQL of ours that makes views of them, with its parameters.
        rows: of the answer at the most.
    """

    files: int
    tables: list[str]
    statements: list[tuple[str, list[Any] | None]]
    rows: int


class Failure(msgspec.Struct, frozen=True):
    """Why there is no answer."""

    kind: Literal["refused", "error", "too_large", "crashed"]
    message: str
    facts: Mapping[str, Any] = {}
