"""The operator's rows: documents and merges that Lakebed itself writes into the log, among the events of clients.

They share durability, order and `as_of` with events, but no table of events has them (docs/decisions/0015). A row is
the operator's exactly if its source is `OPERATOR`: validation refuses that source from every client, and every version
of Lakebed has written it.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence

import pyarrow as pa

from lakebed.events.event import OPERATOR

__all__ = ["IS_EVENT", "IS_OPERATOR", "OperatorRows", "no_operator_rows", "operator_seqs", "without_operator_rows"]

# SQL conditions over base columns.
IS_OPERATOR = f"source = '{OPERATOR}'"
IS_EVENT = f"source IS DISTINCT FROM '{OPERATOR}'"


class OperatorRows:
    """Where in one log the operator's rows are. There are few, so their positions are held: 8 bytes each.

    Belongs to the loop's thread, but `within` may be called from any: positions are only added.

    Attributes:
        seqs: their positions, ascending, of the rows from `start` on.
        start: what lies before it has not been looked through. 0 once all is known.
        committed: rows of the operator that were stored since this was made.
    """

    def __init__(self, seqs: Sequence[int] = (), start: int = 0, end: int = 0) -> None:
        self.seqs = list(seqs)
        self.start = start
        self.committed = 0
        self._end = end

    def restore(self, seqs: Sequence[int], start: int, end: int) -> None:
        """Know exactly `seqs` of the rows `[start, end)`. `feed` goes on from `end`."""
        self.seqs, self.start, self._end = list(seqs), start, end

    def complete(self, seqs: Sequence[int]) -> None:
        """Know `seqs` of the rows before `start`, and so all of the log."""
        self.seqs, self.start = [*seqs, *self.seqs], 0

    def feed(self, rows: int, positions: Sequence[int]) -> None:
        """Note a commit of `rows` rows, in which those at `positions` are the operator's."""
        if positions:
            self.seqs += [self._end + position for position in positions]
            self.committed += len(positions)
        self._end += rows

    def within(self, low: int, high: int) -> int:
        """How many rows with `low <= seq < high` are the operator's."""
        seqs = self.seqs
        if not seqs or seqs[-1] < low:
            return 0
        return bisect.bisect_left(seqs, high) - bisect.bisect_left(seqs, low)

    def before_last_events(self, count: int, end: int) -> int:
        """The lowest seq, 0 or more, such that `[seq, end)` has at most `count` events beside the operator's rows."""
        start = end - count
        for seq in reversed(self.seqs):
            if seq < end:
                if seq < start - 1:
                    break
                start -= 1
        return max(0, start)


async def no_operator_rows() -> OperatorRows:
    """Of a log in which there are none."""
    return OperatorRows()


def operator_seqs(table: pa.Table) -> list[int]:
    """The positions of the operator's rows in a table, ascending as its rows are."""
    import pyarrow.compute as pc  # a quarter of what pyarrow costs to import

    sources = table.column("source")
    if pc.index(sources, OPERATOR).as_py() < 0:
        return []
    seqs: list[int] = table.column("seq").filter(pc.equal(sources, OPERATOR)).to_pylist()
    return seqs


def without_operator_rows(table: pa.Table) -> pa.Table:
    """The rows of clients. It is `table` itself where all of them are."""
    import pyarrow.compute as pc  # a quarter of what pyarrow costs to import

    sources = table.column("source")
    if pc.index(sources, OPERATOR).as_py() < 0:
        return table
    return table.filter(pc.invert(pc.fill_null(pc.equal(sources, OPERATOR), fill_value=False)))
