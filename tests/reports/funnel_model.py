"""Funnels, told slowly and plainly from a list of events: docs/reports/funnel.md, word by word."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple


class Plain(NamedTuple):
    """What is asked. `steps` and `excluded` are predicates over an event; the latter with the two steps, from 1."""

    steps: list[Any]
    within_us: int
    order: str = "ordered"
    allow_equal: bool = False
    excluded: tuple[tuple[Any, int, int], ...] = ()
    start_us: float = float("-inf")
    end_us: float = float("inf")
    holding: str | None = None


class Attempt(NamedTuple):
    """How far a person came: times and event of the beginning."""

    times: list[int]
    first: Any


def attempts(funnel, events):
    """The attempt of each person that counts."""
    people: dict[str, list[Any]] = {}
    for (person, value), own in _parts(funnel, events).items():
        tried = list(_any(funnel, own) if funnel.order == "any" else _ordered(funnel, own))
        if tried:
            # The furthest; of those the first to get there; of those the last to begin, of equal times by arrival.
            best = min(tried, key=lambda one: (-len(one[0]), one[1], *(-n for n in one[2])))[3]
            people.setdefault(person, []).append((best, value))
    return {
        person: max(each, key=lambda one: (len(one[0].times), -one[0].times[-1], one[0].times[0], one[1]))[0]
        for person, each in people.items()
    }


def totals(funnel, events):
    """How many attempts reached each step: all entries, then one for each event with which some reached it."""
    counts = [0] * len(funnel.steps)
    for own in _parts(funnel, events).values():
        chains = [one[4] for one in _ordered(funnel, own)]
        counts[0] += len(chains)
        for at in range(1, len(counts)):
            counts[at] += len({chain[at] for chain in chains if len(chain) > at})
    return counts


def _parts(funnel, events):
    """The events of each person, or of each value that is held by itself."""
    counts: dict[tuple[str, str], list[Any]] = {}
    for event in events:
        value = "" if funnel.holding is None else event.properties.get(funnel.holding)
        if event.person is not None and value is not None:
            counts.setdefault((event.person, value), []).append(event)
    return counts


def _place(funnel, event):
    return (event.us, event.seq) if funnel.allow_equal else (event.us, 0)


def _ordered(funnel, own):
    for entry in own:
        if not funnel.steps[0](entry) or not funnel.start_us <= entry.us < funnel.end_us:
            continue
        chain = [entry]
        for number, step in enumerate(funnel.steps[1:], 1):
            low = _place(funnel, chain[-1])
            later = [one for one in own if step(one) and _place(funnel, one) > low]
            if not later:
                break
            then = min(later, key=lambda one: _place(funnel, one))
            between = [one for one in own if low < _place(funnel, one) < _place(funnel, then)]
            if funnel.order == "strict" and any(one.event is not None or _is_step(funnel, one) for one in between):
                break
            zones = [what for what, first, last in funnel.excluded if first <= number < last]
            if any(what(one) for what in zones for one in between) or then.us - entry.us > funnel.within_us:
                break
            chain.append(then)
        times = [one.us for one in chain]
        begun = _place(funnel, entry)
        places = [_place(funnel, one) for one in chain]
        yield times, places[-1], begun, Attempt(times, _first_at(funnel, own, entry.us)), places


def _is_step(funnel, event):
    return any(step(event) for step in funnel.steps)


def _any(funnel, own):
    for entry in own:
        if not _is_step(funnel, entry) or not funnel.start_us <= entry.us < funnel.end_us:
            continue
        times = []
        outs = [one.us for one in own if one.us > entry.us and any(what(one) for what, *_ in funnel.excluded)]
        last = min([entry.us + funnel.within_us, *outs])
        for step in {id(step): step for step in funnel.steps}.values():
            needed = sum(one is step for one in funnel.steps)
            fitting = sorted(one.us for one in own if step(one) and entry.us <= one.us <= last)
            times += fitting[:needed]
        times.sort()
        yield times, times[-1], (entry.us,), Attempt(times, _first_at(funnel, own, entry.us))


def _first_at(funnel, own, us):
    """Of the events of that moment with which an attempt may begin, the one that came first."""
    steps = funnel.steps if funnel.order == "any" else funnel.steps[:1]
    return min((one for one in own if one.us == us and any(step(one) for step in steps)), key=lambda one: one.seq)


def rows(funnel, events, labels):
    """The rows of the report: without `by`, without `compare`."""
    return summary(len(funnel.steps), list(attempts(funnel, events).values()), labels)


def summary(count, tried, labels):
    """The rows that come of attempts."""
    reached = [[one.times for one in tried if len(one.times) >= step] for step in range(1, count + 1)]
    counts = []
    for at, times in enumerate(reached):
        before = len(reached[max(at - 1, 0)])
        seconds = [(one[at] - one[at - 1]) / 1e6 for one in times] if at else []
        counts.append(
            (
                at + 1,
                labels[at],
                len(times),
                len(times) / len(reached[0]) if reached[0] else None,
                len(times) / before if before else None,
                statistics.median(seconds) if seconds else None,
            )
        )
    return counts
