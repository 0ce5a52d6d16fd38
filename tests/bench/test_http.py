"""The load on the front door, and what is read of it."""

import json
import shutil

import pytest

from bench import __main__ as command
from bench import front
from bench.subjects import http

SAID = """Running 4s test @ http://127.0.0.1:1/v1/track
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    25.10ms    9.74ms  71.58ms   91.03%
    Req/Sec     2.61k   300.00     3.20k    80.00%
  Latency Distribution
     50%  850.00us
     75%   30.00ms
     90%   40.00ms
     99%    1.20s
  10402 requests in 4.00s, 2.67MB read
Requests/sec:   2600.62
Transfer/sec:    684.37KB
"""


def test_the_output_of_wrk_is_parsed():
    """Requests a second, and percentiles in milliseconds whatever their unit."""
    assert front._read(SAID) == {"rate": 2600.62, "p50": 0.85, "p99": 1200.0}


def test_a_run_with_an_answer_other_than_200_does_not_count():
    """Refusals are fast: a run with one of them does not count."""
    with pytest.raises(AssertionError):
        front._read(SAID + "  Non-2xx or 3xx responses: 1\n")


def test_every_event_of_a_body_can_be_numbered():
    """Every event of the bodies has the place where the load generator writes its number."""
    for body in http.batches():
        assert len(json.loads(body)["batch"]) == body.count(b"@@@@@@@@@@@@") == http.EACH
    assert all(body.count(b"@@@@@@@@@@@@") == 1 for body in http.singles())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is absent: apt-get install wrk")
def test_the_http_subject_has_every_figure(tmp_path):
    """Server, load, in-process peer and tenants, at their smallest: every cell has a figure."""
    file = tmp_path / "out.json"
    options = ["--size", "0.001", "--runs", "1", "--directory", str(tmp_path), "--json", str(file)]
    assert command.main(["http", *options]) == 0
    assert all(row["lakebed"]["median"] > 0 for row in json.loads(file.read_bytes())["rows"])
