"""Bodies with a Content-Encoding are decompressed or refused, and never beyond the limit."""

from __future__ import annotations

import gzip
import subprocess
import sys
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from lakebed.api.body import Corrupt, TooLong, decompress

pytestmark = pytest.mark.integration


def bare(data):
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def unsized(data):
    compressor = zstandard.ZstdCompressor().compressobj()
    return compressor.compress(data) + compressor.flush()


WAYS = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "bare deflate": ("deflate", bare),
    "br": ("br", lambda data: brotli.compress(data, quality=4)),
    "zstd": ("zstd", zstandard.compress),
    "zstd without a size": ("zstd", unsized),
}


@pytest.mark.parametrize("way", WAYS)
@given(data=st.binary(max_size=2000))
def test_data_survives_a_round_trip(way, data):
    """Every encoding restores its data within the limit, and returns none of it beyond."""
    encoding, deflate = WAYS[way]
    assert decompress(deflate(data), encoding, max(1, len(data))) == data
    if len(data) > 1:
        with pytest.raises((TooLong, Corrupt)):
            decompress(deflate(data), encoding, len(data) - 1)


@pytest.mark.parametrize("way", WAYS)
@given(at=st.integers(0, 10_000), change=st.sampled_from(["cut", "more", "noise"]))
def test_damaged_data_is_corrupt(way, at, change):
    """Truncated, followed by other bytes, or not encoded at all: Corrupt, never a result."""
    encoding, deflate = WAYS[way]
    data = deflate(b'{"event":"Seen"}' * 20)
    broken = {"cut": data[: at % len(data)], "more": data + b"\x00" * (1 + at % 50), "noise": b"\xff" * (at % 50)}
    with pytest.raises((Corrupt, TooLong)):
        decompress(broken[change], encoding, 1 << 16)


_BOMBS = """
import os, resource, sys, time
from tests.api.test_compression import WAYS
from lakebed.api.body import Corrupt, TooLong, decompress

def refuse(way):
    encoding, deflate = WAYS[way]
    bomb = deflate(bytes(100 << 20))
    # The peak so far is from making the bomb: free memory is not given back, so a limit says what inflating may take.
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (40 << 20), used + (40 << 20)))
    began = time.process_time()
    try:
        decompress(bomb, encoding, 5 << 20)
    except (Corrupt, TooLong) as error:
        print(way, type(error).__name__, len(bomb), time.process_time() - began, sep=",", flush=True)

for way in sys.argv[1:]:
    pid = os.fork()
    if not pid:
        try:
            refuse(way)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
"""


def test_a_decompression_bomb():
    """100 MB of zeros in a small body: refused within 40 MB of memory and half a second of processor time."""
    ways = ["gzip", "zlib", "br", "zstd", "zstd without a size"]
    arguments = [sys.executable, "-c", _BOMBS, *ways]  # each way in a child of its own
    process = subprocess.run(arguments, capture_output=True, text=True, check=True)
    lines = [line.split(",") for line in process.stdout.splitlines()]
    assert [way for way, *_ in lines] == ways, process.stderr
    for way, name, size, seconds in lines:
        assert name in ("TooLong", "Corrupt"), way
        assert int(size) < 120_000, way
        assert float(seconds) < 0.5, way


def test_a_frame_that_asks_for_a_huge_window():
    """A zstd frame with a window of 128 MB is refused, whatever its content."""
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = compressor.compress(b"x" * 1000) + compressor.flush()
    with pytest.raises(Corrupt):
        decompress(data, "zstd", 5 << 20)
