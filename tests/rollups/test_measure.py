from __future__ import annotations

import random
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from lakebed.rollups.measure import exact_sum


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_sums_of_floats_are_exact(values):
    """Not one bit is rounded away, from the smallest float to the largest, so the order cannot matter."""
    assert exact_sum(list(values)) == sum(map(Fraction, values), Fraction(0))


def test_what_float_addition_loses():
    """Cancellation and overflow on the way, in any order."""
    values = [1e308, 1e308, -1e308, 1.0, 1e-300, -1e308, 5e-324, 1e16, -1e16] * 3
    for seed in range(20):
        random.Random(seed).shuffle(values)
        assert exact_sum(list(values)) == 3 * (1 + Fraction(1e-300) + Fraction(5e-324))
