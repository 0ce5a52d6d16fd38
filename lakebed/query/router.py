"""Which tier answers which part of a time range. Pure: it knows no tier, only what each covers."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

__all__ = ["Coverage", "Slice", "plan"]


class Coverage(msgspec.Struct, frozen=True):
    """What a tier can answer: whole buckets of `grain_us` microseconds (aligned to 1970) within `[start_us, end_us)`.

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
        coverages: in order of preference. Each gets all the whole buckets that it covers and that no earlier one took.

    Raises:
        ValueError: when a part is covered by none. End the list with a tier that answers everything.
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
    """Neighbours of one tier are one question."""
    joined: list[Slice] = []
    for piece in slices:
        if joined and joined[-1].tier == piece.tier:
            joined[-1] = Slice(piece.tier, joined[-1].start_us, piece.end_us)
        else:
            joined.append(piece)
    return tuple(joined)
