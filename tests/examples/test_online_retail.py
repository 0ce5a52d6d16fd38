"""The demo is run as a user runs it: a process, a directory, an exit code."""

from __future__ import annotations

import csv
import gzip
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lakebed import connect
from lakebed.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples"
DEMO = EXAMPLES / "online_retail.py"
DATA = EXAMPLES / "data" / "online_retail_2010-12.csv.gz"


def demo(root: Path, *arguments: str, script: Path = DEMO) -> subprocess.CompletedProcess[str]:
    """One run of the demo, off a terminal."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("LAKEBED_")}
    command = [sys.executable, "-W", "error", str(script), "--root", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def first(root: Path) -> subprocess.CompletedProcess[str]:
    return demo(root)


def test_the_example_agrees_with_plain_sql(first: subprocess.CompletedProcess[str]) -> None:
    """Every number of the demo equals what DuckDB says of the CSV file, and it exits with 0, silent on stderr."""
    assert (first.returncode, first.stderr) == (0, ""), first.stdout
    assert "✗" not in first.stdout
    checks = re.search(r"(\d+) of (\d+) checks agree", first.stdout)
    assert checks is not None
    assert checks[1] == checks[2] == str(first.stdout.count("✓"))
    assert int(checks[1]) >= 14


def test_the_example_reads_log_and_archive_together(first: subprocess.CompletedProcess[str]) -> None:
    """One question is answered from L1 and L3 while half is archived, from L3 alone later, with the same rows."""
    assert "[L1 + L3," in first.stdout
    assert first.stdout.index("[L1 + L3,") < first.stdout.rindex("All events, all of it in the archive  [L3,")


@pytest.mark.slow  # a run of the whole example of its own
def test_a_second_run_stores_nothing_and_agrees_again(first: subprocess.CompletedProcess[str], root: Path) -> None:
    """Message ids make the import idempotent, also in another process after everything was archived."""
    assert first.returncode == 0
    second = demo(root)
    assert (second.returncode, second.stderr) == (0, ""), second.stdout
    assert "21,240 stored" not in second.stdout
    assert second.stdout.count("0 stored") == 3
    assert "✗" not in second.stdout


def test_the_commands_that_the_example_proposes_work(first: subprocess.CompletedProcess[str]) -> None:
    """The lines for a Python shell that it ends with do something, and so do the arguments of its command."""
    lines = [line.strip() for line in first.stdout.partition("Go on with it")[2].splitlines() if line[:4] == "    "]
    command = next(line for line in lines if line.startswith("lakebed serve"))
    assert main([*command.split()[1:], "--help"]) == 0
    shell = "; ".join(lines[:3]).replace(".df()", ".df().to_csv()").replace("; shop.query", "; print(shop.query")
    done = subprocess.run([sys.executable, "-c", shell + ")"], capture_output=True, text=True, check=True)
    assert "0,United Kingdom,40125" in done.stdout


@pytest.mark.slow  # a run of the whole example of its own
def test_the_example_fails_when_a_number_differs(tmp_path: Path) -> None:
    """With one price of the file changed for Lakebed alone the demo shows a ✗ and exits with 1."""
    text = DEMO.read_text("utf-8").replace('Path(__file__).parent / "data"', f"Path({str(EXAMPLES)!r}) / 'data'")
    changed = text.replace('"revenue": float(quantity * price)', '"revenue": float(quantity * price) + (number == 7)')
    assert changed != text
    script = tmp_path / "changed.py"
    script.write_text(changed, "utf-8")
    run = demo(tmp_path / "root", script=script)
    assert run.returncode == 1
    assert "✗ revenue and orders by country" in run.stdout


@pytest.mark.slow  # a run of the whole example of its own
def test_fresh_deletes_only_an_object_of_lakebed(tmp_path: Path) -> None:
    """--fresh leaves a directory alone that is not an object of Lakebed."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "holiday.txt").write_text("keep me", "utf-8")
    demo(tmp_path, "--fresh")
    assert (tmp_path / "shop" / "holiday.txt").read_text("utf-8") == "keep me"


def test_an_object_with_other_events_is_left_alone(tmp_path: Path) -> None:
    """Where the object holds other events, or is open elsewhere, the demo says so, exits with 2 and stores nothing."""
    with connect(tmp_path, "shop") as shop:
        shop.track("Signed Up", user_id="ann")
        locked = demo(tmp_path)
        assert locked.returncode == 2
        assert str(os.getpid()) in locked.stderr
    foreign = demo(tmp_path)
    assert foreign.returncode == 2
    assert "1 events of other origin" in foreign.stdout
    with connect(tmp_path, "shop") as shop:
        assert shop.query("SELECT count(*) FROM events").scalar() == 1


def test_the_data_file_is_complete_and_attributed() -> None:
    """The file has the lines that its README speaks of, and the README says whose they are."""
    with gzip.open(DATA, "rt", encoding="utf-8", newline="") as lines:
        assert sum(1 for _ in csv.DictReader(lines)) == 42_481
    readme = (EXAMPLES / "data" / "README.md").read_text("utf-8")
    assert "42,481" in readme
    assert "CC BY 4.0" in readme or "Creative Commons Attribution 4.0" in readme
