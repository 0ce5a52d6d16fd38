"""What is tortured: the object, its settings, and events that say by their id what they must hold."""

import zlib
from datetime import UTC, datetime

from lakebed import Analytics, ArchiveUnavailable, Backpressure, DiskFull, LogUnavailable, ObjectUnavailable, Rollup
from lakebed.clock import from_us
from lakebed.monitoring.check import Problem

START = datetime(2026, 3, 1, tzinfo=UTC)
SETTINGS = {
    "segment_events": 40,
    "retention_s": 0.0,
    "dedupe_window_s": 300.0,
    "headroom_bytes": 0,
    "archive_rows": 250,
    "snapshots_keep": 1,
    "snapshots_age_s": 0.0,
    "garbage_grace_s": 0.0,
}
BY_EVENT = "SELECT event, count(*), CAST(sum(amount) AS BIGINT) FROM events GROUP BY event ORDER BY event"


class Shop(Analytics):
    amounts = Rollup(
        "amounts", by=["event"], measures={"total": "sum(amount)", "people": "distinct(person_id)"}, grain="day"
    )

    def __init__(self, name, **options):
        super().__init__(name, promote={"amount": float}, **options)


def amount_of(message_id):
    """What the event with this id says: a test can tell whether a stored event is the one that was sent."""
    return zlib.crc32(message_id.encode()) % 1000


def item_of(message_id, at_us):
    number = amount_of(message_id)
    return {
        "event": f"e{number % 3}",
        "properties": {"amount": number},
        "userId": f"u{number % 11}",
        "messageId": message_id,
        "timestamp": from_us(at_us - number * 100_000_000).isoformat(),  # up to 28 hours late
    }


def explained(problem):
    """Whether a problem that `check` found is the trace of an injected fault: the error that it quotes says so."""
    return "injected" in problem.message or "no space is left" in problem.message


def excused(error):
    """Whether an error is what a caller may get from an injected fault: of a kind that says so, and quoting it."""
    kinds = (DiskFull, LogUnavailable, ArchiveUnavailable, ObjectUnavailable, Backpressure)
    return isinstance(error, kinds) and explained(Problem("", str(error)))
