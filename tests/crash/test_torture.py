"""The torture program: it passes if promises hold, and fails if one is broken on purpose."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash.resource_limits import check_growth
from tests.crash.rounds import LIVES

ROOT = Path(__file__).parents[2]


def torture(*arguments):
    program = [sys.executable, "tests/crash/torture.py", *arguments]
    return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=1800, check=False)


def test_a_run_without_a_failure_exits_with_0(tmp_path):
    """Exit code 0, counted kills, measured limits, and no files are left."""
    done = torture("--minutes", "0", "--cores", "1", "--seed", "12", "--directory", str(tmp_path / "objects"))
    assert done.returncode == 0, done.stderr
    assert "every promise held" in done.stdout
    assert "1 kills" in done.stdout
    assert "are allowed" in done.stdout
    assert not (tmp_path / "objects").exists()


def test_a_broken_promise_fails_the_run_and_its_replay(tmp_path):
    """Acknowledged events that the log lost are exit code 1, the object is kept, the printed command fails again."""
    done = torture("--minutes", "0", "--cores", "1", "--seed", "12", "--sabotage", "log", "--directory", str(tmp_path))
    assert done.returncode == 1, done.stdout
    assert re.search("is gone|is not at|LogCorrupted|LogBehind", done.stderr), done.stderr
    assert list(tmp_path.glob("12-0/shop/log"))
    assert list(tmp_path.glob("12-0/promises.jsonl"))
    replay = next(line.split("replay: ")[1] for line in done.stderr.splitlines() if "replay: " in line)
    assert replay == "python -m tests.crash.torture --seed 12 --round 0 --sabotage log"
    again = torture(*shlex.split(replay)[3:], "--directory", str(tmp_path / "again"))
    assert again.returncode == 1, again.stdout


@pytest.mark.slow
def test_a_rollup_that_miscounts_fails_the_run(tmp_path):
    """A rollup that lost a part of its state ends the round."""
    done = torture("--seed", "1", "--round", "0", "--sabotage", "rollup", "--directory", str(tmp_path))
    assert done.returncode == 1, done.stdout
    assert "is not what the events give" in done.stderr, done.stderr


def test_growth_of_descriptors_is_an_error():
    """Descriptors that increase with each part of a long life are an error; a constant number is not."""
    sample = {"rss": 1 << 28, "descriptors": 20, "threads": 20}
    check_growth([sample] * LIVES)
    leaking = [sample | {"descriptors": 20 + number * 2} for number in range(LIVES)]
    with pytest.raises(AssertionError, match="descriptors grew from"):
        check_growth(leaking)


@pytest.mark.slow
def test_five_minutes_of_torture(tmp_path):
    """A short `make torture` with a new seed each time: kills, a long life and the model, on two lanes."""
    done = torture("--minutes", "5", "--directory", str(tmp_path / "objects"))
    assert done.returncode == 0, done.stderr + done.stdout
