"""`make demo`: the page over real events, and live ones until it is told to stop."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lakebed import connect
from lakebed.auth.keys import Keys

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "-W", "error", str(ROOT / "examples" / "demo.py")]
LINES = 42_481
_KEY = r"(lb[wra]_[0-9a-f]{12}_[0-9a-f]{40})"


def started(root: Path, *arguments: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LAKEBED_")}
    command = [*DEMO, "--root", str(root), "--port", "0", *arguments]
    environment = kept | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def get(url: str, key: str) -> bytes:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})  # noqa: S310 - it begins with http
    with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - the same
        return answer.read()


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """A demo that is looked at while it runs, and ended by Ctrl-C."""
    root = tmp_path_factory.mktemp("demo")
    with started(root, "--seed", "3") as demo:
        output = ""
        while not (match := re.search(rf"The page   (http://127\.0\.0\.1:\d+)/#key={_KEY}", output)):
            line = demo.stdout.readline()
            assert line, demo.stderr.read()
            output += line
        url, key = match[1], match[2]
        page = get(url, key).decode()
        while (stats := json.loads(get(f"{url}/stats", key)))["received"] < 6:  # the first are a refused one and people
            pass
        letters = json.loads(get(f"{url}/deadletters", key))["letters"]
        demo.send_signal(signal.SIGINT)
        out, err = demo.stdout.read(), demo.stderr.read()  # not communicate: it forgets what readline had read ahead
    return {
        "root": root,
        "key": key,
        "page": page,
        "stats": stats,
        "letters": letters,
        "first": (demo.returncode, output + out, err),
    }


def test_the_demo_prints_a_working_page_and_keys(shown):
    """The page is at the address that it prints, whose key reads the object while events arrive."""
    code, out, err = shown["first"]
    assert (code, err) == (0, ""), out
    assert "<html" in shown["page"]
    assert shown["stats"]["totals"]["Order Completed"] > LINES
    assert len(re.findall(rf"(?:Write|Admin) key  {_KEY}", out)) == 2
    assert "Stopped." in out
    assert [letter["reason"] for letter in shown["letters"]] == ["event name is empty"]


@pytest.mark.slow  # a run of the whole demo of its own; the ids of an import are tested in tests/transfer
def test_a_second_run_stores_no_line_twice(shown):
    """It stores nothing of the file twice, and its keys take the place of those that nobody can see again."""
    again = started(shown["root"], "--once", "--seed", "3")
    out, err = again.communicate(timeout=120)
    assert (again.returncode, err) == (0, ""), out
    assert f"{LINES:,} order lines with their true times (0 new)" in out
    assert "0 live events" not in out
    live = [key for key in Keys(shown["root"]).list("shop") if key.revoked_us is None]
    assert sorted(key.scope for key in live) == ["admin", "write"]


def test_true_moved_and_live_events_are_marked(shown):
    """True times, moved ones and live ones are told apart; moved ones are of the last fourteen days, none is ahead."""
    with connect(shown["root"], "shop") as shop:
        sql = """SELECT coalesce(properties->>'replay', 'true time') AS kind, count(*) AS n, min(timestamp) AS first,
            max(timestamp) AS last FROM events WHERE type = 'track' GROUP BY 1"""
        kinds = {row.kind: row for row in shop.query(sql)}
        assert shop.check() == []
    assert set(kinds) == {"true time", "moved", "live"}
    assert (kinds["true time"].n, kinds["true time"].last.year) == (LINES, 2010)
    now = datetime.now(UTC)
    assert kinds["moved"].n > 5_000
    assert now - timedelta(days=15) < kinds["moved"].first <= kinds["moved"].last <= now
    assert now - kinds["live"].first < timedelta(minutes=10)


def test_an_object_that_is_open_elsewhere_is_an_error(tmp_path):
    """Code 1 and the owner, no traceback."""
    with connect(tmp_path, "shop") as shop:
        shop.track("Seen")
        with started(tmp_path, "--once") as demo:
            _, err = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert str(os.getpid()) in err
    assert "Traceback" not in err
