"""Hostile bodies: each is refused with a reason, and the server still works."""

from __future__ import annotations

import gzip
import http.client
import time
import zlib

import pytest

from lakebed import Analytics, connect
from lakebed.api import create_app
from tests.api.socket_server import call, served

GOOD = b'{"event":"Seen","userId":"u"}'

JSON = {
    "empty": b"",
    "spaces": b"  \n ",
    "not json": b"hello",
    "cut": GOOD[:-1],
    "trailing data": GOOD + b"]",
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "utf-16": GOOD.decode().encode("utf-16"),
    "bad utf-8": b'{"event":"\xff\xfe"}',
    "bad utf-8 in what is not read": b'{"event":"a","properties":{"x":"\xc3("}}',
    "overlong utf-8": b'{"event":"\xc0\xaf"}',
    "a lone surrogate": b'{"event":"\\ud800"}',
    "a lone surrogate in properties": b'{"event":"a","properties":{"x":"\\udc00"}}',
    "nan": b'{"event":"a","properties":{"x":NaN}}',
    "infinity": b'{"event":"a","properties":{"x":-Infinity}}',
    "1e999": b'{"event":"a","properties":{"x":1e999}}',
    "5,000 digits": b'{"event":"a","properties":{"x":%s}}' % (b"9" * 5000),
    "5,000 digits as an id": b'{"event":"a","userId":%s}' % (b"9" * 5000),
    "a timestamp of 5,000 digits": b'{"event":"a","timestamp":%s}' % (b"9" * 5000),
    "deep arrays": b'{"event":"a","properties":{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    "deep objects": b'{"event":"a","properties":' + b'{"x":' * 100_000 + b"1" + b"}" * 100_001,
    "a little too deep": b'{"event":"a","properties":' + b'{"x":' * 40 + b"1" + b"}" * 41,
    "only brackets": b"[" * 1_000_000,
    "only braces": b"{" * 1_000_000,
    "a number": b"7",
    "text": b'"Seen"',
    "null": b"null",
    "a null event": b'{"event":null}',
    "an event that is a list": b'{"event":["a"]}',
    "properties that are text": b'{"event":"a","properties":"x"}',
    "a huge name": b'{"event":"%s"}' % (b"x" * 100_000),
    "a control character": b'{"event":"a\x00b"}',
}
OBJECTS = {"a little too deep", "a null event", "an event that is a list", "properties that are text", "a huge name"}
OBJECTS |= {"a control character", "1e999", "5,000 digits", "5,000 digits as an id", "a timestamp of 5,000 digits"}
ENCODED = {
    "not gzip": ("gzip", GOOD),
    "cut gzip": ("gzip", gzip.compress(GOOD)[:-5]),
    "gzip with a wrong checksum": ("gzip", gzip.compress(GOOD)[:-8] + bytes(8)),
    "gzip and more": ("gzip", gzip.compress(GOOD) + b"more"),
    "gzip in gzip": ("gzip", gzip.compress(gzip.compress(GOOD))),
    "cut deflate": ("deflate", zlib.compress(GOOD)[:-5]),
    "not brotli": ("br", GOOD),
    "not zstd": ("zstd", GOOD),
    "empty gzip": ("gzip", b""),
}
PATHS = ["/track", "/track/batch", "/v1/track", "/v1/batch"]


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    """A server for all tests of this file. At the end its object passes its check and has only the valid events."""
    root = tmp_path_factory.mktemp("door")
    with served(create_app(Analytics("default", root=root), max_body_bytes=2 << 20)) as port:
        yield port
    with connect(root, "default") as analytics:
        assert analytics.check() == []
        assert set(analytics.stats().totals) == {"Alive", "b"}


def refused(port, path, body, **headers):
    """Check that `body` is refused with a reason and that the server accepts the next event; return the status."""
    status, answer, _ = call(port, path, body, **{"Content-Type": "application/json"} | headers)
    if status == 200:  # a batch has a reason for each item
        assert answer["stored"] == answer["duplicate"] == 0
        assert answer["rejected"] == answer["received"]
        reasons = [event["reason"] for event in answer["events"]]
    else:
        assert status in (400, 413)
        reasons = [answer["error"]["message"]]
    assert all(reasons)
    assert call(port, "/track", b'{"event":"Alive"}')[0] == 200
    return status


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", JSON)
def test_json_that_must_be_refused(door, path, name):
    """400 with a reason; in a batch that can be read, 200 in which each item is rejected with its own."""
    body = JSON[name]
    if path == "/v1/batch" and body.strip():
        body = b'{"batch":[%s]}' % body
    status = refused(door, path, body)
    # Segment's clients drop or repeat requests with another status, so under /v1 a refused object is 200 and a reason.
    if path == "/track" or (path == "/v1/track" and name not in OBJECTS):
        assert status == 400


# Under /v1 gzip is recognised by its content, for clients that send no header: there gzip in gzip is valid.
@pytest.mark.parametrize(
    ("name", "path"),
    [(name, path) for name in ENCODED for path in PATHS if not (name == "gzip in gzip" and path.startswith("/v1"))],
)
def test_encodings_that_must_be_refused(door, path, name):
    """A body that does not fit its Content-Encoding is 400, on every route."""
    encoding, body = ENCODED[name]
    assert refused(door, path, body, **{"Content-Encoding": encoding}) == 400


@pytest.mark.integration
@pytest.mark.parametrize("path", PATHS)
def test_a_bomb_over_a_socket(door, path):
    """100 MB of zeros in 102 KB is 413, and other clients are answered meanwhile."""
    bomb = gzip.compress(bytes(100 << 20), 9)
    assert len(bomb) < 110_000
    assert refused(door, path, bomb, **{"Content-Encoding": "gzip"}) == (
        400 if path.startswith("/v1") else 413
    )  # Segment's status


def test_the_last_of_equal_names_counts(door):
    """JSON allows equal names and does not define them: the last counts, as for most parsers."""
    assert call(door, "/track", b'{"event":"a","event":"b"}')[1]["status"] == "stored"


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /track HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\nXX",
        b"POST /track HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n0\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 1000,
    ],
)
def test_a_malformed_head_ends_the_connection(door, head):
    """A malformed head, or one with two lengths, is never partly used."""
    connection = http.client.HTTPConnection("127.0.0.1", door, timeout=20)
    connection.connect()
    connection.sock.sendall(head)
    answer = b"".join(iter(lambda: connection.sock.recv(65536), b""))
    connection.close()
    assert not answer or answer.split()[1].startswith(b"4")
    assert call(door, "/track", b'{"event":"Alive"}')[0] == 200


def test_many_distinct_names_and_items(door):
    """A body of a million small values is answered within its limits, and does not block the server."""
    bodies = [
        b"[" + b"1," * 900_000 + b"1]",
        b"[" + b"1," * 900_000 + b"NaN]",
        b"1\n" * 900_000,
        b'{"batch":[' + b"{}," * 600_000 + b"{}]}",
        b"[" + b"[]," * 600_000 + b"{]",
        b"[" + b'"\\"' * 900_000,
    ]
    for body in bodies:
        began = time.monotonic()
        status, answer, _ = call(door, "/track/batch", body)
        assert status in (400, 413)
        assert answer["error"]["message"]
        assert time.monotonic() - began < 5
