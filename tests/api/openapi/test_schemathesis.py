"""Schemathesis makes valid and invalid requests from /openapi.json: none is answered with 5xx."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lakebed import Analytics, connect
from lakebed.api import create_app
from tests.api.socket_server import call, served
from tests.installed import client_python

pytestmark = pytest.mark.integration

# Streams that do not end, and routes that take longer than an example may.
_LEFT_OUT = ["/live"]


def run(root, examples, phases, seconds):
    """Run schemathesis on a server over an object with a few events; return its finished process."""
    program = Path(client_python()).parent / "schemathesis"
    with served(create_app(Analytics("default", root=root), body_timeout_s=2.0), log_level="critical") as port:
        for n in range(5):
            call(port, "/track", b'{"event":"Seen","userId":"u%d"}' % n)
        arguments = [
            *(program, "run", f"http://127.0.0.1:{port}/openapi.json"),
            *("--checks", "not_a_server_error,content_type_conformance,response_schema_conformance"),
            *("--max-examples", str(examples), "--seed", "7", "--phases", phases),
            *("--generation-database", "none", "--request-timeout", "20", "--no-color"),
            *(part for path in _LEFT_OUT for part in ("--exclude-path", path)),
        ]
        process = subprocess.run(arguments, capture_output=True, text=True, timeout=seconds, check=False, cwd=root)
        assert call(port, "/health/ready")[0] == 200
    with connect(root, "default") as analytics:
        assert analytics.check() == []
    return process


def test_no_request_is_a_server_error(tmp_path):
    """A few examples of each route."""
    process = run(tmp_path, 2, "examples,fuzzing", 120)
    assert process.returncode == 0, process.stdout[-6000:] + process.stderr[-2000:]


@pytest.mark.slow
def test_no_request_is_a_server_error_at_length(tmp_path):
    """Many examples of each route."""
    process = run(tmp_path, 50, "examples,coverage,fuzzing,stateful", 1800)
    assert process.returncode == 0, process.stdout[-6000:] + process.stderr[-2000:]
