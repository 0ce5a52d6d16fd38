"""Logs for tests: a pipeline on a manual clock, and its contents as plain lists."""

import contextlib

import pyarrow as pa
import pyarrow.parquet as pq

from lakebed.clock import ManualClock
from lakebed.disk import Disk
from lakebed.events.batch import EventBatch
from lakebed.events.event import BASE_COLUMNS, Event
from lakebed.events.promotions import BUILT_IN
from lakebed.events.validation import validate
from lakebed.settings import Settings
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.pipeline.pipeline import Pipeline
from lakebed.tiers.pipeline.segment import Segment

ENGINE = SqlEngine(threads=1, memory_bytes=256 << 20)  # opened by the first test that seals
NOW = ManualClock().now_us()
MARKER = slice(64, 76)  # the marker of a log file: the end of its durable bytes


def event(message_id=None, *, now=NOW, **fields):
    made = Event(event="e", message_id=message_id, **fields)
    validate(made, now)
    return made


def events(*message_ids, **fields):
    return [event(message_id, **fields) for message_id in message_ids]


def batch_of(made, seq, received):
    """The rows of validated events, as a commit creates them."""
    return EventBatch.of(made).to_record_batch([item.message_id for item in made], seq, received)


def make(directory, *, clock=None, disk=None, promotions=BUILT_IN, on_commit=None, engine=ENGINE, **settings):
    settings = {"headroom_bytes": 0} | settings
    return Pipeline(
        directory,
        "test",
        Settings(**settings),
        clock=clock or ManualClock(),
        disk=disk or Disk(),
        promotions=promotions,
        engine=engine,
        on_commit=on_commit or (lambda _events, _received: None),
    )


@contextlib.asynccontextmanager
async def opened(directory, **options):
    """An open log, which is closed at the end, also after a failure."""
    log = make(directory, **options)
    try:
        await log.open()
        yield log
    finally:
        await log.close()


def table(log):
    """All events of the log, in reading order, with base columns."""
    with log.view() as view:
        parts = [pq.read_table(file.path, columns=list(BASE_COLUMNS)) for file in view.files]
        return pa.concat_tables([*(part.cast(view.tail.schema) for part in parts), view.tail])


def held(log):
    """(seq, message id) of all events in the log, in order."""
    rows = table(log)
    return list(zip(rows["seq"].to_pylist(), rows["message_id"].to_pylist(), strict=True))


def ids(log):
    return [message_id for _, message_id in held(log)]


def received(log):
    return table(log)["received_at"].cast("int64").to_pylist()


async def abandon(log, disk=None):
    """Leave the state of a killed process: threads ended, nothing flushed, descriptors closed by the kernel."""
    log._commit_thread.shutdown(wait=True)
    log._sealer.close()
    if log._committer._segment is not None:
        (disk or log._committer._disk).close(log._committer._segment._descriptor)
        log._committer._segment = None


def write_segment(directory, groups, *, first_seq=0, disk=None):
    """A log file of `groups` (lists of message ids), each synced and recorded in the marker, as by a commit.

    Returns its path, the offset after each group (that of the header first), and the marker as it was after each.
    """
    directory.mkdir(parents=True, exist_ok=True)
    segment = Segment.create(disk or Disk(), directory, first_seq, NOW - 1)
    ends, markers, seq = [segment.offset], [marker(segment.path)], first_seq
    for i, group in enumerate(groups):
        segment.append(batch_of(events(*group), seq, NOW + i), seq, NOW + i)
        segment.sync()
        seq += len(group)
        ends.append(segment.offset)
        markers.append(marker(segment.path))
    segment.close()
    return segment.path, ends, markers


def marker(path):
    return path.read_bytes()[MARKER]


def with_marker(data, note):
    return data[: MARKER.start] + note + data[MARKER.stop :]


def recovered_ids(recovered):
    return [
        message_id for segment in recovered.unsealed for frame in segment.frames for message_id in column(frame.batch)
    ]


def column(batch, name="message_id"):
    return batch.column(name).to_pylist()
