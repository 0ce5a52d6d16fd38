"""check(): verifies the promises of an object. The result is empty if the object is healthy."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable

import msgspec

from lakebed.errors import LakebedError
from lakebed.monitoring.parts import MonitoredParts
from lakebed.tiers.storage.schedule_runs import ScheduleRuns

__all__ = ["Problem", "check"]


class Problem(msgspec.Struct, frozen=True):
    """A broken promise.

    Attributes:
        where: "log", "storage", "dead letters", "rollups", "identity", "archive", "schedule", "tracking" or "counters".
        message: the problem, with its facts and, if there is one, the next step.
    """

    where: str
    message: str


async def check(parts: MonitoredParts) -> list[Problem]:
    """Check every tier. Cheap enough after each test: reads no event twice. An unreadable tier is a problem."""
    await parts.pipeline.flush()
    problems = [
        Problem("tracking", f"an event was not stored, and its call was not awaited: {m}")
        for m in parts.ingest.failures
    ]
    problems += [Problem("log", f"{what}: {message}") for what, message in parts.pipeline.problems.items()]
    problems += _tracking_counts(parts)
    problems += await _problems_of("storage", parts.storage.check())
    problems += await _problems_of("dead letters", parts.dead_letters.check())
    problems += _problems("archive", parts.maintenance.problems.values())
    problems += await _problems_of("rollups", _caught_up(parts))
    problems += await _problems_of("rollups", parts.rollups.check(parts.pipeline.next_seq))
    problems += await _problems_of("identity", parts.identity.check(parts.pipeline.next_seq))
    problems += await _problems_of("archive", _archive(parts))
    problems += await _problems_of("schedule", _schedule(parts))
    return list(dict.fromkeys(problems))  # a damaged storage.db gives the same error to each check


async def _caught_up(parts: MonitoredParts) -> list[str]:
    await parts.catch_up.rollup()
    return []


async def _schedule(parts: MonitoredParts) -> list[str]:
    failing = await ScheduleRuns(parts.storage).failing() | parts.scheduler.failures
    return [f"{job} failed: {error}" for job, error in failing.items()]


async def _archive(parts: MonitoredParts) -> list[str]:
    messages = await parts.archive.check() if parts.archive.exists() else []
    start, end = parts.pipeline.start_seq, parts.pipeline.next_seq
    try:
        watermark = await parts.archive.watermark() if parts.archive.exists() else 0
    except LakebedError as error:  # the watermark is unknown; `messages` usually has the cause
        return messages or [str(error)]
    if watermark < start:
        messages.append(f"events {watermark} to {start} are in neither log nor archive")
    if watermark > end:
        messages.append(f"its watermark {watermark} lies past the log's end {end}")
    return messages


async def _problems_of(where: str, check: Awaitable[Iterable[str]]) -> list[Problem]:
    try:
        return _problems(where, await check)
    except LakebedError as error:
        return [Problem(where, str(error))]


def _problems(where: str, messages: Iterable[str]) -> list[Problem]:
    return [Problem(where, message) for message in messages]


def _tracking_counts(parts: MonitoredParts) -> list[Problem]:
    """A problem unless received = stored + duplicate + rejected, for the events since the object was opened."""
    ingest, pipeline = parts.ingest, parts.pipeline
    stored = pipeline.next_seq - parts.opened_at_seq
    if ingest.received == stored + pipeline.duplicates + ingest.rejected:
        return []
    message = (
        f"{ingest.received} received are not {stored} stored + {pipeline.duplicates} duplicate"
        f" + {ingest.rejected} rejected"
    )
    return [Problem("tracking", message)]
