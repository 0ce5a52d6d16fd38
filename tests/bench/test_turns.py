"""Contenders take turns, each in a process of its own."""

import pytest

from bench.measure import Contender, Failed, Samples, take_turns
from tests.bench import contenders


@pytest.fixture
def noting(tmp_path):
    def make(name, **more):
        return Contender(name, contenders.noting, {"journal": str(tmp_path / "journal"), "name": name}, **more)

    return make


def test_contenders_are_measured_alternately(tmp_path, noting):
    """A B A B: what changes on the machine during a run meets all of them alike."""
    done = take_turns([noting("a"), noting("b")], 3, tmp_path / "work")
    assert (tmp_path / "journal").read_text().split() == ["a1", "b1", "a2", "b2", "a3", "b3"]
    assert done.get("a", "number") == Samples((1, 2, 3))


def test_a_contender_keeps_its_process_unless_it_is_fresh(tmp_path, noting):
    """What was prepared serves all turns; memory is measured in a process that has done nothing else."""
    done = take_turns([noting("kept"), noting("fresh", fresh=True)], 2, tmp_path / "work")
    assert len(set(done.get("kept", "pid").values)) == 1
    assert len(set(done.get("fresh", "pid").values)) == 2
    assert done.get("fresh", "number") == Samples((1, 1))


def test_a_contender_may_be_pinned_to_one_core(tmp_path, noting):
    """Its process, and every thread of it, has that core alone."""
    assert take_turns([noting("a", cores=1)], 1, tmp_path / "work").get("a", "cores") == Samples((1,))


@pytest.mark.parametrize(
    ("turns", "reason"), [(contenders.failing, "the second turn is too much"), (contenders.dying, "ended with -9")]
)
def test_a_failing_contender_does_not_stop_the_others(tmp_path, noting, turns, reason):
    """An error or the death of a process is reported, and the figures of the others are not lost."""
    results = take_turns([Contender("bad", turns), noting("a")], 2, tmp_path / "work")
    result = results.get("bad", "number")
    assert isinstance(result, Failed)
    assert reason in result.reason
    assert not result.absent
    assert results.get("a", "number") == Samples((1, 2))


def test_a_peer_that_is_not_installed_is_absent(tmp_path):
    """A peer that is not installed is no failure."""
    result = take_turns([Contender("peer", contenders.absent)], 2, tmp_path / "work").get("peer", "number")
    assert result == Failed("there is no such thing here", absent=True)
