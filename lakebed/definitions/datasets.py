"""Datasets: data points, and SQL over them in the dialect of Cloudflare's Workers Analytics Engine."""

from __future__ import annotations

import math
import zoneinfo
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from lakebed.clock import Clock, Moment, from_us, parse_as_of
from lakebed.concurrency import run_in_thread
from lakebed.definitions.definitions import Definition, Definitions
from lakebed.errors import InvalidDefinition, InvalidEvent
from lakebed.events.event import Receipt
from lakebed.events.promotions import Promotion
from lakebed.ingest.ingest import Ingest
from lakebed.query.dialects.analytics_engine.answer import EngineAnswer
from lakebed.query.dialects.analytics_engine.dataset import DATASET, POINTS, Dataset, system_sql, unmapped
from lakebed.query.queries import Queries
from lakebed.query.sandbox.untrusted_queries import UntrustedQueries

__all__ = ["Datasets"]

_MOST = 20
_INDEX_BYTES = 96
_BLOB_BYTES = 16 << 10
_PATIENCE_S = 10.0  # Grafana asks for all panels of a dashboard at once, and once only
_TABLES = f"SELECT DISTINCT event AS dataset FROM events WHERE type = 'track' AND event IS NOT NULL AND {POINTS}"


class Datasets:
    """Analytics Engine's tables over an object's events. docs/compatibility/analytics-engine.md has the dialect."""

    def __init__(
        self,
        definitions: Definitions,
        ingest: Ingest,
        queries: Queries,
        untrusted: UntrustedQueries,
        promotions: Sequence[Promotion],
        clock: Clock,
    ) -> None:
        self._definitions = definitions
        self._ingest = ingest
        self._queries = queries
        self._untrusted = untrusted
        self._promotions = promotions
        self._clock = clock

    async def save_dataset(self, name: str, mapping: Mapping[str, Any]) -> Definition:
        """Save a mapping: which events are the rows of the table `name`, and which of their values are its columns.

        Args:
            name: name of the table in SQL.
            mapping: `{"event": "api.request", "index1": "organization_id", "blobs": ["method", "path"],
                "doubles": ["duration_ms"]}`: columns, promoted ones or top-level properties, at most 20 each.

        Raises:
            InvalidDefinition: the mapping or the name cannot be read.
        """
        Dataset.of(mapping)
        return await self._definitions.save(DATASET, name, dict(mapping))

    async def datasets(self) -> list[Definition]:
        """The newest version of each mapping, by name."""
        return await self._definitions.newest(DATASET)

    async def dataset(self, name: str) -> Definition:
        """The newest version of a mapping. Raises InvalidDefinition if there is none of that name."""
        definition = await self._definitions.get(DATASET, name)
        if definition is None:
            names = ", ".join(mapping.name for mapping in await self.datasets()) or "none"
            raise InvalidDefinition(f"there is no mapping {name[:80]!r}", hint=f"There are {names}")
        return definition

    async def delete_dataset(self, name: str) -> Definition:
        """Delete a mapping: its table then has no mapped events, only data points. An earlier `as_of` still uses it.

        Raises:
            InvalidDefinition: there is no mapping of that name.
        """
        await self.dataset(name)
        return await self._definitions.remove(DATASET, name)

    async def write_data_point(
        self,
        dataset: str,
        *,
        indexes: Sequence[str] = (),
        blobs: Sequence[str | None] = (),
        doubles: Sequence[float] = (),
    ) -> Receipt:
        """Store one data point, durably, as an event with the name of its dataset.

        Args:
            dataset: table of the data point; needs no mapping.
            indexes: at most one text of at most 96 bytes: `index1`.
            blobs: at most 20 texts of 16 KiB in all: `blob1` …
            doubles: at most 20 finite numbers: `double1` …

        Raises:
            InvalidEvent: the data point breaks a limit; `reason` says which.
            DiskFull, LogUnavailable, Backpressure: as for `track`.
        """
        properties = _point(indexes, blobs, doubles)
        item = {"type": "track", "event": dataset, "properties": properties}
        (receipt,) = await self._ingest.batch([item], source="analytics_engine")
        if receipt.status == "rejected":
            raise InvalidEvent(str(receipt.reason))
        return receipt

    async def analytics_engine(self, sql: str, *, as_of: Moment | None = None) -> EngineAnswer:
        """The answer to a statement in Analytics Engine's dialect, which runs as in `query_untrusted`.

        If the maximum of untrusted queries runs already, this one waits up to ten seconds before it is refused.

        Args:
            sql: the statement. `now()` in it is this object's clock.
            as_of: moment of the answer, an aware datetime or ISO 8601 text. Events, mappings and `now()` are those of
                that moment, so the answer never changes.

        Raises:
            QueryRefused: `sql` is not a statement of the dialect. Also the errors of `query_untrusted`.
        """
        as_of_us = parse_as_of(as_of, self._clock.now_us())
        now = from_us(self._clock.now_us() if as_of_us is None else as_of_us)
        translated = await run_in_thread("dialect", lambda: _translate(sql, now))
        if hasattr(translated, "what"):
            return EngineAnswer(translated.format, await self._shown(translated.what, as_of_us))
        query = translated.sql
        if translated.system is not None:
            query = translated.over(system_sql(translated.system, await self._names(as_of_us)))
        elif translated.dataset is not None:
            table = await self._table(translated.dataset, translated.columns, as_of_us)
            query = translated.over(table)
        result = await self._untrusted.run_patiently(query, as_of=as_of, patience=_PATIENCE_S)
        return EngineAnswer(translated.format, result.arrow())

    async def _table(self, name: str, columns: Sequence[str], as_of_us: int | None) -> str:
        saved = await self._definitions.get(DATASET, name, as_of_us=as_of_us)
        if saved is None:
            return unmapped(name, columns)
        return Dataset.of(saved.body).sql(name, self._promotions, columns)

    async def _shown(self, what: str, as_of_us: int | None) -> pa.Table:
        if what == "TIMEZONE":
            return pa.table({"timezone": ["Etc/UTC"]})
        if what == "TIMEZONES":
            return pa.table({"timezone": sorted(zoneinfo.available_timezones())})
        return pa.table({"dataset": pa.array(await self._names(as_of_us), pa.string())})

    async def _names(self, as_of_us: int | None) -> list[str]:
        names = {row.dataset for row in await self._queries.ask(_TABLES, {}, as_of_us=as_of_us)}
        names |= {definition.name for definition in await self._definitions.newest(DATASET, as_of_us=as_of_us)}
        return sorted(names)


def _translate(sql: str, now: datetime) -> Any:
    from lakebed.query.dialects.analytics_engine.translation import (
        translate,  # sqlglot takes 0.1 s; only these questions pay
    )

    return translate(sql, now)


def _point(indexes: Any, blobs: Any, doubles: Any) -> dict[str, list[Any]]:
    """The properties of a data point. Raises InvalidEvent if it breaks a limit."""
    for name, values, maximum in (("indexes", indexes, 1), ("blobs", blobs, _MOST), ("doubles", doubles, _MOST)):
        if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
            raise InvalidEvent(f"{name}: must be an array")
        if len(values) > maximum:
            raise InvalidEvent(f"{name}: maximum of {maximum} supported, there are {len(values)}")
    texts = [*indexes, *(blob for blob in blobs if blob is not None)]
    if not all(isinstance(text, str) for text in texts):
        raise InvalidEvent("indexes and blobs: must be texts")
    if any(isinstance(n, bool) or not isinstance(n, (int, float)) or not _is_finite(n) for n in doubles):
        raise InvalidEvent("doubles: must be finite numbers")
    try:
        sizes = [len(text.encode()) for text in texts]
    except UnicodeEncodeError:
        raise InvalidEvent("indexes and blobs: must be Unicode") from None
    if indexes and sizes[0] > _INDEX_BYTES:
        raise InvalidEvent(f"indexes: maximum of {_INDEX_BYTES} bytes supported, there are {sizes[0]}")
    if sum(sizes[len(indexes) :]) > _BLOB_BYTES:
        raise InvalidEvent(f"blobs: maximum of {_BLOB_BYTES} bytes supported in all")
    return {
        "indexes": list(indexes),
        "blobs": ["" if blob is None else blob for blob in blobs],
        "doubles": list(doubles),
    }


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:  # an int beyond all floats
        return False
