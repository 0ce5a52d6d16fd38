"""What single commands do, and how they say it."""

from __future__ import annotations

import csv
import io
import json
import tomllib

import pyarrow.parquet as pq
import pytest

from lakebed import Settings, connect
from lakebed.auth.keys import Keys
from lakebed.cli.serve import settings_text

pytestmark = pytest.mark.integration  # whole commands over whole objects


def rows(output):
    return list(csv.DictReader(io.StringIO(output.out), dialect="excel-tab"))


def test_track_and_query(run):
    """One event; its receipt; a retry; the answer as lines with tabs, and as JSON with its types."""
    options = ["--user-id", "ann", "--timestamp", "2026-01-02T03:04:05Z", "--message-id", "m1"]
    first = run("track", "Signed Up", '{"plan": "pro", "n": 1}', *options, "--json")
    assert (first.code, first.json) == (0, {"messageId": "m1", "status": "stored", "seq": 0})
    assert run("track", "Signed Up", *options, "--json").json["status"] == "duplicate"
    sql = (
        "SELECT event, user_id, timestamp, (properties->>'n')::INT AS n, NULL AS nothing, 'a\tb\nc' AS odd FROM events"
    )
    output = run("query", sql)
    assert rows(output) == [
        {
            "event": "Signed Up",
            "user_id": "ann",
            "timestamp": "2026-01-02T03:04:05+00:00",
            "n": "1",
            "nothing": "",
            "odd": "a\\tb\\nc",
        }
    ]
    assert run("query", sql, "--json").json[0]["timestamp"] == "2026-01-02T03:04:05Z"
    assert run("query", "SELECT count(*) AS n FROM events", "--as-of", "2020-01-01T00:00:00Z", "--json").json == [
        {"n": 0}
    ]


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (["track", ""], 1, "event name is empty"),
        (["track", "A", "[1]"], 2, "must be a JSON object"),
        (["query", "DELETE FROM events"], 2, "SELECT"),
        (["query", "SELECT * FROM range(9)", "--params", "{"], 2, "--params is not JSON"),
        (["query", "SELECT 1", "--as-of", "never"], 2, "never"),
        (["query", "SELECT * FROM events", "--snapshot", "7"], 2, "7"),
        (["stats", "--url", "ftp://x"], 2, "http"),
        (["stats", "--url", "http://127.0.0.1:9"], 3, "lakebed serve"),
        (["stats", "--class", "no.such:Thing"], 2, "module:Class"),
        (["keys", "create", "root"], 2, "is not a scope"),
        (["keys", "revoke", "abc"], 2, "no key"),
        (["serve", "--host", "0.0.0.0"], 2, "0.0.0.0"),  # noqa: S104 - it is refused
    ],
)
def test_an_error_is_one_line_and_an_exit_code(run, command, code, message):
    """No traceback; what is wrong, and what to do."""
    run("track", "Seen")
    output = run(*command)
    assert output.code == code
    assert message in output.err + output.out
    assert "Traceback" not in output.err


def test_stats_and_dau(run):
    """The same numbers as the object gives."""
    for user in ("a", "b", "a"):
        run("track", "Seen", "--user-id", user)
    facts = dict(line.split("\t") for line in run("stats").out.splitlines())
    assert (facts["totals.Seen"], facts["next_seq"]) == ("3", "3")
    assert run("stats", "--json").json["totals"] == {"Seen": 3}
    days = run("dau", "--days", "2", "--json").json
    assert [(day["dau"], day["events"]) for day in days] == [(0, 0), (2, 3)]


def test_template(run):
    """A named question with its parameters; an error names the wrong parameter."""
    for user in ("ann", "ann", "bob"):
        run("track", "Signed Up", "--user-id", user)
    assert [row["events"] for row in run("template", "top-users", "--param", "limit=1", "--json").json] == [2]
    for wrong in (["--param", "limit=x"], ["--param", "limit"], ["--param", "most=1"]):
        output = run("template", "top-users", *wrong)
        assert (output.code, wrong[1].partition("=")[0] in output.err) == (2, True)


def test_an_invoice_to_read(run):
    """A row for each line, for late usage with the price book that rated it, and for the total."""
    book = {"currency": "EUR", "prices": {"calls": {"model": "per_unit", "amount": "0.002"}}}
    with connect("data", "default") as shop:
        shop.track_usage("acme", "calls", 1000, "call", timestamp="2025-01-05")
        shop.save_price_book("default", book)
        shop.invoice("acme", "2025-01", issue=True)
        shop.track_usage("acme", "gpu", "0.000000001", "h", timestamp="2025-01-06")
        shop.track_usage("acme", "calls", 500, "call", timestamp="2025-02-05")
        shop.save_price_book("default", book | {"prices": book["prices"] | {"gpu": {"model": "flat", "amount": "7"}}})
    output = run("invoice", "acme", "2025-02")
    names = ("period", "sku", "unit", "quantity", "amount", "currency", "price_book")
    lines = [
        ("2025-02", "calls", "call", "500", "1.00", "EUR", ""),
        ("2025-01", "gpu", "h", "0.000000001", "7.00", "EUR", "default, version 2"),
        ("total", "", "", "", "8.00", "EUR", ""),
    ]
    assert rows(output) == [dict(zip(names, line, strict=True)) for line in lines]
    assert output.err.startswith("Draft 2025-02 for acme by default, version 2, as of ")
    (listed,) = rows(run("invoices"))
    assert (listed["period"], listed["organization_id"], listed["total"]) == ("2025-01", "acme", "2.00")


def test_upkeep(run, monkeypatch):
    """Rollup, archive, compact, snapshots and expire do their work and report it, and `check` finds nothing wrong."""
    monkeypatch.setenv("LAKEBED_SNAPSHOTS_AGE_S", "0")
    monkeypatch.setenv("LAKEBED_SNAPSHOTS_KEEP", "1")
    for n in range(3):
        run("track", f"E{n}")
        assert run("archive", "--json").json["rows"] == 1
    assert run("rollup", "--json").json["seq"] == 3
    assert run("compact", "--json").json["files_before"] == 3
    ids = [row["id"] for row in run("snapshots", "--json").json]
    plan = run("expire", "--dry-run", "--json").json
    assert (plan["dry_run"], [str(snapshot) for snapshot in plan["snapshots"]]) == (True, ids[:-1])
    assert len(run("snapshots", "--json").json) == len(ids)
    old = run("query", "SELECT count(*) AS n FROM events", "--snapshot", ids[0], "--json").json
    assert old == [{"n": 1}]
    assert run("expire", "--json").json["snapshots"] == plan["snapshots"]
    assert len(run("snapshots", "--json").json) == 1
    assert run("check").code == 0


def test_check_prints_problems(run, tmp_path):
    """Code 1 and a line for each problem, of the object's own class; the other objects are checked, too."""
    (tmp_path / "troubled.py").write_text(
        "from lakebed import Analytics, Problem\n"
        "class Troubled(Analytics):\n"
        "    async def check(self):\n"
        "        return [*await super().check(), Problem('log', 'one'), Problem('log', 'two')]\n"
    )
    run("track", "Seen", "--class", "troubled:Troubled", "--object", "tom")
    run("track", "Seen", "--object", "ann")
    output = run("check", "tom", "--class", "troubled:Troubled", "--json")
    assert (output.code, [row["message"] for row in output.json]) == (1, ["one", "two"])
    assert rows(run("check"))[0] == {"object": "tom", "where": "log", "message": "one"}
    assert (run("check", "ann").code, run("check", "ann", "--json").json) == (0, [])


def test_init(run, tmp_path):
    """A directory, settings to edit, an object, three keys that work; what is there already stays."""
    made = run("init", "--object", "shop", "--json").json
    live = {key.scope for key in Keys(tmp_path / "data").list("shop")}
    assert live == {"write", "read", "admin"}
    assert made["admin_key"].startswith("lba_")
    settings = tmp_path / "data" / "lakebed.toml"
    settings.write_text("retention_s = 7200.0\n")
    again = run("init", "--object", "shop")
    assert "key" not in again.out
    assert settings.read_text() == "retention_s = 7200.0\n"
    assert "lakebed serve" in again.err


def test_the_settings_that_init_writes_are_the_defaults(tmp_path):
    """Every setting is there, explained and commented out; without the marks it is what Lakebed does anyway."""
    text = settings_text()
    assert tomllib.loads(text) == {}
    values = "\n".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("# ") and " = " in line)
    (tmp_path / "lakebed.toml").write_text(values)
    assert Settings.load(tmp_path, environ={}) == Settings()
    assert set(tomllib.loads(values)) == set(Settings.__struct_fields__)


def test_keys(run, tmp_path):
    """Made, listed without secrets, rotated, revoked; a dry run revokes nothing."""
    made = run("keys", "create", "write", "--object", "shop", "--note", "site", "--events-per-s", "5", "--json").json
    keys = Keys(tmp_path / "data")
    assert keys.list()[0].limits.events_per_s == 5
    listed = run("keys", "list", "--json")
    assert made["key"] not in listed.out
    assert [(row["id"], row["scope"], row["note"]) for row in listed.json] == [(made["id"], "write", "site")]
    assert run("keys", "list", "--object", "other", "--json").json == []
    rotated = run("keys", "rotate", made["id"], "--grace", "60", "--json").json
    assert rotated["key"] != made["key"]
    assert run("keys", "revoke", made["id"], "--dry-run", "--json").json["revoked"] is None
    assert keys.list()[0].revoked_us is None
    assert run("keys", "revoke", made["id"], "--json").json["revoked"] is not None


def everything(shop):
    columns = "message_id, type, event, user_id, anonymous_id, group_id, timestamp, source, context"
    return [tuple(row) for row in shop.query(f"SELECT {columns}, properties FROM events ORDER BY seq")]


@pytest.mark.parametrize("kind", ["ndjson", "csv", "parquet"])
def test_an_export_is_imported_unchanged(run, kind):
    """Events of all six types come back the same, in the same order; where they came from, they are duplicates."""
    with connect("data", "default") as shop:
        shop.track("A\tb", {"n": 1, "s": 'q"', "deep": {"x": [None]}}, user_id="ann", message_id="m1", context={"a": 1})
        shop.page("Docs", "Home", {"url": "/"}, anonymous_id="x", timestamp="2020-01-01T00:00:00.123456Z")
        shop.screen("Main", anonymous_id="x")
        shop.identify("ann", {"email": "a@b.c"})
        shop.group("g1", {"plan": "pro"}, user_id="ann")
        shop.alias("ann", "x")
        before = everything(shop)
    output = run("export", f"all.{kind}", "--json").json
    assert output["rows"] == 6
    again = run("import", f"all.{kind}", "--json")
    assert (again.code, again.json["duplicate"]) == (0, 6)
    assert run("import", f"all.{kind}", "--object", "copy", "--json").json["stored"] == 6
    with connect("data", "copy") as copy:
        assert everything(copy) == before
        assert copy.check() == []


def test_export_of_a_range_and_of_a_query(run, tmp_path):
    """Half-open in time; only what a query gives; Parquet keeps types; a file is replaced whole, or stays."""
    for day in (1, 2, 3):
        run("track", f"E{day}", "--timestamp", f"2026-01-0{day}T00:00:00Z")
    lines = run("export", "-", "--start", "2026-01-02", "--end", "2026-01-03T00:00:00Z").out.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["E2"]
    run("export", "q.parquet", "--sql", "SELECT event, timestamp FROM events ORDER BY 1")
    before = (tmp_path / "q.parquet").read_bytes()
    assert pq.read_table(tmp_path / "q.parquet")["event"].to_pylist() == ["E1", "E2", "E3"]
    assert run("export", "q.parquet", "--sql", "SELECT nothing FROM nowhere").code == 2
    assert (tmp_path / "q.parquet").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "q.parquet"]
