"""The events that benchmarks measure with."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from bench import sample
from lakebed.events.decoding import Rejected, decode_items

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def events():
    return [event for body in sample.batches(20_000) for event in json.loads(body)]


def test_a_seed_gives_the_same_bytes_in_every_process():
    """Contenders in different processes take the same events, whatever their hash seed is."""
    code = "import hashlib; from bench import sample; print(hashlib.sha256(sample.batch(3)).hexdigest())"
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": str(ROOT)}
    completed = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert completed.stdout.strip() == hashlib.sha256(sample.batch(3)).hexdigest()


def test_every_event_of_the_sample_is_stored():
    """Nothing of the sample is rejected: what is measured is events, not errors."""
    messages = decode_items(sample.batch(0), sample.NOW_US)
    assert len(messages) == sample.BATCH
    assert not [message for message in messages if isinstance(message, Rejected)]


def test_message_ids_are_unique(events):
    """No event of the stream is a duplicate of another."""
    assert len({event["messageId"] for event in events}) == len(events)


def test_kinds_names_and_people_have_the_shares_of_real_events(events):
    """55 % order lines, 40 % pages, 5 % identifies; few names have most events; half of all people are not known."""
    kinds = Counter(event["type"] for event in events)
    assert 0.45 < kinds["track"] / len(events) < 0.65
    assert 0.30 < kinds["page"] / len(events) < 0.50
    assert 0.02 < kinds["identify"] / len(events) < 0.08
    names = Counter(event.get("event") or event.get("name") for event in events)
    assert len(names) > 100
    assert names.most_common(1)[0][1] > len(events) / 3
    assert 0.3 < sum(event["userId"] is None for event in events) / len(events) < 0.6
    assert len({event["userId"] for event in events}) > 2_000


def test_sizes_are_those_of_real_events(events):
    """Properties are a sixth of a kilobyte at the median, and some are much longer."""
    sizes = sorted(len(json.dumps(event.get("properties", {}))) for event in events)
    assert 100 < sizes[len(sizes) // 2] < 250
    assert sizes[-1] > 2 * sizes[len(sizes) // 2]


def test_times_are_spread_over_the_requested_days():
    """`spread` reaches from its first instant to its last, and a few events come late."""
    start = sample.NOW_US - 3 * 86_400_000_000
    batches = list(sample.spread(6_000, start, 3))
    assert [moment for moment, _ in batches][-1] == sample.NOW_US
    days = Counter(event["timestamp"][:10] for _, body in batches for event in json.loads(body))
    assert {"2025-12-29", "2025-12-30", "2025-12-31"} <= set(days)
