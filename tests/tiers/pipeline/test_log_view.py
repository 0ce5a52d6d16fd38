import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakebed.events.event import SCHEMA
from lakebed.tiers.pipeline.log_view import Tail, TailPart
from tests.tiers.pipeline.logs import NOW, batch_of, events


def batch(first, count):
    return batch_of(events(*(f"m{first + i}" for i in range(count))), first, NOW + first)


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=80))
def test_a_tail_is_a_list_of_rows(groups):
    """For all sizes of groups and segments: all events, in order, with their bytes and seqs."""
    tail, seq, segment = Tail(), 0, 0
    for count, roll in groups:
        segment = seq if roll else segment
        tail.append(segment, batch(seq, count))
        seq += count
    table = tail.table()
    assert table.schema == SCHEMA
    assert table["seq"].to_pylist() == list(range(seq))
    assert table["message_id"].to_pylist() == [f"m{i}" for i in range(seq)]
    assert tail.first_seq == (0 if groups else None)
    assert (tail.bytes > 0) == bool(groups)


def test_many_small_groups_become_few_batches():
    """Ten thousand single events become few batches, and each is copied at most three times."""
    part = TailPart(0)
    single = batch(0, 1)
    for _ in range(10_000):
        part.append(single)
    assert part.rows == sum(piece.num_rows for piece in part.batches) == 10_000
    assert len(part.batches) <= 3 + 3 * 15
    assert max(part.levels) == 3


def test_large_groups_are_not_copied():
    """Merging happens on the loop, so batches that are large enough stay as they are."""
    part = TailPart(0)
    large = batch(0, 1_000)
    for _ in range(40):
        part.append(large)
    assert [piece.num_rows for piece in part.batches] == [1_000] * 40


def test_parts_are_dropped_oldest_first():
    """Only a closed part waits for sealing, the oldest one first; dropping another raises."""
    tail = Tail()
    tail.append(0, batch(0, 2))
    assert tail.closed_part() is None
    tail.append(2, batch(2, 1))
    oldest = tail.closed_part()
    assert (oldest.first_seq, oldest.rows) == (0, 2)
    tail.close(3)
    with pytest.raises(ValueError, match="from seq 0 is not the oldest"):
        tail.drop(TailPart(0))
    tail.drop(oldest)
    assert (tail.closed_part().first_seq, tail.first_seq) == (2, 2)
    tail.drop(tail.closed_part())
    assert (tail.closed_part(), tail.first_seq, tail.bytes, tail.table().num_rows) == (None, None, 0, 0)
