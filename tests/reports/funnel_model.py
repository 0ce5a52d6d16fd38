"""A slow, plain model of funnels over a list of events, after the definition in docs/reports/funnel.md."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple


class Plain(NamedTuple):
    """The arguments. `steps` has predicates over an event; `excluded` has predicates with two steps, from 1."""

    steps: list[Any]
    within_us: int
    order: str = "ordered"
    allow_equal: bool = False
    excluded: tuple[tuple[Any, int, int], ...] = ()
    start_us: float = float("-inf")
    end_us: float = float("inf")
    holding: str | None = None


class Attempt(NamedTuple):
    """An attempt: the times of the steps that it reached, and its first event."""

    times: list[int]
    first: Any


def attempts(funnel, events):
    """The attempt that counts for each person."""
    people: dict[str, list[Any]] = {}
    for (person, value), own in _parts(funnel, events).items():
        tried = list(_any(funnel, own) if funnel.order == "any" else _ordered(funnel, own))
        if tried:
            # The attempt with most steps; then the first to get there; then the last to begin, equal times by arrival.
            best = min(tried, key=lambda attempt: (-len(attempt[0]), attempt[1], *(-n for n in attempt[2])))[3]
            people.setdefault(person, []).append((best, value))
    return {
        person: max(
            each, key=lambda attempt: (len(attempt[0].times), -attempt[0].times[-1], attempt[0].times[0], attempt[1])
        )[0]
        for person, each in people.items()
    }


def totals(funnel, events):
    """How many attempts reached each step: all entries, then the distinct events that reached the step."""
    counts = [0] * len(funnel.steps)
    for own in _parts(funnel, events).values():
        chains = [attempt[4] for attempt in _ordered(funnel, own)]
        counts[0] += len(chains)
        for at in range(1, len(counts)):
            counts[at] += len({chain[at] for chain in chains if len(chain) > at})
    return counts


def _parts(funnel, events):
    """The events of each person, or of each value of a held property."""
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
            later = [event for event in own if step(event) and _place(funnel, event) > low]
            if not later:
                break
            then = min(later, key=lambda event: _place(funnel, event))
            between = [event for event in own if low < _place(funnel, event) < _place(funnel, then)]
            if funnel.order == "strict" and any(
                event.event is not None or _is_step(funnel, event) for event in between
            ):
                break
            zones = [what for what, first, last in funnel.excluded if first <= number < last]
            if any(what(event) for what in zones for event in between) or then.us - entry.us > funnel.within_us:
                break
            chain.append(then)
        times = [event.us for event in chain]
        begun = _place(funnel, entry)
        places = [_place(funnel, event) for event in chain]
        yield times, places[-1], begun, Attempt(times, _first_at(funnel, own, entry.us)), places


def _is_step(funnel, event):
    return any(step(event) for step in funnel.steps)


def _any(funnel, own):
    for entry in own:
        if not _is_step(funnel, entry) or not funnel.start_us <= entry.us < funnel.end_us:
            continue
        times = []
        outs = [event.us for event in own if event.us > entry.us and any(what(event) for what, *_ in funnel.excluded)]
        last = min([entry.us + funnel.within_us, *outs])
        for step in {id(step): step for step in funnel.steps}.values():
            needed = sum(other is step for other in funnel.steps)
            fitting = sorted(event.us for event in own if step(event) and entry.us <= event.us <= last)
            times += fitting[:needed]
        times.sort()
        yield times, times[-1], (entry.us,), Attempt(times, _first_at(funnel, own, entry.us))


def _first_at(funnel, own, us):
    """The first received event of that moment that can begin an attempt."""
    steps = funnel.steps if funnel.order == "any" else funnel.steps[:1]
    return min(
        (event for event in own if event.us == us and any(step(event) for step in steps)), key=lambda event: event.seq
    )


def rows(funnel, events, labels):
    """The rows of the report: without `by`, without `compare`."""
    return summary(len(funnel.steps), list(attempts(funnel, events).values()), labels)


def summary(count, tried, labels):
    """The rows of the report, from the attempts."""
    reached = [[attempt.times for attempt in tried if len(attempt.times) >= step] for step in range(1, count + 1)]
    counts = []
    for at, times in enumerate(reached):
        before = len(reached[max(at - 1, 0)])
        seconds = [(attempt_times[at] - attempt_times[at - 1]) / 1e6 for attempt_times in times] if at else []
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
