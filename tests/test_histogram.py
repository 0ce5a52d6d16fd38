"""Histogram: every value lies in one part."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lakebed.histogram import SECONDS, Histogram

values = st.lists(st.floats(0, 20) | st.sampled_from(SECONDS))


@given(values, values)
def test_a_histogram_equals_a_plain_list(first, second):
    """Each bound has the values that are not above it, the last all of them; adding one to another counts both."""
    histogram, added = Histogram(SECONDS), Histogram(SECONDS)
    for value in first:
        histogram.observe(value)
    for value in second:
        added.observe(value)
    histogram.add(added)
    both = [*first, *second]
    expected = [(repr(bound), sum(value <= bound for value in both)) for bound in SECONDS]
    assert histogram.cumulative() == [*expected, ("+Inf", len(both))]
    assert abs(histogram.total - sum(both)) < 1e-6
