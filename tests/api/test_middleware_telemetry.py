"""Logs: a line for each request with the facts that an operator needs, and no secret."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import httpx
import pytest

from lakebed import Analytics, Namespace
from lakebed.api import create_app
from lakebed.api.server import JsonFormatter
from lakebed.auth.keys import Keys
from lakebed.clock import SystemClock

pytestmark = pytest.mark.integration


def client(app):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://127.0.0.1")


@pytest.fixture
def lines(caplog):
    """The lines of requests so far, as they are written."""
    caplog.set_level(logging.INFO, logger="lakebed.access")

    def written():
        return [
            json.loads(JsonFormatter().format(record)) for record in caplog.records if record.name == "lakebed.access"
        ]

    return written


async def test_a_line_for_each_request(tmp_path, lines):
    """Method, route as a template, status, milliseconds, bytes, object and key's id; never the key, body or query."""
    key, secret = Keys(tmp_path, SystemClock()).create("tom", "admin")
    headers = {"authorization": f"Bearer {secret}"}
    async with Namespace(tmp_path, Analytics) as namespace, client(create_app(namespace)) as http:
        await http.post("/track", json={"event": "Told in confidence"}, headers=headers)
        await http.get("/dau", params={"days": "3"}, headers=headers)
        await http.get("/v1/projects/a-write-key/settings")
        await http.get("/nope/with/a-secret")
        await http.post("/track", json={"event": "a"})
    entries = lines()
    assert [(line["method"], line["route"], line["status"]) for line in entries] == [
        ("POST", "/track", 200),
        ("GET", "/dau", 200),
        ("GET", "/v1/projects/{write_key}/settings", 401),
        ("GET", "none", 404),
        ("POST", "/track", 401),
    ]
    assert [(line.get("object"), line.get("key")) for line in entries] == [("tom", key.id)] * 2 + [(None, None)] * 3
    assert entries[0]["bytes_in"] == len(b'{"event":"Told in confidence"}')
    assert all(line["bytes_out"] > 0 and line["ms"] >= 0 for line in entries)
    text = json.dumps(entries)
    assert not [word for word in (secret, "confidence", "a-write-key", "a-secret", "days") if word in text]


async def test_no_line_above_info(tmp_path, caplog):
    """Above INFO no line is formatted or written."""
    caplog.set_level(logging.WARNING, logger="lakebed.access")
    async with Analytics("tom", root=tmp_path) as tom, client(create_app(tom)) as http:
        await http.get("/stats")
    assert not [record for record in caplog.records if record.name == "lakebed.access"]


def test_a_traceback_is_one_line():
    """Each record is one JSON object without a line break."""
    try:
        int("a\nb")
    except ValueError:
        record = logging.getLogger("x").makeRecord("x", 40, "f", 1, "went %s\n", ("wrong",), sys.exc_info())
    line = JsonFormatter().format(record)
    assert "\n" not in line
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == ("ERROR", "x", "went wrong\n")
    assert "ValueError: invalid literal" in entry["exception"]
    assert entry["time"].endswith("Z")


@pytest.mark.parametrize("plain", [True, False])
def test_all_lines_of_a_server(plain):
    """uvicorn's lines and ours go to standard error in the same form."""
    code = (
        "import logging\nfrom lakebed.api.server import configure_logs\n"
        f"configure_logs(plain={plain})\n"
        "logging.getLogger('uvicorn.error').info('started')\nlogging.getLogger('lakebed.access').info('asked')\n"
        "logging.getLogger('lakebed').debug('not this')\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = process.stderr.splitlines()
    assert len(lines) == 2
    assert process.stdout == ""
    if plain:
        assert lines[0].endswith("INFO uvicorn.error: started")
    else:
        assert [json.loads(line)["message"] for line in lines] == ["started", "asked"]
