"""The clients that people have, unmodified, against a real server: every call arrives once, with every field."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lakebed import connect
from tests.clients.calls import CALLS, check, many, numbers
from tests.clients.faulty_server import (
    RATE_LIMITED,
    STORED_AND_CUT_OFF,
    STORED_AND_KILLED,
    STORED_BUT_503,
    UNAVAILABLE,
    Door,
)
from tests.installed import client_python, node, node_modules


class Client(NamedTuple):
    """A client as it is installed: how it is started, and those of its public options that make it send sooner."""

    name: str
    module: str
    environment: str
    options: dict[str, Any]
    a_few: dict[str, Any]
    faults: list[dict[str, Any]]

    def send(self, door: Door, key: str, calls: list[dict[str, Any]], **more: Any) -> subprocess.Popen[str]:
        """Its process, which makes the calls and ends when they are delivered or given up."""
        if self.environment == "node":
            program, script = node(), "send.cjs"
            environment = os.environ | {"NODE_PATH": str(node_modules())}
        else:
            program, script = client_python(self.environment), "send.py"
            environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [
            program,
            str(Path(__file__).with_name(script)),
            self.module,
            key,
            door.url,
            json.dumps(self.options | more),
        ]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)
        process.stdin.write(json.dumps(calls))
        process.stdin.close()
        process.stdin = None
        return process


SOON = {"upload_interval": 0.05}
ALL_FAULTS = [UNAVAILABLE, RATE_LIMITED, STORED_BUT_503, STORED_AND_CUT_OFF]
TWO_FAULTS = [RATE_LIMITED, STORED_BUT_503]  # where the back-off is random and doubles from a second on
CLIENTS = [
    Client("segment-python", "segment.analytics", "py", SOON, {"upload_size": 5}, ALL_FAULTS),
    Client("analytics-python", "analytics", "legacy", SOON, {"upload_size": 5}, TWO_FAULTS),
    Client("rudder-python", "rudderstack.analytics", "py", SOON, {"upload_size": 5}, TWO_FAULTS),
    Client("segment-node", "@segment/analytics-node", "node", {"flushInterval": 50}, {"flushAt": 5}, TWO_FAULTS),
    Client(
        "rudder-node",
        "@rudderstack/rudder-sdk-node",
        "node",
        {"flushInterval": 50, "retryCount": 10},
        {"flushAt": 5},
        [STORED_BUT_503, STORED_AND_CUT_OFF],
    ),
]
GZIP = Client("segment-python-gzip", "segment.analytics", "py", SOON | {"gzip": True}, {}, [])
ALL_IN_NODE = CLIENTS[-1]._replace(name="rudder-node-all", faults=ALL_FAULTS)
TESTS = ("fields", "faults", "killed")


def clients(*among: Any) -> pytest.MarkDecorator:
    """A test for each client."""
    return pytest.mark.parametrize("client", among, ids=lambda client: client.name)


def slow(client: Client) -> Any:
    """One of a kind of which the normal run has another."""
    return pytest.param(client, marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    door = Door(tmp_path_factory.mktemp("door"))
    door.make_keys(f"{client.name}-{test}" for client in (*CLIENTS, GZIP, ALL_IN_NODE) for test in TESTS)
    door.open()
    yield door
    door.close()
    for directory in door.root.iterdir():
        if directory.is_dir():
            with connect(door.root, directory.name) as stored:
                assert stored.check() == [], directory.name


def gave_up(process: subprocess.Popen[str]) -> list[str]:
    """What the client did not deliver, as it says itself."""
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return json.loads(out.splitlines()[-1])


@clients(*CLIENTS, GZIP)
def test_every_call_arrives_once_with_every_field(door, client):
    """identify, track, page, screen, group and alias: ids, names, times, properties, traits and context as called."""
    name = f"{client.name}-fields"
    assert gave_up(client.send(door, door.keys[name], CALLS)) == []
    events = door.events(name)
    assert [event["type"] for event in events] == [call["type"] for call in CALLS]
    for event, call in zip(events, CALLS, strict=True):
        check(event, call)


@clients(*CLIENTS, slow(ALL_IN_NODE))
def test_calls_arrive_once_despite_errors_and_lost_answers(door, client):
    """503, 429 with Retry-After, an answer lost after the events were stored: each call arrives once all the same."""
    name = f"{client.name}-faults"
    door.faults(*client.faults)
    assert gave_up(client.send(door, door.keys[name], many(10))) == []
    assert door.left() == 0
    assert numbers(door.events(name)) == list(range(10))


@clients(*(client if client.name.startswith("segment") else slow(client) for client in CLIENTS))
def test_calls_arrive_once_when_the_server_is_killed(door, client):
    """SIGKILL after a batch was stored and before it was answered; on the same port again, every call is there once."""
    name = f"{client.name}-killed"
    key = door.keys[name]
    door.faults(STORED_AND_KILLED)
    process = client.send(door, key, many(20), **client.a_few)
    door.await_death()
    door.open()
    assert gave_up(process) == []
    assert numbers(door.events(name)) == list(range(20))


@clients(*CLIENTS)
def test_calls_with_an_unknown_key_are_not_sent_again(door, client):
    """The client reports an unknown key, and does not send again calls that will never be accepted."""
    before = len(door.posts())
    errors = gave_up(client.send(door, "no-such-key", many(3)))
    assert errors
    assert any(text in errors[0] for text in ("401", "Unauthorized"))
    assert len(door.posts()) - before <= 2  # one client sends its first event at once, on its own
