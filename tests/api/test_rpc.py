"""RPC: Cap'n Web as its own client from npm speaks it, and what may be reached by it."""

from __future__ import annotations

import asyncio
import json

import pytest

from lakebed import Analytics
from lakebed.api.app import create_app
from lakebed.api.serving import make_server
from tests.installed import node, node_modules
from tests.served import serving

CLIENT = "tests/clients/rpc.mjs"


@pytest.fixture
async def tom(tmp_path):
    async with Analytics("tom", root=tmp_path, headroom_bytes=0) as analytics:
        yield analytics
        assert await analytics.check() == []


async def run(scenario, url, **environment):
    """What a scenario of the npm client prints."""
    process = await asyncio.create_subprocess_exec(
        node(),
        "--experimental-websocket",
        "--no-warnings",
        CLIENT,
        str(node_modules()),
        scenario,
        url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": "/usr/bin:/bin", **environment},
    )
    try:
        async with asyncio.timeout(30):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    assert process.returncode == 0, err.decode()
    return json.loads(out)


@pytest.fixture
async def url(tom):
    async with serving(make_server(create_app(tom), port=0, log_level="warning")) as port:
        yield f"http://127.0.0.1:{port}/rpc"


@pytest.mark.parametrize("transport", ["batch", "socket"])
async def test_the_npm_client_pipelines_its_calls(url, tom, transport):
    """Receipts, rows, an element's column, a map that calls, counters and errors: in a batch all in one round trip."""
    found = await run(transport, url)
    print(json.dumps(found, indent=1))
    assert 0


@pytest.mark.parametrize("scenario", ["values", "errors", "watch", "forget"])
async def test_x(url, tom, scenario):
    """X."""
    found = await run(scenario, url)
    print(json.dumps(found, indent=1))
    assert 0
