"""One batch of events, grouped by DuckDB for each rollup: what it adds, before ids and stored states are known."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec
import pyarrow as pa

from lakebed.errors import InvalidRollup, LakebedError, StorageUnavailable
from lakebed.rollups.buckets import bucket_starts
from lakebed.rollups.measure import Measure
from lakebed.rollups.rollup import Rollup
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.storage.transaction import Group

if TYPE_CHECKING:
    import duckdb

__all__ = ["PIECE", "Grouping", "PartialState", "Texts", "bucket_name", "looked_up", "partials"]

PIECE = 4096  # texts that are handled in one go: one or two milliseconds of the interpreter


class Grouping(Protocol):
    """What is asked of DuckDB for one rollup: `sql` gives bucket, dimensions and measures of the groups of `input`."""

    rollup: Rollup
    measures: Mapping[str, Measure]
    sql: str


class Texts:
    """Lists of texts that wait for their ids. NULL is an empty list.

    Every step that would hold the interpreter, and so every `track`, for long is done by Arrow or in pieces.

    Attributes:
        distinct: the texts, each once, sorted as SQLite sorts them.
    """

    def __init__(self, lists: pa.Array) -> None:
        import numpy as np  # only objects that fold pay for it
        import pyarrow.compute as pc  # a quarter of what pyarrow costs to import

        encoded = lists.flatten().dictionary_encode()
        order = pc.sort_indices(encoded.dictionary)
        texts = encoded.dictionary.take(order)
        self.distinct: list[str] = []
        for at in range(0, len(texts), PIECE):
            self.distinct += texts.slice(at, PIECE).to_pylist()
        ranks = np.empty(len(texts), np.int32)
        ranks[order.to_numpy()] = np.arange(len(texts), dtype=np.int32)
        self._indices = ranks[encoded.indices.to_numpy()]
        self._lengths = lists.value_lengths().fill_null(0).cast(pa.int32()).to_numpy()

    def identified(self, ids: Mapping[str, int]) -> pa.Array:
        """The same lists, of uint32 ids."""
        import numpy as np  # only objects that fold pay for it

        table = np.empty(len(self.distinct), np.uint32)
        for at in range(0, len(table), PIECE):
            table[at : at + PIECE] = [ids[text] for text in self.distinct[at : at + PIECE]]
        offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(self._lengths, dtype=np.int32)])
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(table[self._indices]))


class PartialState(msgspec.Struct):
    """What one batch adds to one rollup.

    Attributes:
        groups: in the order of their first events.
        columns: for each measure, its aggregate of each group.
    """

    groups: list[Group]
    columns: list[pa.Array | Texts]


def bucket_name(rollup: Rollup) -> str:
    """The column of bucket starts that a batch has for rollups of this grain and zone."""
    return f"bucket:{rollup.grain}:{rollup.timezone}"  # promotions forbid ":", so no column can have this name


def partials(
    engine: SqlEngine, groupings: Sequence[Grouping], table: pa.Table
) -> tuple[dict[str, PartialState], dict[str, LakebedError]]:
    """What `table` (base and promoted columns) adds to each rollup, or why DuckDB could not say. Blocks."""
    import duckdb  # for its error types; the engine imports it anyway

    found: dict[str, PartialState] = {}
    failed: dict[str, LakebedError] = {}
    cursor = engine.cursor()
    try:
        cursor.register("input", _bucketed(table, [grouping.rollup for grouping in groupings]))
        for grouping in groupings:
            name = grouping.rollup.name
            try:
                found[name] = _partial(cursor, grouping)
            except duckdb.OutOfMemoryException as error:
                failed[name] = StorageUnavailable(
                    f"rollup {name} needs more memory: {error}", hint="Raise query_memory_bytes", name=name
                )
            except duckdb.Error as error:
                failed[name] = InvalidRollup(
                    f"rollup {name} cannot be computed: {error}",
                    hint="Mend its where, a DuckDB expression over the columns of events; it is then computed again",
                    name=name,
                )
    finally:
        cursor.close()
    return found, failed


def _bucketed(table: pa.Table, rollups: Iterable[Rollup]) -> pa.Table:
    times = table.column("timestamp").cast(pa.int64()).combine_chunks().to_numpy()
    for name, rollup in {bucket_name(rollup): rollup for rollup in rollups}.items():
        table = table.append_column(name, pa.array(bucket_starts(times, rollup.grain, rollup.timezone), pa.int64()))
    return table


def _partial(cursor: duckdb.DuckDBPyConnection, grouping: Grouping) -> PartialState:
    found = cursor.sql(grouping.sql).to_arrow_table()
    buckets, *columns = [_whole(chunks) for chunks in found.columns]
    count = len(grouping.rollup.by)
    dimensions = [values.to_pylist() for values in columns[:count]]
    keys = _keys(list(zip(*dimensions, strict=True))) if count else ["[]"] * len(buckets)
    measured = zip(columns[count:], grouping.measures.values(), strict=True)
    return PartialState(
        list(zip(buckets.to_pylist(), keys, strict=True)),
        [Texts(values) if measure.identified else values for values, measure in measured],
    )


def _keys(dimensions: Sequence[tuple[str | None, ...]]) -> list[str]:
    """Each as JSON, once for those that are the same in many buckets."""
    keys = {one: msgspec.json.encode(one).decode() for one in set(dimensions)}
    return [keys[one] for one in dimensions]


def _whole(chunks: pa.ChunkedArray) -> pa.Array:
    combined = chunks.combine_chunks()
    return combined if isinstance(combined, pa.Array) else pa.concat_arrays(combined.chunks)


def looked_up(ids: Mapping[str, int], found: Iterable[PartialState]) -> tuple[dict[str, int], list[str]]:
    """The ids that are at hand, and the texts that have none there: those of each measure sorted."""
    known: dict[str, int] = {}
    missing: dict[str, None] = {}
    for column in itertools.chain.from_iterable(partial.columns for partial in found):
        for text in column.distinct if isinstance(column, Texts) else ():
            number = ids.get(text)
            if number is None:
                missing[text] = None
            else:
                known[text] = number
    return known, [text for text in missing]  # noqa: C416 - list() would hold the interpreter for all of them
