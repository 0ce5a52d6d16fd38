"""python -m bench.walks: how many files a call enters."""

import json
import os
import subprocess
import sys

from bench.walks import JOURNEYS, Walk, grouped, markdown


def test_a_walk_is_recorded_over_all_threads(tmp_path):
    """In a process of its own: a profiler here would slow whatever else runs. Files are unique, and moves add up."""
    file = tmp_path / "walks.json"
    command = [sys.executable, "-m", "bench.walks", "track", "--json", str(file)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    walk = json.loads(file.read_bytes())["track"]
    assert "clock.py" in walk["files"]
    assert "disk.py" in walk["files"]  # of the thread that commits
    assert len(set(walk["files"])) == len(walk["files"]) == walk["moves"] - walk["returns"] + 1
    assert walk["calls"] > walk["moves"]
    assert JOURNEYS["track"].title in done.stdout


def test_files_of_one_folder_in_a_row_are_written_together():
    """Files of one folder in a row are written together."""
    assert grouped(["a.py", "b/c.py", "b/d.py", "e/f.py", "b/g.py", "h.py"]) == "a > b/{c, d} > e/f > b/g > h"
    table = markdown({"http-funnel": Walk(["a.py"], 1200, 3, 3)}).splitlines()
    assert table[2].endswith("| 1 (+ the sandbox child) | 38 | 1,200 | 3 | 3 |")
