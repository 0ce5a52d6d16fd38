"""What Lakebed must reach, and that the benchmarks ask all of it."""

import math

import pytest

from bench.goal import FLOOR, Goal
from bench.measure import Failed, Samples
from bench.row import Row
from bench.subjects import NAMES, subject

DESIGN = {
    "batch of 1,000, durable, one core": {(150_000, None), (0.6, None)},
    "track awaited, 256 in flight": {(40_000, None)},
    "track awaited, one in flight, p50": {(None, 2)},
    "counters.incr with ttl": {(400_000, None)},
    'counters.count("active:*") of 1,000,000 keys': {(None, 50)},
    "counters.incr beside Redis INCR+EXPIRE": {(10, None)},
    "hourly + daily rollup, incremental": {(1_500_000, None)},
    "dau(30), timeseries of 30 days by hour, p99": {(None, 10)},
    "SQL over archived events": {(None, 1.3)},
    "as_of over archived events": {(None, 1.3)},
    "archive, with the sort": {(400_000, None)},
    "compaction": {(1, None)},
    "bytes an event on disk, archive": {(None, 40)},
    "reopen after a crash with 1,000,000 events unsealed, first ack": {(None, 1_500)},
    "10,000 objects in one process, asleep": {(None, 20)},
    "10,000 objects in one process, wake": {(None, 20)},
    "the seeds' pipeline": {(10_000, None)},
    "the seeds' worker": {(50_000, None)},
    "the seeds' queries": {(None, 50), (None, 100)},
}
FRONT_DOOR = {
    "/v1/batch of 100 events": {(50_000, None), (0.5, None)},
    "/v1/track, 64 connections": {(0.5, None)},
}
REPORTS = {"a report over a year of events": {(None, 1.5)}}


def test_every_goal_of_the_design_has_a_subject():
    """No row of the design, the server's goals or the reports' is left out, and no bound is softer than it says."""
    bounds = {}
    for name in NAMES:
        for goal in subject(name).GOALS:
            bounds.setdefault(goal.design, set()).add((goal.least, goal.most))
    assert bounds == DESIGN | FRONT_DOOR | REPORTS


def row(values, floor=None, **goal):
    floor = floor and Samples(floor)
    return Row("s", "work", "ms", Samples(values), floor=floor, goals=[Goal("goal", **goal)])


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        (row((3, 1, 2), most=2), "met"),
        (row((3, 1, 2), most=1.9), "missed"),
        (row((3, 1, 2), least=2), "met"),
        (row((3, 1, 2), least=2.1), "missed"),
        (row((2, 4, 6), (1, 2, 3), of=FLOOR, most=2), "met"),
        (row((2, 4, 6), (1, 2, 3), of=FLOOR, most=1.99), "missed"),
        (row((2.5, 4.5, 6.5), (1, 2, 3), of=FLOOR, most=2, plus=0.5), "met"),
        (row((2, 4, 6), None, of=FLOOR, most=2), "failed"),
    ],
)
def test_a_goal_is_met_by_the_median_or_by_the_median_ratio(result, verdict):
    """A bound includes itself; a ratio is that of the same turns; what was not measured is not met."""
    assert result.verdict(result.goals[0]) == verdict


def test_a_ratio_compares_figures_of_one_turn():
    """What slows a whole turn down does not change a ratio."""
    assert Samples((10, 200, 10)).over(Samples((5, 100, 5))) == 2
    assert Samples((1, 2)).over(Samples((0, 1))) == math.inf


def test_a_failed_figure_meets_no_goal():
    """A goal whose figure is not there has failed, and the row says why."""
    result = Row("s", "work", "ms", Failed("no disk"), goals=[Goal("goal", most=1)])
    assert result.verdict(result.goals[0]) == "failed"
    assert result.failures == ["work: Lakebed: no disk"]


def test_an_absent_peer_is_no_failure():
    """A peer that is absent is shown so, and the run succeeds."""
    result = Row("s", "work", "ms", Samples((1,)), {"Redis": Failed("no redis-server", absent=True)})
    assert result.failures == []
