"""QueryRequest and Sources: a query, and the data that a query reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from lakebed.query.bounds import Bounds
from lakebed.query.event_history import Cut
from lakebed.query.relation import Registry, Relation
from lakebed.query.result import Result
from lakebed.query.views import VIEWS

__all__ = ["Parameters", "QueryRequest", "Sources"]

Parameters = Sequence[Any] | Mapping[str, Any]


class QueryRequest(msgspec.Struct, frozen=True):
    """A query with its arguments. Only reports set `tables`, `bounds` and `started`.

    Attributes:
        documents: whether the table `events` has documents, beside events. Only readers of documents set it.
    """

    sql: str
    params: Parameters | None
    as_of_us: int | None = None
    snapshot: int | str | None = None
    limit: int | None = None
    tables: Mapping[str, pa.Table] | None = None
    bounds: Sequence[Bounds] | None = None
    started: float | None = None
    documents: bool = False

    @property
    def is_past(self) -> bool:
        """Whether the query reads a past state: `as_of_us` or `snapshot` is set."""
        return self.as_of_us is not None or self.snapshot is not None


class Sources(msgspec.Struct, frozen=True):
    """The data of a query, held unchanged while it runs.

    Attributes:
        cut: the events; None if the query needs no events.
        rollups: rollup tables by name.
        people: each identity that belongs to another's person, and that person_id; None if the query cannot see it.
        views: names of VIEWS that are computed from events.
        end_seq: end of the log when the query began.
        as_of_us: the moment of the query; None means the present.
    """

    cut: Cut | None
    rollups: Mapping[str, pa.Table]
    people: pa.Table | None
    views: frozenset[str]
    end_seq: int
    as_of_us: int | None

    def register_events(
        self, cursor: Registry, relation: Relation, path_of: Callable[[str], str] | None = None
    ) -> None:
        """Register `relation` as the table `events`. `path_of` means the same as in `Relation.register`."""
        relation.register(cursor, people=self.people, whole="people" in self.views, path_of=path_of)

    def register(self, cursor: Registry) -> None:
        """Register the rollups and create the views. `events` must be registered already."""
        for name, table in self.rollups.items():
            cursor.register(name, table)
        for name in sorted(self.views):
            cursor.execute(f"CREATE TEMP VIEW {name} AS {VIEWS[name]}")

    def result(self, table: pa.Table, relation: Relation | None, elapsed_ms: float) -> Result:
        """Make a Result of `table`, with the tiers, files and positions that were read."""
        tiers = set(relation.tiers if relation else ()) | ({"L2"} if self.rollups else set())
        return Result(
            table,
            tiers=tuple(sorted(tiers)),
            seq=(0, self.cut.end_seq if self.cut else self.end_seq if self.rollups else 0),
            files=relation.files if relation else (),
            elapsed_ms=elapsed_ms,
            watermark=self.cut.watermark if self.cut else 0,
            as_of_us=self.as_of_us,
        )
