"""One question, and what it reads."""

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
    """What is asked; `tables` and `bounds` are given by our own metrics only, `documents` by the readers of documents.

    Attributes:
        documents: whether the table `events` has documents, beside events.
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
        """Whether it asks about another state than the present one."""
        return self.as_of_us is not None or self.snapshot is not None


class Sources(msgspec.Struct, frozen=True):
    """What is held for a question while it is answered.

    Attributes:
        cut: of the events, where they are needed.
        rollups: tables by name.
        people: identity and person_id of those who are somebody else's, where the question may see it.
        views: those of VIEWS that are computed from events.
        end_seq: of the log when the question came.
    """

    cut: Cut | None
    rollups: Mapping[str, pa.Table]
    people: pa.Table | None
    views: frozenset[str]
    end_seq: int
    as_of_us: int | None

    def register_events(self, cursor: Registry, relation: Relation, named: Callable[[str], str] | None = None) -> None:
        """Make `relation` the table `events`. `named` is as for `Relation.register`."""
        relation.register(cursor, people=self.people, whole="people" in self.views, named=named)

    def register(self, cursor: Registry) -> None:
        """Make tables and views of all but `events`, which must be there already."""
        for name, table in self.rollups.items():
            cursor.register(name, table)
        for name in sorted(self.views):
            cursor.execute(f"CREATE TEMP VIEW {name} AS {VIEWS[name]}")

    def result(self, table: pa.Table, relation: Relation | None, elapsed_ms: float) -> Result:
        """`table` with where it came from."""
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
