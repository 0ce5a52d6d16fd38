"""The `events` table of a query: Parquet files of both tiers and the tail, as one DuckDB view."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec
import pyarrow as pa

from lakebed.errors import ArchiveUnavailable
from lakebed.events.documents import IS_EVENT, DocumentPositions
from lakebed.events.event import BASE_COLUMNS
from lakebed.events.promotions import Promotion, columns_of, quoted, schema_of
from lakebed.query.views import PEOPLE
from lakebed.tiers.archive.models import DataFile
from lakebed.tiers.pipeline.sealing import SealedFile

__all__ = [
    "PERSON",
    "Part",
    "Registry",
    "Relation",
    "archive_parts",
    "counted",
    "log_parts",
    "read_parquet",
    "readable",
    "with_count",
]

PERSON = "coalesce(user_id, anonymous_id)"
_TAIL = "_lakebed_tail"
_NOTHING = "_lakebed_nothing"
_NO_PEOPLE = pa.schema([("identity", pa.string()), ("person_id", pa.string())])
_WILD = re.compile(r"[\[*?]")
_GLOB = str.maketrans({"[": "[[]", "*": "[*]", "?": "[?]"})


class Registry(Protocol):
    """The two methods of a DuckDB cursor that Relation uses."""

    def register(self, name: str, table: pa.Table, /) -> object:
        """Register an Arrow table under a name."""

    def execute(self, sql: str, params: list[Any] | None = None, /) -> object:
        """Run SQL."""


class Part(msgspec.Struct, frozen=True, gc=False):
    """The rows of one Parquet file with `low_seq <= seq < high_seq`.

    Attributes:
        tier: "L1" or "L3".
        first_seq: first position of the whole file.
        end_seq: end of the whole file, exclusive.
        rows: rows of the whole file: fewer than its positions if events were erased or are in other files.
        low_seq: first position of this part.
        high_seq: end of this part, exclusive.
        min_timestamp: the file's first timestamp, microseconds.
        max_timestamp: the file's last timestamp, inclusive.
        columns: names of the file's columns.
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
        """The SQL condition for the rows of this part; "" if the part is the whole file."""
        if self.low_seq <= self.first_seq and self.end_seq <= self.high_seq:
            return ""
        return f"seq >= {self.low_seq} AND seq < {self.high_seq}"


class Relation(msgspec.Struct, frozen=True):
    """All rows that a query reads: `parts` and `tail`, which share no event.

    Attributes:
        tail: rows in memory, without documents.
        documents: positions of the documents in `parts`, which are left out; None: nothing is left out.
    """

    parts: tuple[Part, ...]
    tail: pa.Table
    promotions: tuple[Promotion, ...]
    documents: DocumentPositions | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The paths of the Parquet files that are read."""
        return tuple(part.path for part in self.parts)

    @property
    def tiers(self) -> frozenset[str]:
        """The tiers from which the rows are read."""
        tiers = {part.tier for part in self.parts}
        return frozenset(tiers | {"L1"} if self.tail.num_rows else tiers)

    def documents_in(self, part: Part) -> int:
        """The number of documents in the positions of `part`. An archive file may have fewer; a log file has all."""
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
        path_of: Callable[[str], str] | None = None,
    ) -> None:
        """Create the view on `cursor`, with `person_id` and every promoted column. Blocks.

        Args:
            cursor: a cursor of DuckDB, or a recorder of calls for another process.
            name: name of the view.
            people: identity and person_id of each identity that belongs to another identity's person.
            whole: whether to register `people` as a table too, even if it is empty.
            path_of: maps the path of a file to the path that the reading process uses.
        """
        path_of = path_of or _without_wildcards
        if people is not None and people.num_rows > 0:
            cursor.register(PEOPLE, people)
        elif whole:
            cursor.register(PEOPLE, _NO_PEOPLE.empty_table())
        # An empty table costs half a millisecond to register, like any other.
        if self.tail.num_rows:
            cursor.register(_TAIL, self.tail)
        if not self.parts and not self.tail.num_rows:
            cursor.register(_NOTHING, schema_of(self.promotions).empty_table())
        variables = (f"_lakebed_files_{number}" for number in itertools.count())

        def by_variable(paths: Sequence[str]) -> str:
            # DuckDB parses the text three times: a hundred paths in it cost 2 ms.
            variable = next(variables)
            cursor.execute(f"SET VARIABLE {variable} = $1", [list(map(path_of, paths))])
            return _read(f"getvariable('{variable}')")

        sql = self.sql(by_variable)
        if people is not None and people.num_rows > 0:
            sql = (
                "SELECT e.* REPLACE (coalesce(p.person_id, e.person_id) AS person_id) "
                f"FROM ({sql}) e LEFT JOIN {PEOPLE} p ON e.person_id = p.identity"
            )
        cursor.execute(f"CREATE TEMP VIEW {quoted(name)} AS {sql}")

    def sql(self, source: Callable[[Sequence[str]], str] | None = None) -> str:
        """The SELECT over the files and the registered tail. `source` makes SQL that reads the files at given paths."""
        source = source or read_parquet
        groups: dict[tuple[frozenset[str], str], list[str]] = {}
        for part in self.parts:
            # Only where there are documents: a condition that is always true would still read its column.
            condition = _both(part.condition, IS_EVENT) if self.documents_in(part) else part.condition
            groups.setdefault((part.columns, condition), []).append(part.path)
        selects = [self._select(source(paths), columns, condition) for (columns, condition), paths in groups.items()]
        if self.tail.num_rows:
            selects.append(self._select(_TAIL, frozenset(self.tail.column_names)))
        return " UNION ALL ".join(selects or [self._select(_NOTHING, frozenset(columns_of(self.promotions)))])

    def _select(self, source: str, columns: frozenset[str], condition: str = "") -> str:
        promoted = [
            quoted(column.name) if column.name in columns else f"{column.sql} AS {quoted(column.name)}"
            for column in self.promotions
        ]
        where = f" WHERE {condition}" if condition else ""
        names = ", ".join([*map(quoted, BASE_COLUMNS), f"{PERSON} AS person_id", *promoted])
        return f"SELECT {names} FROM {source}{where}"


def _both(condition: str, other: str) -> str:
    return f"{condition} AND {other}" if condition else other


def read_parquet(paths: Sequence[str]) -> str:
    """SQL that reads exactly the files at `paths`. `paths` must not be empty."""
    literals = ", ".join("'" + _without_wildcards(path).replace("'", "''") + "'" for path in paths)
    return _read(f"[{literals}]")


def _read(paths: str) -> str:
    # With partitioning, directories named like `day=…` would become columns.
    return f"read_parquet({paths}, hive_partitioning=false)"


def _without_wildcards(path: str) -> str:
    """Escape the wildcards in `path`, because DuckDB reads every path as a glob."""
    return path.translate(_GLOB) if _WILD.search(path) else path


def counted(relation: Relation) -> tuple[int, Relation]:
    """Count the events of files that `count(*)` need not open. Returns the count and the relation of other files."""
    whole = [part for part in relation.parts if not part.condition]
    mixed = [part for part in whole if relation.documents_in(part)]
    # A log file has each of its positions, so its documents are known. So has the archive if no row was erased. The
    # ranges of its files overlap, so the file of a document is unknown, but the number of documents in all is known.
    known = sum(relation.documents_in(part) for part in mixed if part.tier == "L1")
    mixed = [part for part in mixed if part.tier == "L3"]
    if mixed and relation.documents is not None:
        archived = [part for part in whole if part.tier == "L3"]
        end = max(part.end_seq for part in archived)
        if sum(part.rows for part in archived) == end:
            known += relation.documents.within(0, end)
            mixed = []
    opened = {part.path for part in mixed}
    left = tuple(part for part in relation.parts if part.condition or part.path in opened)
    rows = sum(part.rows for part in whole if part.path not in opened)
    return rows - known, msgspec.structs.replace(relation, parts=left)


def with_count(answer: pa.Table, rows: int) -> pa.Table:
    """Add `rows` to the count in `answer`. An answer without rows (limit 0) stays as it is."""
    total = pa.array([value + rows for value in answer.column(0).to_pylist()], pa.int64())
    return answer.set_column(0, answer.schema.field(0), total)


def archive_parts(files: Iterable[DataFile], end: int) -> Iterator[Part]:
    """The parts of the archive's `files` with `seq < end`."""
    for file in files:
        if file.first_seq < end:
            yield Part(
                tier="L3",
                path=file.path,
                first_seq=file.first_seq,
                end_seq=file.last_seq + 1,
                rows=file.rows,
                low_seq=0,
                high_seq=end,
                min_timestamp=file.min_timestamp,
                max_timestamp=file.max_timestamp,
                columns=file.columns,
            )


def log_parts(files: Iterable[SealedFile], start: int, end: int) -> Iterator[Part]:
    """The parts of the log's `files` with `start <= seq < end`."""
    for file in files:
        if max(start, file.first_seq) < min(end, file.end_seq):
            yield Part(
                tier="L1",
                path=str(file.path),
                first_seq=file.first_seq,
                end_seq=file.end_seq,
                rows=file.end_seq - file.first_seq,
                low_seq=start,
                high_seq=end,
                min_timestamp=file.min_timestamp,
                max_timestamp=file.max_timestamp,
                columns=file.columns,
            )


@contextmanager
def readable() -> Iterator[None]:
    """Raise errors of DuckDB as ArchiveUnavailable: if Lakebed wrote the SQL, they mean an unreadable file."""
    import duckdb  # see sql_engine.py

    try:
        yield
    except duckdb.Error as error:
        raise ArchiveUnavailable(
            f"archived events cannot be read: {str(error).partition(chr(10))[0]}",
            hint="Run check(); restore missing or damaged files from a backup",
        ) from error
