from __future__ import annotations

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from lakebed.events.batch import EventBatch
from lakebed.events.documents import (
    IS_DOCUMENT,
    IS_EVENT,
    DocumentPositions,
    document_seqs,
    is_document,
    without_documents,
)
from lakebed.events.event import OPERATOR, SCHEMA, Event

ROWS = [(OPERATOR, "track"), (OPERATOR, "alias"), ("python", "track"), (None, "track"), (None, "alias")]


def document() -> Event:
    return Event(type="track", source=OPERATOR, properties=Raw(b"{}"))


@pytest.mark.parametrize("picked", [[0], [1, 2], [3, 4, 0, 1, 0], [2], []])
def test_sql_arrow_and_python_agree(picked):
    """SQL, Arrow and Python take the same rows for documents; every other row is an event."""
    rows = [ROWS[number] for number in picked]
    sources, types = (
        pa.array([source for source, _ in rows], pa.string()),
        pa.array([kind for _, kind in rows], pa.string()),
    )
    table = pa.table({"seq": pa.array(range(len(rows)), pa.int64()), "source": sources, "type": types})
    expected = [seq for seq, (source, kind) in enumerate(rows) if is_document(Event(type=kind, source=source))]
    others = [seq for seq in range(len(rows)) if seq not in expected]
    assert expected == [seq for seq, number in enumerate(picked) if number == 0]
    assert document_seqs(table) == expected
    assert without_documents(table)["seq"].to_pylist() == others
    for condition, seqs in ((IS_DOCUMENT, expected), (IS_EVENT, others)):
        result = duckdb.connect().sql(
            f"SELECT seq FROM table WHERE {condition} ORDER BY seq".replace("table", '"table"')
        )
        assert [seq for (seq,) in result.fetchall()] == seqs


def test_a_batch_knows_its_documents():
    """A batch has the positions of its documents: alone, joined with others, and without its duplicates."""
    events = [Event(event="a", source="python") for _ in range(3)]
    assert EventBatch.of(events).documents == ()
    mixed = EventBatch.of([events[0], document(), events[1]])
    assert list(mixed.documents) == [1]
    joined = EventBatch.joined([EventBatch.of(events), mixed, [document()], [events[2]]])
    assert list(joined.documents) == [4, 6]
    assert list(joined.take([0, 4, 5, 6]).documents) == [1, 3]
    batch = joined.to_record_batch([f"m{number}" for number in range(8)], 100, 1)
    assert document_seqs(pa.Table.from_batches([batch], schema=SCHEMA)) == [104, 106]


@given(st.lists(st.booleans(), max_size=60), st.data())
def test_positions_count_as_a_list_does(rows, data):
    """Positions give the counts of ranges and the newest events, for rows in any commits and any known ones."""
    cut = data.draw(st.integers(0, len(rows)))
    known = data.draw(st.integers(0, cut))
    positions = DocumentPositions()
    positions.restore([seq for seq in range(known, cut) if rows[seq]], known, cut)
    while cut < len(rows):
        size = data.draw(st.integers(1, len(rows) - cut))
        positions.feed([place for place, row in enumerate(rows[cut : cut + size]) if row])
        positions.end += size
        cut += size
    positions.complete([seq for seq in range(known) if rows[seq]])
    assert positions.seqs == [seq for seq, row in enumerate(rows) if row]
    low, high = sorted(data.draw(st.tuples(st.integers(0, 61), st.integers(0, 61))))
    assert positions.within(low, high) == sum(rows[low:high])
    count, end = data.draw(st.integers(1, 13)), len(rows)
    start = positions.before_last_events(count, end)
    events = [seq for seq, row in enumerate(rows) if not row]
    assert [seq for seq in events if seq >= start] == events[-count:]
