"""The same commands, asked of a running server, and of the object itself."""

from __future__ import annotations

import json
import re
import signal
import threading
from contextlib import contextmanager

import pytest

from lakebed import connect
from lakebed.auth.keys import Keys
from tests.cli.program import started

pytestmark = pytest.mark.integration


@contextmanager
def served(root):
    """`lakebed serve` on a free port: its address."""
    process = started("serve", "--root", root, "--port", "0")
    seen = b""
    while not (match := re.search(rb"http://127\.0\.0\.1:(\d+)", seen)):
        line = process.stderr.readline()
        assert line, seen
        seen += line
    drain = threading.Thread(target=process.stderr.read, name="drain")
    drain.start()
    try:
        yield f"http://127.0.0.1:{int(match[1])}"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM)
        drain.join()
        process.stdout.close()
        process.stderr.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    keys = {scope: Keys(root).create("shop", scope)[1] for scope in ("write", "read", "admin")}
    with served(root) as url:
        yield {scope: {"LAKEBED_URL": url, "LAKEBED_KEY": key} for scope, key in keys.items()} | {"root": root}
    with connect(root, "shop") as shop:
        assert shop.check() == []


@pytest.fixture
def ask(run, monkeypatch):
    """Runs a command with --json and variables: its output; its exit code must be `code`."""

    def ask_it(*arguments, code=0, **variables):
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, str(value))
            output = run(*arguments, "--json")
        assert output.code == code, output.err
        return output.json if output.out else output.err

    return ask_it


def test_track_stats_and_dau(server, ask):
    """A write key writes, a read key reads; the answers have the form that they have without a server."""
    root, write, read = server["root"], server["write"], server["read"]
    answer = ask("track", "Seen", '{"n": 1}', "--user-id", "ann", "--message-id", "m1", **write)
    assert (answer["status"], answer["messageId"]) == ("stored", "m1")
    assert ask("track", "Seen", "--message-id", "m1", **write)["status"] == "duplicate"
    assert ask("stats", **read)["totals"]["Seen"] == 1
    assert [day["dau"] for day in ask("dau", "--days", "2", **read)] == [0, 1]
    assert "--url" in ask("stats", "--root", root, "--object", "shop", code=3)
    assert "403" in ask("stats", code=2, **write)


def test_query(server, ask):
    """Columns, types and where it came from; what the sandbox refuses is code 2 with its words."""
    ask("track", "Asked", **server["write"])
    sql = "SELECT event, count(*) AS n FROM events WHERE event = $name GROUP BY 1"
    assert ask("query", sql, "--params", '{"name": "Asked"}', **server["read"]) == [{"event": "Asked", "n": 1}]
    assert "400" in ask("query", "SELECT * FROM read_csv('/etc/passwd')", code=2, **server["read"])


def test_a_table_larger_than_an_answer_of_rpc(server, ask):
    """RPC answers have at most 8 MiB; a table of a command comes through all the same."""
    ask("track", "Asked", **server["write"])
    sql, params = "SELECT range AS n, $text AS text FROM range(10000)", json.dumps({"text": "x" * 1000})
    rows = ask("query", sql, "--params", params, **server["read"])
    assert [row["n"] for row in rows] == list(range(10_000))


@pytest.mark.parametrize("remote", [True, False])
def test_dead_letters(server, ask, tmp_path, remote):
    """Listed, shown, mended and replayed, purged: the same through a server and without one."""
    if remote:
        admin = server["admin"]
        assert ask("track", "", code=1, **server["write"])["reason"] == "event name is empty"
    else:
        admin = {"LAKEBED_ROOT": str(tmp_path)}
        (tmp_path / "bad.ndjson").write_text('{"event":""}\n{"event":"fine"}\n{nope\n')
        answer = ask("import", tmp_path / "bad.ndjson", code=1, **admin)
        assert (answer["stored"], answer["rejected"]) == (1, 2)
        lines = ask("deadletters", "list", "--reason", "is not an event", **admin)
        assert [line["preview"] for line in lines] == ["{nope\n"]
        assert ask("deadletters", "purge", lines[0]["id"], **admin) == {"purged": 1}
    (letter,) = ask("deadletters", "list", **admin)
    assert "name is empty" in letter["reason"]
    shown = ask("deadletters", "show", letter["id"], **admin)
    assert json.loads(shown["raw"])["event"] == ""
    assert ask("deadletters", "replay", "--dry-run", **admin) == [letter]
    assert ask("deadletters", "replay", letter["id"], code=1, **admin)[0]["status"] == "rejected"
    mended = ask("deadletters", "replay", letter["id"], "--patch", '{"event": "Mended"}', **admin)
    assert mended[0]["status"] == "stored"
    assert ask("deadletters", "list", **admin) == []
    assert ask("stats", **admin)["totals"]["Mended"] == 1
    assert "no dead letter" in ask("deadletters", "show", letter["id"], code=2, **admin)
    assert ask("deadletters", "purge", "--before", "2100-01-01", **admin) == {"purged": 0}


@pytest.mark.parametrize("remote", [True, False])
def test_people(server, ask, tmp_path, remote):
    """Shown, merged, audited, unmerged: the same through a server and without one."""
    admin = server["admin"] if remote else {"LAKEBED_ROOT": str(tmp_path)}
    for user in ("ann/1", "bob"):
        ask("track", "Seen", "--user-id", user, **admin)
    assert ask("people", "show", "ann/1", **admin)["events"] == 1
    merge = ask("people", "merge", "ann/1", "bob", "--why", "one desk", **admin)
    assert ask("people", "show", "bob", **admin)["ids"] == ["ann/1", "bob"]
    assert [(record["id"], record["why"]) for record in ask("people", "merges", "bob", **admin)] == [
        (merge["id"], "one desk")
    ]
    ask("people", "unmerge", merge["id"], **admin)
    assert ask("people", "show", "bob", **admin)["ids"] == ["bob"]
    assert "nobody" in ask("people", "show", "nobody", code=2, **admin) or remote


@pytest.mark.parametrize("remote", [True, False])
def test_cohorts(server, ask, tmp_path, remote):
    """Saved, listed, shown with their size, used, deleted: the same through a server and without one."""
    admin = server["admin"] if remote else {"LAKEBED_ROOT": str(tmp_path)}
    for user in ("cohort-ann", "cohort-bob"):
        ask("track", "Cohort Seen", "--user-id", user, **admin)
    definition = {"all": [{"did": "Cohort Seen"}, {"not": {"people": ["cohort-bob"]}}]}
    saved = ask("cohorts", "save", "but/bob", json.dumps(definition), **admin)
    assert (saved["name"], saved["version"], saved["definition"]) == ("but/bob", 1, definition)
    assert ask("cohorts", "list", **admin) == [saved]
    assert ask("cohorts", "show", "but/bob", **admin) == saved | {"people": 1}
    assert [row["person_id"] for row in ask("cohort-people", "but/bob", **admin)] == ["cohort-ann"]
    file = tmp_path / "definition.json"
    file.write_text('{"any": [{"cohort": "but/bob"}]}')
    assert ask("cohorts", "save", "same", f"@{file}", **admin)["version"] == 1
    assert "is part of same" in ask("cohorts", "delete", "but/bob", code=2, **admin)
    assert "no cohort" in ask("cohorts", "show", "nobody", code=2, **admin)
    assert "any[0]" in ask("cohorts", "save", "bad", '{"any": [{"dit": "Seen"}]}', code=2, **admin)
    for name in ("same", "but/bob"):
        assert ask("cohorts", "delete", name, **admin) == {"deleted": name}
    assert ask("cohorts", "list", **admin) == []
    assert "not JSON" in ask("cohorts", "save", "bad", "{did: Seen}", code=2, **admin)


@pytest.mark.parametrize("remote", [True, False])
def test_billing(server, ask, tmp_path, remote):
    """Price books, invoices and quotas, every number text: the same through a server and without one."""
    admin = server["admin"] if remote else {"LAKEBED_ROOT": str(tmp_path)}
    used = {"organization_id": "acme", "sku": "calls", "quantity": "1200.000000001", "unit": "call"}
    ask("track", "Used", json.dumps(used), "--timestamp", "2025-01-05T00:00:00Z", **admin)
    book = {"currency": "EUR", "prices": {"calls": {"model": "per_unit", "amount": "0.002"}}}
    file = tmp_path / "book.json"
    file.write_text(json.dumps(book))
    saved = ask("price-books", "save", "a/b", f"@{file}", **admin)
    assert (saved["name"], saved["version"], saved["document"]) == ("a/b", 1, book)
    assert ask("price-books", "list", **admin) == [saved]
    issued = ask("invoice", "acme", "2025-01", "--price-book", "a/b", "--version", 1, "--issue", **admin)
    assert (issued["issued"], issued["total"], issued["price_book_version"]) == (True, "2.40", 1)
    assert issued["lines"] == [{"sku": "calls", "unit": "call", "quantity": "1200.000000001", "amount": "2.40"}]
    assert ask("invoices", "acme", **admin) == [issued]
    assert ask("invoices", "other", **admin) == []
    quota = ask("quotas", "save", "acme", "calls", "10.5", "--period", "day", "--threshold", 0.5, **admin)
    assert (quota["limit"], quota["period"], quota["thresholds"], quota["used"]) == ("10.5", "day", [0.5], "0")
    assert ask("quotas", "list", **admin) == [quota]
    assert "no price book 'c'" in ask("invoice", "acme", "2025-02", "--price-book", "c", code=2, **admin)
    assert "limit is" in ask("quotas", "save", "acme", "calls", "many", code=2, **admin)


@pytest.mark.parametrize("remote", [True, False])
def test_datasets(server, ask, tmp_path, remote):
    """Saved, listed, shown, deleted: the same through a server and without one."""
    admin = server["admin"] if remote else {"LAKEBED_ROOT": str(tmp_path)}
    ask("track", "Hit", **admin)
    saved = ask("datasets", "save", "a/b", '{"event": "Hit", "blobs": ["plan"]}', **admin)
    assert (saved["name"], saved["version"], saved["mapping"]) == ("a/b", 1, {"event": "Hit", "blobs": ["plan"]})
    assert ask("datasets", "list", **admin) == [saved]
    assert ask("datasets", "show", "a/b", **admin) == saved
    assert "no mapping" in ask("datasets", "show", "b", code=2, **admin)
    assert "cannot be read" in ask("datasets", "save", "b", "{}", code=2, **admin)
    assert ask("datasets", "delete", "a/b", **admin) == {"deleted": "a/b"}
    assert "no mapping" in ask("datasets", "delete", "a/b", code=2, **admin)
    assert ask("datasets", "list", **admin) == []


@pytest.mark.parametrize("command", [["stats"], ["query", "SELECT 1"], ["deadletters", "list"]])
def test_a_server_that_is_not_lakebed(ask, command):
    """Code 3, and the address; no traceback."""
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Hello(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>hello")

        def do_GET(self):
            self.do_POST()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Hello) as other:
        thread = threading.Thread(target=other.handle_request, name="hello")
        thread.start()
        answer = ask(*command, "--url", f"http://127.0.0.1:{other.server_port}", code=3)
        thread.join()
    assert f"http://127.0.0.1:{other.server_port}" in answer
    assert "JSON" in answer
