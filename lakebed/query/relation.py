"""The `events` table of one question: Parquet files of both tiers and the tail, as one DuckDB view."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import pyarrow as pa

from lakebed.events.documents import IS_EVENT, DocumentPositions
from lakebed.events.event import BASE_COLUMNS, SCHEMA
from lakebed.events.promotions import Promotion, quoted
from lakebed.query.views import PEOPLE

__all__ = ["PERSON", "Part", "Registry", "Relation", "columns_of", "read_parquet", "schema_of"]

PERSON = "coalesce(user_id, anonymous_id)"
_TAIL = "_lakebed_tail"
_NOTHING = "_lakebed_nothing"
_NOBODY = pa.schema([("identity", pa.string()), ("person_id", pa.string())])
_WILD = re.compile(r"[\[*?]")
_GLOB = str.maketrans({"[": "[[]", "*": "[*]", "?": "[?]"})


class Registry(Protocol):
    """What Relation needs of a cursor."""

    def register(self, name: str, table: pa.Table, /) -> object:
        """Give an Arrow table a name."""

    def execute(self, sql: str, params: list[Any] | None = None, /) -> object:
        """Run SQL."""


class Part(msgspec.Struct, frozen=True, gc=False):
    """The rows of one Parquet file with `low_seq <= seq < high_seq`.

    Attributes:
        tier: "L1" or "L3".
        first_seq: the file's own first position.
        end_seq: the file's own end, exclusive.
        rows: how many the file has; fewer than its positions where some were erased or lie in other files.
        min_timestamp: the file's own, microseconds; inclusive like `max_timestamp`.
        columns: names of the columns that the file has.
    """

    tier: str
    path: str
    first_seq: int
    end_seq: int
    rows: int
    low_seq: int
    high_seq: int
    min_timestamp: int
    max_timestamp: int
    columns: frozenset[str]

    @property
    def condition(self) -> str:
        """What its rows must meet, as SQL; "" where all of the file counts."""
        if self.low_seq <= self.first_seq and self.end_seq <= self.high_seq:
            return ""
        return f"seq >= {self.low_seq} AND seq < {self.high_seq}"


class Relation(msgspec.Struct, frozen=True):
    """All rows that one question reads: `parts` and `tail`, which share no event.

    Attributes:
        tail: rows in memory, all of which count.
        documents: positions of documents, which `parts` have and which are left out; None leaves out nothing.
    """

    parts: tuple[Part, ...]
    tail: pa.Table
    promotions: tuple[Promotion, ...]
    documents: DocumentPositions | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of the files."""
        return tuple(part.path for part in self.parts)

    @property
    def tiers(self) -> frozenset[str]:
        """The tiers that hold these rows."""
        tiers = {part.tier for part in self.parts}
        return frozenset(tiers | {"L1"} if self.tail.num_rows else tiers)

    def documents_in(self, part: Part) -> int:
        """How many documents lie in the range of a part: an archive's file may have fewer, the log's have all."""
        if self.documents is None:
            return 0
        return self.documents.within(max(part.first_seq, part.low_seq), min(part.end_seq, part.high_seq))

    def register(
        self,
        cursor: Registry,
        name: str = "events",
        *,
        people: pa.Table | None = None,
        whole: bool = False,
        named: Callable[[str], str] | None = None,
    ) -> None:
        """Make it a view on `cursor`, with `person_id` and every promoted column. Blocks.

        Args:
            cursor: DuckDB's, or what notes down for another process what it is told.
            name: of the view.
            people: identity and person_id of those who are somebody else's.
            whole: whether `people` is a table of its own as well, empty or not.
            named: what a file's path is for the one that reads it.
        """
        named = named or _literally
        if people is not None and people.num_rows > 0:
            cursor.register(PEOPLE, people)
        elif whole:
            cursor.register(PEOPLE, _NOBODY.empty_table())
        # An empty table costs half a millisecond to register, like any other.
        if self.tail.num_rows:
            cursor.register(_TAIL, self.tail)
        if not self.parts and not self.tail.num_rows:
            cursor.register(_NOTHING, schema_of(self.promotions).empty_table())
        variables = (f"_lakebed_files_{number}" for number in itertools.count())

        def by_variable(paths: Sequence[str]) -> str:
            # A hundred paths in the text are parsed three times on the way to an answer: 2 ms.
            variable = next(variables)
            cursor.execute(f"SET VARIABLE {variable} = $1", [list(map(named, paths))])
            return _read(f"getvariable('{variable}')")

        sql = self.sql(by_variable)
        if people is not None and people.num_rows > 0:
            sql = (
                "SELECT e.* REPLACE (coalesce(p.person_id, e.person_id) AS person_id) "
                f"FROM ({sql}) e LEFT JOIN {PEOPLE} p ON e.person_id = p.identity"
            )
        cursor.execute(f"CREATE TEMP VIEW {quoted(name)} AS {sql}")

    def sql(self, source: Callable[[Sequence[str]], str] | None = None) -> str:
        """The SELECT over the files, which `source` makes a table of (by default by path), and the registered tail."""
        source = source or read_parquet
        groups: dict[tuple[frozenset[str], str], list[str]] = {}
        for part in self.parts:
            # Only where there are such rows: a condition that is always true would still read its column.
            condition = _both(part.condition, IS_EVENT) if self.documents_in(part) else part.condition
            groups.setdefault((part.columns, condition), []).append(part.path)
        selects = [self._select(source(paths), columns, condition) for (columns, condition), paths in groups.items()]
        if self.tail.num_rows:
            selects.append(self._select(_TAIL, frozenset(self.tail.column_names)))
        return " UNION ALL ".join(selects or [self._select(_NOTHING, frozenset(columns_of(self.promotions)))])

    def _select(self, source: str, columns: frozenset[str], condition: str = "") -> str:
        promoted = [
            quoted(one.name) if one.name in columns else f"{one.sql} AS {quoted(one.name)}" for one in self.promotions
        ]
        where = f" WHERE {condition}" if condition else ""
        names = ", ".join([*map(quoted, BASE_COLUMNS), f"{PERSON} AS person_id", *promoted])
        return f"SELECT {names} FROM {source}{where}"


def _both(one: str, other: str) -> str:
    return f"{one} AND {other}" if one else other


def read_parquet(paths: Sequence[str]) -> str:
    """SQL that reads exactly the files of `paths`, of which there is at least one."""
    literals = ", ".join("'" + _literally(path).replace("'", "''") + "'" for path in paths)
    return _read(f"[{literals}]")


def _read(paths: str) -> str:
    # Without it, directories named like `day=…` are columns.
    return f"read_parquet({paths}, hive_partitioning=false)"


def _literally(path: str) -> str:
    """`path` for DuckDB, which takes every path for a glob."""
    return path.translate(_GLOB) if _WILD.search(path) else path


def columns_of(promotions: Sequence[Promotion]) -> tuple[str, ...]:
    """The columns that consumers and queries get: base, then promoted."""
    return (*BASE_COLUMNS, *(promotion.name for promotion in promotions))


def schema_of(promotions: Sequence[Promotion]) -> pa.Schema:
    """The Arrow schema of `columns_of`."""
    return pa.schema([*SCHEMA, *(pa.field(promotion.name, promotion.arrow_type) for promotion in promotions)])
