"""Decides which tier answers a report, or a part of its time range. Pure: it only knows what each tier covers.

Raw events (log and archive) answer everything. The built-in rollups answer faster, but only what they hold exactly:
all events, as of now, in whole buckets.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lakebed.clock import DAY_US, HOUR_US

__all__ = ["DAILY", "HOURLY", "RAW", "ROLLED", "Coverage", "Slice", "plan", "rollup_answers", "whole_buckets"]

RAW, ROLLED = "L1+L3", "L2"
"""The tiers as `Result.tiers` names them."""
HOURLY, DAILY = "hourly_events", "daily_metrics"
"""The built-in rollups."""
_GRAINS_US = {HOURLY: HOUR_US, DAILY: DAY_US}


def rollup_answers(
    rollup: str,
    start_us: int | None = None,
    end_us: int | None = None,
    *,
    filtered: bool = False,
    as_of_us: int | None = None,
) -> bool:
    """Whether a built-in rollup holds exactly the events of `[start_us, end_us)`.

    Args:
        rollup: HOURLY or DAILY.
        start_us: microseconds UTC; None means no bound, like `end_us`.
        end_us: exclusive.
        filtered: whether a condition or a cohort leaves events out.
        as_of_us: the moment of `as_of`. Rollups of past moments are not known.
    """
    if filtered or as_of_us is not None:
        return False
    return not any(us % _GRAINS_US[rollup] for us in (start_us, end_us) if us is not None)


def whole_buckets(rollup: str, start_us: int | None, end_us: int | None) -> tuple[int | None, int | None] | None:
    """The part of `[start_us, end_us)` that consists of whole buckets of a rollup; None if there is no such part."""
    grain = _GRAINS_US[rollup]
    low = None if start_us is None else -(-start_us // grain) * grain
    high = None if end_us is None else end_us // grain * grain
    return None if low is not None and high is not None and low >= high else (low, high)


class Coverage(msgspec.Struct, frozen=True):
    """The range of a tier: whole buckets of `grain_us` microseconds (aligned to 1970) within `[start_us, end_us)`.

    None as a bound means that the tier covers everything on that side. A grain of 1 answers any range.
    """

    tier: str
    start_us: int | None = None
    end_us: int | None = None
    grain_us: int = 1


class Slice(msgspec.Struct, frozen=True):
    """A part `[start_us, end_us)` of a range, and the tier that answers it."""

    tier: str
    start_us: int
    end_us: int


def plan(start_us: int, end_us: int, coverages: Sequence[Coverage]) -> tuple[Slice, ...]:
    """Tile `[start_us, end_us)` with slices, in order of time, without gap or overlap.

    Args:
        start_us: microseconds UTC.
        end_us: exclusive; a range that is empty gives no slices.
        coverages: in order of preference. Each gets every whole bucket that it covers, unless an earlier one got it.

    Raises:
        ValueError: no coverage has some part. To prevent it, end the list with a tier that answers everything.
    """
    if start_us >= end_us:
        return ()
    if not coverages:
        raise ValueError(f"no tier covers [{start_us}, {end_us}): add one with a grain of 1 and no bounds")
    best, rest = coverages[0], coverages[1:]
    low, high = _whole_buckets(start_us, end_us, best)
    if low >= high:
        return plan(start_us, end_us, rest)
    before, after = plan(start_us, low, rest), plan(high, end_us, rest)
    return _joined((*before, Slice(best.tier, low, high), *after))


def _whole_buckets(start_us: int, end_us: int, coverage: Coverage) -> tuple[int, int]:
    low = start_us if coverage.start_us is None else max(start_us, coverage.start_us)
    high = end_us if coverage.end_us is None else min(end_us, coverage.end_us)
    grain = coverage.grain_us
    return -(-low // grain) * grain, high // grain * grain


def _joined(slices: tuple[Slice, ...]) -> tuple[Slice, ...]:
    """Join neighbouring slices of the same tier."""
    joined: list[Slice] = []
    for piece in slices:
        if joined and joined[-1].tier == piece.tier:
            joined[-1] = Slice(piece.tier, joined[-1].start_us, piece.end_us)
        else:
            joined.append(piece)
    return tuple(joined)
