"""The tools, as an assistant's client reaches them: the SDK's own, over stdio and over HTTP."""

from __future__ import annotations

import json
import socket
import subprocess
from contextlib import asynccontextmanager

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

from lakebed import connect
from lakebed.cli.app import run
from lakebed.clients.client import Table
from lakebed.mcp.server import MAX_CHARACTERS, MAX_ROWS, TOOLS, as_text
from tests.cli.program import COMMAND, environment
from tests.reports.report_samples import EVENTS, SAMPLES

NAMED = {"query-funnel": "funnel", "query-trends": "segmentation", "query-retention": "retention"}
COUNTED = "SELECT event, count(*) AS n FROM events GROUP BY 1 ORDER BY 2 DESC"
FILES = "SELECT content FROM read_text('/etc/passwd')"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("mcp")
    with connect(root, "default") as analytics:
        analytics.batch(EVENTS)
        analytics.identify("a", {"email": "ann@example.com"})
    yield root
    with connect(root, "default") as analytics:
        assert analytics.check() == []
        assert analytics.stats().next_seq == len(EVENTS) + 1, "tools only read"


@asynccontextmanager
async def over_stdio(root):
    command, *arguments = [*COMMAND, "mcp", "--root", str(root)]
    server = StdioServerParameters(command=command, args=arguments, env=environment())
    async with stdio_client(server) as (read, write), ClientSession(read, write) as session:
        await session.initialize()
        yield session


@asynccontextmanager
async def over_http(root):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [*COMMAND, "mcp", "--root", str(root), "--http", address]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment()) as process:
        try:
            while b"tools at" not in (line := process.stderr.readline()):
                assert line, "it ended"
            await _listening(address)
            async with (
                streamable_http_client(f"http://{address}/mcp") as (read, write, _),
                ClientSession(read, write) as session,
            ):
                await session.initialize()
                yield session
        finally:
            process.terminate()
            process.stderr.read()


async def _listening(address):
    import asyncio

    host, port = address.split(":")
    for _ in range(500):
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            await asyncio.sleep(0.02)  # uvicorn says nothing when it begins to listen
        else:
            writer.close()
            return
    raise AssertionError("it does not listen")


@pytest.mark.parametrize("way", [over_stdio, over_http], ids=["stdio", "http"])
async def test_each_tool_answers(root, way):
    """Each tool is listed as read-only and answers; a refusal is an error that says what to do."""
    async with way(root) as session:
        listed = (await session.list_tools()).tools
        assert [tool.name for tool in listed] == list(TOOLS)
        assert all(tool.annotations.readOnlyHint and tool.description for tool in listed)

        async def ask(tool, **arguments):
            answer = await session.call_tool(tool, arguments)
            return answer.isError, answer.content[0].text

        failed, text = await ask("execute-sql", sql=COUNTED)
        assert (failed, text.splitlines()[:2]) == (False, ['["event","n"]', '["Seen",70]'])
        for tool, report in NAMED.items():
            failed, text = await ask(tool, **SAMPLES[report])
            assert not failed, text
            head, first = map(json.loads, text.splitlines()[:2])
            assert len(head) == len(first) > 2
        failed, text = await ask("read-data-schema")
        assert not failed
        assert '["person_id"]' in text
        assert '"Bought"' in text
        failed, text = await ask("read-data-schema", event="Bought")
        assert '["plan"' in text
        assert "VARCHAR" in text
        failed, text = await ask("list-people", search="ANN@")
        assert (failed, json.loads(text.splitlines()[1])[0]) == (False, "a")
        failed, text = await ask("execute-sql", sql=FILES)
        assert failed
        assert "read_text is not allowed" in text
        failed, text = await ask("query-funnel", steps=["A"], within="soon")
        assert failed
        assert "7d" in text
        failed, text = await ask("query-funnel", steps="A")
        assert failed
        failed, text = await ask("execute-sql", sql="DROP TABLE events")
        assert failed


def test_long_answers_are_cut_and_say_so():
    """An answer fits an assistant's memory; what is missing is counted."""
    many = as_text({"": Table(("n",), [(n,) for n in range(MAX_ROWS + 7)])})
    assert many.splitlines()[-1].startswith("(7 of 507 rows are left out")
    wide = as_text({"": Table(("text",), [("x" * 1000,)] * 100)})
    assert len(wide) < MAX_CHARACTERS + 200
    assert "rows are left out" in wide
    assert as_text({"A": Table(("n",), [])}) == '# A\n["n"]\n(no rows)'


@pytest.mark.parametrize("address", ["0.0.0.0:1", "example.com:80", "127.0.0.1", "127.0.0.1:0", "x"])
def test_only_this_machine_is_served(tmp_path, address, capsys):
    """The tools have no key, so an address that others reach is refused."""
    assert run(["mcp", "--root", str(tmp_path), "--http", address]) == 2
    assert "127.0.0.1" in capsys.readouterr().err


async def test_another_host_is_refused(root):
    """A web page that has a name lead to this machine (DNS rebinding) reaches no tool."""
    import httpx

    from lakebed.cli.place import Place
    from lakebed.mcp.server import make_app

    with Place(root, "default").client(trusted=False) as client:
        app = make_app(client, ["127.0.0.1:9"])
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://evil.example") as http:
                answer = await http.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    assert answer.status_code == 421
