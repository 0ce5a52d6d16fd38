from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakebed.query.router import DAILY, HOURLY, Coverage, Slice, plan, rollup_answers, whole_buckets

HOUR = 3_600_000_000
edges = st.integers(-50, 50)
coverages = st.lists(
    st.builds(
        Coverage,
        tier=st.sampled_from(["L0", "L2", "other"]),
        start_us=st.none() | edges,
        end_us=st.none() | edges,
        grain_us=st.integers(1, 12),
    ),
    max_size=3,
)


@given(edges, edges, coverages)
def test_slices_tile_the_range(start, end, preferred):
    """Slices follow each other from start to end, without gap, overlap or empty ones; neighbours differ."""
    slices = plan(start, end, [*preferred, Coverage("raw")])
    at = start
    for piece in slices:
        assert piece.start_us == at < piece.end_us
        at = piece.end_us
    assert at == end or (start >= end and slices == ())
    assert all(first.tier != second.tier for first, second in itertools.pairwise(slices))


@given(edges, edges, coverages)
def test_every_bucket_goes_to_the_first_that_covers_it(start, end, preferred):
    """A whole bucket within a coverage is answered by it, or by one before it in the list; nothing else is."""
    ordered = [Coverage(f"{at}", c.start_us, c.end_us, c.grain_us) for at, c in enumerate(preferred)]
    slices = plan(start, end, [*ordered, Coverage("raw")])
    for moment in range(start, end):
        tier = next(piece.tier for piece in slices if piece.start_us <= moment < piece.end_us)
        able = [c.tier for c in ordered if _covers(c, moment, start, end)]
        # A later coverage sees only what an earlier one left over, which may cut its buckets.
        if tier == "raw":
            assert not able or able[0] != "0"
        else:
            assert tier in able
        if able and able[0] == "0":
            assert tier == "0"


def _covers(coverage: Coverage, moment: int, start: int, end: int) -> bool:
    bucket = moment // coverage.grain_us * coverage.grain_us
    low = start if coverage.start_us is None else max(start, coverage.start_us)
    high = end if coverage.end_us is None else min(end, coverage.end_us)
    return low <= bucket and bucket + coverage.grain_us <= high


def test_ragged_edges_are_raw():
    """Whole hours come from the rollup, the edges from raw events."""
    slices = plan(HOUR // 2, 3 * HOUR + 1, [Coverage("L2", grain_us=HOUR), Coverage("raw")])
    assert slices == (
        Slice("raw", HOUR // 2, HOUR),
        Slice("L2", HOUR, 3 * HOUR),
        Slice("raw", 3 * HOUR, 3 * HOUR + 1),
    )


def test_within_one_bucket_all_is_raw():
    """A range within one hour has no whole hour: one raw slice."""
    assert plan(1, HOUR - 1, [Coverage("L2", grain_us=HOUR), Coverage("raw")]) == (Slice("raw", 1, HOUR - 1),)


def test_a_hole_is_an_error():
    """A part that no tier covers is never left out silently."""
    with pytest.raises(ValueError, match="no tier covers"):
        plan(0, HOUR + 1, [Coverage("L2", grain_us=HOUR)])


@given(st.none() | edges, st.none() | edges, st.sampled_from([(HOURLY, HOUR), (DAILY, 24 * HOUR)]))
def test_whole_buckets_are_what_a_rollup_answers(start, end, rollup):
    """The whole part lies within the range, misses less than a bucket at each end, and the rollup answers it."""
    name, grain = rollup
    start, end = (None if edge is None else edge * HOUR // 2 for edge in (start, end))
    part = whole_buckets(name, start, end)
    if part is None:
        assert end - start < 2 * grain
        return
    assert rollup_answers(name, *part)
    assert (part == (start, end)) == rollup_answers(name, start, end)
    for outer, inner in ((start, part[0]), (part[1], end)):
        assert (outer is None) == (inner is None)
        assert outer is None or 0 <= inner - outer < grain


@pytest.mark.parametrize("rollup", [HOURLY, DAILY])
def test_a_rollup_answers_for_all_events_as_of_now(rollup):
    """With a condition, a cohort or another moment raw events answer."""
    assert rollup_answers(rollup)
    assert not rollup_answers(rollup, filtered=True)
    assert not rollup_answers(rollup, as_of_us=0)
