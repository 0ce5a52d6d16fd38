"""Documents of the operator: cohorts, price books, invoices … as rows of the log, beside the events of clients.

Documents share durability, order and `as_of` with events, but no table of events has them (docs/decisions/0016). A row
is a document exactly if its source is `OPERATOR` and its type "track". Validation refuses this source from each client,
and every version of Lakebed has written documents so. A merge (type "alias") has this source too, but is an event.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import pyarrow as pa

from lakebed.events.event import OPERATOR, Event

__all__ = [
    "IS_DOCUMENT",
    "IS_EVENT",
    "DocumentPositions",
    "document_seqs",
    "is_document",
    "no_documents",
    "without_documents",
]

_TYPE = "track"
# SQL conditions over base columns. They are opposites for every row: type is never NULL, source may be.
IS_DOCUMENT = f"(source = '{OPERATOR}' AND type = '{_TYPE}')"
IS_EVENT = f"(source IS DISTINCT FROM '{OPERATOR}' OR type <> '{_TYPE}')"


class DocumentPositions:
    """The positions of the documents in one log. Documents are few, so memory holds all positions: about 40 bytes each.

    Belongs to the loop's thread, but `within` may be called from any thread: positions are only added.

    Attributes:
        seqs: positions of documents from `start` on, ascending.
        start: the rows before `start` have not been searched. 0 once all positions are known.
        end: the seq after the newest commit; the caller of `feed` updates it.
        committed: documents stored since this was created.
    """

    def __init__(self, seqs: Sequence[int] = ()) -> None:
        self.seqs = list(seqs)
        self.start = 0
        self.end = 0
        self.committed = 0

    def restore(self, seqs: Sequence[int], start: int, end: int) -> None:
        """Set the positions: `seqs` are the positions of all documents in the rows `[start, end)`."""
        self.seqs, self.start, self.end = list(seqs), start, end

    def complete(self, seqs: Sequence[int]) -> None:
        """Add `seqs`, the positions of all documents before `start`. The positions of the whole log are then known."""
        self.seqs, self.start = [*seqs, *self.seqs], 0

    def feed(self, places: Sequence[int]) -> None:
        """Add the documents of the commit that starts at `end`. `places` are their positions within the commit."""
        self.seqs += [self.end + place for place in places]
        self.committed += len(places)

    def within(self, low: int, high: int) -> int:
        """The number of documents with `low <= seq < high`."""
        seqs = self.seqs
        if not seqs or seqs[-1] < low:
            return 0
        return bisect.bisect_left(seqs, high) - bisect.bisect_left(seqs, low)

    def before_last_events(self, count: int, end: int) -> int:
        """The lowest seq, 0 or more, such that `[seq, end)` has at most `count` events. Documents are not counted."""
        start = end - count
        for seq in reversed(self.seqs):
            if seq < end:
                if seq < start - 1:
                    break
                start -= 1
        return max(0, start)


def is_document(event: Event) -> bool:
    """Whether an admitted event is a document."""
    return event.source == OPERATOR and event.type == _TYPE


async def no_documents() -> DocumentPositions:
    """The positions for a log without documents."""
    return DocumentPositions()


def document_seqs(table: pa.Table) -> list[int]:
    """The positions of documents in a table of events, in the order of its rows."""
    mask = _mask(table)
    if mask is None:
        return []
    seqs: list[int] = table.column("seq").filter(mask).to_pylist()
    return seqs


def without_documents(table: pa.Table) -> pa.Table:
    """The events of a table. Returns `table` itself if it has no document."""
    import pyarrow.compute as pc  # a quarter of the time that pyarrow takes to import

    mask = _mask(table)
    return table if mask is None else table.filter(pc.invert(mask))


def _mask(table: pa.Table) -> pa.ChunkedArray | None:
    """Whether each row is a document. Returns None, which is cheaper, if no row has the source `OPERATOR`."""
    import pyarrow.compute as pc  # a quarter of the time that pyarrow takes to import

    sources = table.column("source")
    if pc.index(sources, OPERATOR).as_py() < 0:
        return None
    own = pc.fill_null(pc.equal(sources, OPERATOR), fill_value=False)
    return pc.and_(own, pc.equal(table.column("type"), _TYPE))
