"""python -m bench, end to end, at its smallest."""

import json

import pytest

from bench import __main__ as command
from bench.measure import Samples
from bench.row import Row
from bench.subjects import NAMES


@pytest.fixture
def measured(tmp_path):
    def run(*names):
        file = tmp_path / "out.json"
        options = ["--size", "0.001", "--runs", "1", "--directory", str(tmp_path), "--json", str(file)]
        code = command.main([*names, *options])
        return code, json.loads(file.read_bytes())["rows"]

    return run


def test_a_subject_is_measured_shown_and_saved(measured, tmp_path, capsys):
    """Lakebed, its floor and its peers are measured, shown and saved; nothing else is left behind."""
    code, rows = measured("track")
    assert code == 0
    assert {row["subject"] for row in rows} == {"track"}
    p50 = next(row for row in rows if "p50" in row["work"])
    assert p50["lakebed"]["median"] > 0 < p50["floor"]["median"]
    assert p50["work"] in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


def test_a_failing_subject_does_not_stop_the_others(measured, monkeypatch, capsys):
    """Its goals are rows with the error, the others are measured, and the exit code is not 0."""

    class Broken:
        GOALS = command.subject("archive").GOALS

        @staticmethod
        def rows(_):
            raise OSError("the disk is gone")

    class Whole:
        GOALS = ()

        @staticmethod
        def rows(_):
            return [Row("disk", "works", "ms", Samples((1.0,)))]

    subjects = {"archive": Broken, "disk": Whole}
    monkeypatch.setattr(command, "subject", subjects.__getitem__)
    code, rows = measured("archive", "disk")
    assert code == 1
    assert [row["lakebed"].get("failed", "measured") for row in rows] == ["OSError: the disk is gone"] * 2 + [
        "measured"
    ]
    assert "failed: compaction" in capsys.readouterr().out


def test_an_unknown_subject_is_refused_with_the_known_names(capsys):
    """A slip of the pen does not cost ten minutes."""
    with pytest.raises(SystemExit):
        command.arguments(["ingets"])
    assert NAMES[0] in capsys.readouterr().err


def test_full_measures_ten_million_events():
    """`--full` is `--size 10` of a million stored events."""
    assert command.arguments(["--full"]).size * command.STORED_EVENTS == 10_000_000
