"""`lakebed import`: each row once, whatever happens in between."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import random
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lakebed import connect
from lakebed.transfer.positions import FILE_NAME
from tests.cli.program import answer, lakebed, started

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[2] / "examples" / "data"
RETAIL = EXAMPLES / "online_retail_2010-12.csv.gz"
FORGETFUL = {"LAKEBED_DEDUPE_WINDOW_S": "0.000001"}  # ids are forgotten at once: only positions tell rows apart
ACCESS = (
    '83.149.9.216 - - [17/May/2015:10:05:03 +0200] "GET /a/b.png HTTP/1.1" 200 20302 "http://x.org" "Mozilla/5.0 (X)"\n'
    '10.0.0.1 - ann [17/May/2015:10:05:43 +0000] "POST /login HTTP/1.1" 302 - "-" "curl/7 \\"quoted\\""\n'
    '10.0.0.1 - - [17/May/2015:10:05:44 +0000] "-" 408 0\n'
    "this is no line of a log\n"
)


def segment_lines(rows: int, *, ids: bool = True) -> bytes:
    """Lines of an archive of Segment's: sent years ago, by a clock that was ten minutes slow."""
    return b"".join(
        json.dumps(
            {
                "type": "track",
                "event": "Clicked",
                "userId": f"u{n % 50}",
                "properties": {"n": n},
                "originalTimestamp": "2019-05-01T11:50:00Z",
                "sentAt": "2019-05-01T11:50:01Z",
                "receivedAt": "2019-05-01T12:00:01Z",
                "timestamp": "2019-05-01T12:00:00Z",
            }
            | ({"messageId": f"m{n}"} if ids else {})
        ).encode()
        + b"\n"
        for n in range(rows)
    )


def stored(root, name="default", sql="SELECT count(*), count(DISTINCT message_id) FROM events"):
    with connect(root, name) as shop:
        assert shop.check() == []
        return [tuple(row) for row in shop.query(sql)]


def tally(facts):
    assert facts["received"] == facts["stored"] + facts["duplicate"] + facts["rejected"]
    return {name: facts[name] for name in ("stored", "duplicate", "rejected")}


def test_an_archive_of_segments_comes_with_its_own_times(run, tmp_path):
    """A directory in S3's layout is read whole; no clock is corrected twice; the second run stores nothing."""
    day = tmp_path / "segment-logs" / "source" / "1556668800000"
    day.mkdir(parents=True)
    lines = segment_lines(3_000).splitlines(keepends=True)
    (day / "a.gz").write_bytes(gzip.compress(b"".join(lines[:1000])) + gzip.compress(b"".join(lines[1000:2000])))
    (day / "b.gz").write_bytes(gzip.compress(b"".join(lines[2000:])))
    (day / ".hidden").write_bytes(b"not for us")
    first = run("import", "segment-logs", "--json")
    assert (first.code, first.err, tally(first.json)) == (0, "", {"stored": 3000, "duplicate": 0, "rejected": 0})
    assert tally(run("import", "segment-logs", "--json").json) == {"stored": 0, "duplicate": 3000, "rejected": 0}
    sql = "SELECT count(*), count(DISTINCT properties), min(timestamp)::VARCHAR, max(timestamp)::VARCHAR FROM events"
    assert stored("data", sql=sql) == [(3000, 3000, *["2019-05-01 12:00:00+00"] * 2)]


@pytest.mark.parametrize("ids", [True, False])
def test_a_copy_of_a_file_is_known_and_one_that_grew_brings_its_new_rows(run, tmp_path, monkeypatch, ids):
    """Also when message ids are long forgotten, and when the last line was not finished."""
    monkeypatch.setenv("LAKEBED_DEDUPE_WINDOW_S", "0.000001")
    lines = segment_lines(600, ids=ids)
    (tmp_path / "a.ndjson").write_bytes(lines[:-1])
    assert tally(run("import", "a.ndjson", "--json").json) == {"stored": 600, "duplicate": 0, "rejected": 0}
    (tmp_path / "copy.ndjson").write_bytes(lines[:-1])
    assert tally(run("import", "copy.ndjson", "--json").json) == {"stored": 0, "duplicate": 600, "rejected": 0}
    (tmp_path / "a.ndjson").write_bytes(segment_lines(900, ids=ids))
    grown = run("import", "a.ndjson", "--json").json
    assert tally(grown) == {"stored": 300, "duplicate": 600, "rejected": 0}
    assert grown["skipped"] == 600
    assert stored("data") == [(900, 900)]


def test_equal_rows_and_other_files_stay_apart(run, tmp_path):
    """A file's row is told apart by all that comes before it, not by what it says."""
    row = b'{"event": "Beat"}\n'
    (tmp_path / "a.ndjson").write_bytes(row * 3)
    (tmp_path / "b.ndjson").write_bytes(b"\n" + row * 2)
    assert tally(run("import", "a.ndjson", "b.ndjson", "--json").json) == {"stored": 5, "duplicate": 0, "rejected": 0}


def test_a_file_of_another_content_is_read_from_its_beginning(run, tmp_path, monkeypatch):
    """A position counts only where everything before it is as it was."""
    monkeypatch.setenv("LAKEBED_DEDUPE_WINDOW_S", "0.000001")
    lines = segment_lines(400).splitlines(keepends=True)
    (tmp_path / "a.ndjson").write_bytes(b"".join(lines[:200]))
    run("import", "a.ndjson")
    (tmp_path / "a.ndjson").write_bytes(b"".join(lines[200:]) + lines[0])
    assert tally(run("import", "a.ndjson", "--json").json)["stored"] == 201


@pytest.mark.parametrize(
    ("kind", "kills"),
    [("ndjson", 1), pytest.param("ndjson", 4, marks=pytest.mark.slow), pytest.param("csv", 2, marks=pytest.mark.slow)],
)
def test_killed_anywhere_and_run_again_every_row_is_there_once(tmp_path, kind, kills):
    """SIGKILL at random moments of several runs, with message ids forgotten at once: the log has each row once."""
    rows, luck, root = 40_000, random.Random(5), tmp_path / "data"
    file = tmp_path / f"big.{kind}"
    with file.open("w") as out:
        out.writelines(
            [f'{{"event":"E","properties":{{"n":{n}}}}}\n' for n in range(rows)]
            if kind == "ndjson"
            else ["event,n\n", *(f"E,{n}\n" for n in range(rows))]
        )
    for _ in range(kills):
        process = started("import", file, "--root", root, **FORGETFUL)
        wait_for_log(process, root, luck.randrange(1, 600_000))
        process.kill()
        _, err = process.communicate()
        assert process.returncode == -signal.SIGKILL, err
    assert 0 < stored(root)[0][0] < rows
    facts = answer("import", file, "--root", root, **FORGETFUL)
    assert tally(facts)["rejected"] == 0
    assert stored(root, sql="SELECT count(*), count(DISTINCT properties) FROM events") == [(rows, rows)]


def wait_for_log(process, root, growth):
    """Return when the log has grown by so many bytes, or the process has ended."""
    log = root / "default" / "log"
    before, deadline = size(log), time.monotonic() + 120
    while size(log) - before < growth:
        assert time.monotonic() < deadline
        try:
            process.wait(0.002)
        except subprocess.TimeoutExpired:
            continue
        return


def size(directory: Path) -> int:
    """Bytes of a log that may seal a segment, and so lose a file, while it is looked at."""
    sizes = 0
    for path in directory.glob("0*"):
        with contextlib.suppress(FileNotFoundError):
            sizes += path.stat().st_size
    return sizes


def test_ctrl_c_ends_it_with_130_and_the_next_run_goes_on(tmp_path):
    """What was on its way is stored and noted; nothing is sent twice."""
    rows, root = 100_000, tmp_path / "data"
    (tmp_path / "big.ndjson").write_bytes(b"".join(b'{"event":"E","properties":{"n":%d}}\n' % n for n in range(rows)))
    process = started("import", tmp_path / "big.ndjson", "--root", root, **FORGETFUL)
    wait_for_log(process, root, 100_000)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130, err
    assert b"Traceback" not in err
    facts = answer("import", tmp_path / "big.ndjson", "--root", root, **FORGETFUL)
    assert 0 < facts["skipped"] < rows
    assert facts["skipped"] == facts["duplicate"], "the position covers all rows that were sent"
    assert stored(root, sql="SELECT count(DISTINCT properties), count(*) FROM events") == [(rows, rows)]


def test_a_real_csv_with_a_mapping(run):
    """A month of Online Retail: types, renamed columns, empty customers, a name for all; totals as csv has them."""
    output = run(
        *("import", RETAIL, "--json", "--event", "Line", "--map", "user_id=CustomerID:int"),
        *("--map", "timestamp=InvoiceDate", "--timezone", "Europe/London"),
        *("--property", "quantity=Quantity:int", "--property", "UnitPrice:float", "--property", "StockCode"),
    )
    assert tally(output.json) == {"stored": 42_481, "duplicate": 0, "rejected": 0}
    with gzip.open(RETAIL, "rt", encoding="utf-8", newline="") as lines:
        expected = list(csv.DictReader(lines))
    units = sum(int(row["Quantity"]) for row in expected)
    people = {row["CustomerID"] for row in expected} - {""}
    sql = "SELECT sum(quantity)::BIGINT, count(DISTINCT user_id), count(*) FILTER (user_id IS NULL) FROM events"
    assert stored("data", sql=sql) == [(units, len(people), sum(not row["CustomerID"] for row in expected))]
    first = "SELECT properties, timestamp::VARCHAR, user_id FROM events ORDER BY seq LIMIT 1"
    assert stored("data", sql=first) == [
        ('{"quantity":6,"UnitPrice":2.55,"StockCode":"85123A"}', "2010-12-01 08:26:00+00", "17850")
    ]


def test_access_logs(run, tmp_path):
    """Combined and common lines; a visitor is address and browser; zones count; what is no line is refused."""
    (tmp_path / "access.log").write_text(ACCESS)
    output = run("import", "access.log", "--json", "--rejects", "rejects.ndjson")
    assert (output.code, tally(output.json)) == (1, {"stored": 3, "duplicate": 0, "rejected": 1})
    refused = json.loads((tmp_path / "rejects.ndjson").read_text())
    assert (refused["row"], refused["raw"]) == (4, "this is no line of a log\n")
    sql = (
        "SELECT event, user_id, method, path, status_code, timestamp::VARCHAR, context->>'userAgent' FROM events"
        " ORDER BY seq"
    )
    assert stored("data", sql=sql) == [
        ("Request", None, "GET", "/a/b.png", 200, "2015-05-17 08:05:03+00", "Mozilla/5.0 (X)"),
        ("Request", "ann", "POST", "/login", 302, "2015-05-17 10:05:43+00", 'curl/7 \\"quoted\\"'),
        ("Request", None, "", "", 408, "2015-05-17 10:05:44+00", None),
    ]


def test_nested_json_by_paths_and_epoch_times(run, tmp_path):
    """Rows of GitHub's and bitly's shape: a path into objects, ids of their own, seconds since 1970."""
    row = {"id": "234", "type": "PushEvent", "actor": {"login": "ann", "id": 7}, "t": 1331923247, "payload": {"a": [1]}}
    (tmp_path / "events.jsonl").write_text(json.dumps(row) + "\n")
    maps = ("event=type", "user_id=actor.login", "message_id=id", "timestamp=t")
    options = [option for mapping in maps for option in ("--map", mapping)]
    shown = run("import", "events.jsonl", *options, "--timestamp-format", "unix", "--dry-run")
    assert json.loads(shown.out) == {
        "event": "PushEvent",
        "userId": "ann",
        "messageId": "234",
        "timestamp": "2012-03-16T18:40:47+00:00",
        "properties": {"payload": {"a": [1]}},
    }
    assert not (tmp_path / "data").exists(), "a dry run makes nothing"


def test_parquet_and_its_types(run, tmp_path):
    """Columns named as fields are those; times, numbers and nested values arrive as they are."""
    table = pa.table(
        {
            "event": ["A", "B"] * 4_000,
            "user_id": pa.array(range(8_000)),
            "timestamp": pa.array([1_600_000_000_000_000] * 8_000, pa.timestamp("us", tz="UTC")),
            "price": pa.array([1.5, None] * 4_000),
            "tags": [["x"], []] * 4_000,
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    assert tally(run("import", "a.parquet", "--json").json)["stored"] == 8_000
    sql = "SELECT event, user_id, properties, timestamp::VARCHAR FROM events ORDER BY seq LIMIT 2"
    assert stored("data", sql=sql) == [
        ("A", "0", '{"price":1.5,"tags":["x"]}', "2020-09-13 12:26:40+00"),
        ("B", "1", '{"tags":[]}', "2020-09-13 12:26:40+00"),
    ]
    assert tally(run("import", "a.parquet", "--json").json) == {"stored": 0, "duplicate": 8_000, "rejected": 0}


def test_bad_rows_are_counted_by_reason_and_written_once(run, tmp_path):
    """Every way to be bad has its reason; the good rows around are stored; a rerun adds no reject twice."""
    rows = [
        b'{"event":"ok"}',
        b"{nope}",
        b"[1]",
        b'{"event":"\xff"}',
        b'{"event":""}',
        b'{"event":"x","userId":{}}',
        b"",
        b'{"event":"ok"}',
    ]
    (tmp_path / "a.ndjson").write_bytes(b"\n".join(rows))
    output = run("import", "a.ndjson", "--rejects", "bad.ndjson", "--json")
    assert (output.code, tally(output.json)) == (1, {"stored": 2, "duplicate": 0, "rejected": 5})
    refused = [json.loads(line) for line in (tmp_path / "bad.ndjson").read_text().splitlines()]
    assert [reject["row"] for reject in refused] == [2, 3, 4, 6, 5] or [reject["row"] for reject in refused] == [
        2,
        3,
        4,
        5,
        6,
    ]
    with (tmp_path / "a.ndjson").open("ab") as file:
        file.write(b"\n{still bad")
    again = run("import", "a.ndjson", "--rejects", "bad.ndjson", "--json")
    assert tally(again.json) == {"stored": 0, "duplicate": 2, "rejected": 6}
    assert len((tmp_path / "bad.ndjson").read_text().splitlines()) == 6


@pytest.mark.parametrize(
    ("text", "refused"),
    [("a,b\n1,2\n3\n4,5,6\n", 2), ("a,b\n1,x\n", 1), ('a,b\n"1\n2",3\n', 1)],
)
def test_csv_rows_that_do_not_fit(run, tmp_path, text, refused):
    """Too few cells, too many, and values that are not of the type asked for, are refused one by one."""
    (tmp_path / "a.csv").write_text(text)
    output = run("import", "a.csv", "--event", "E", "--property", "a:int", "--property", "b:int", "--json")
    assert (output.code, output.json["rejected"]) == (1, refused)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nothing.csv"], "does not exist"),
        (["a.csv", "--map", "user=a"], "FIELD=COLUMN"),
        (["a.csv", "--map", "user_id=c"], "there is no column 'c'. There are a, b"),
        (["a.csv", "--format", "xml"], "none of ndjson"),
        (["a.csv", "--timezone", "Mars"], "not a time zone"),
        (["a.bin"], "Give --format"),
        (["cut.gz"], "cannot be read: "),
        (["cut.ndjson.gz"], "stopped after row 0"),
    ],
)
def test_errors_of_an_import(run, tmp_path, options, message):
    """Exit code 2 and one line that says what to change."""
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "a.bin").write_bytes(b"\0\1")
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b'{"event":"E"}\n')[:-9])
    (tmp_path / "cut.ndjson.gz").write_bytes((tmp_path / "cut.gz").read_bytes())
    output = run("import", *options)
    assert output.code == 2
    assert message in output.err
    assert output.err.count("\n") == 1


def test_stdin_has_no_position_but_the_same_ids(tmp_path):
    """What is piped in twice within the window is stored once."""
    for expected in ({"stored": 500, "duplicate": 0}, {"stored": 0, "duplicate": 500}):
        done = lakebed("import", "-", "--root", tmp_path, "--json", stdin=gzip.compress(segment_lines(500, ids=False)))
        assert done.returncode == 0, done.stderr
        assert tally(json.loads(done.stdout)) == expected | {"rejected": 0}


def test_ctrl_c_while_nothing_comes_from_stdin(tmp_path):
    """It ends at once, although a read that waits cannot be interrupted, and what came before is stored."""
    process = started("import", "-", "--root", tmp_path, stdin=subprocess.PIPE)
    process.stdin.write(b'{"event":"E"}\n' * 400_000)
    process.stdin.flush()
    wait_for_log(process, tmp_path, 100_000)
    process.send_signal(signal.SIGINT)
    process.wait(30)  # with its stdin open
    _, err = process.communicate()
    assert (process.returncode, b"Traceback" in err) == (130, False), err
    assert stored(tmp_path)[0][0] > 0


def test_positions_of_a_newer_lakebed_are_left_alone(run, tmp_path):
    """Exit code 4, and nothing is imported."""
    run("track", "Seen")
    with sqlite3.connect(tmp_path / "data" / "default" / FILE_NAME) as positions:
        positions.execute("PRAGMA user_version = 9")
    positions.close()
    (tmp_path / "a.ndjson").write_bytes(segment_lines(3))
    assert run("import", "a.ndjson").code == 4
    assert stored("data") == [(1, 1)]
