"""The object under torture, its settings, and events whose contents follow from their ids."""

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
    """The amount of the event with this id. By it a test recognizes that a stored event is the one that was sent."""
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
    """Whether a problem of `check` comes from an injected fault: its message quotes the error."""
    return "injected" in problem.message or "no space is left" in problem.message


def excused(error):
    """Whether a caller may get this error from an injected fault: it has an allowed type and quotes the fault."""
    kinds = (DiskFull, LogUnavailable, ArchiveUnavailable, ObjectUnavailable, Backpressure)
    return isinstance(error, kinds) and explained(Problem("", str(error)))
