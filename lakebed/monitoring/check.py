"""check(): is what this object promises true of it now? Empty when healthy."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable

import msgspec

from lakebed.errors import LakebedError
from lakebed.monitoring.parts import MonitoredParts

__all__ = ["Problem", "check"]


class Problem(msgspec.Struct, frozen=True):
    """Something that is not as promised.

    Attributes:
        where: "log", "storage", "dead letters", "rollups", "identity", "archive", "schedule", "tracking" or "counters".
        message: what, with facts and, where there is one, the next step.
    """

    where: str
    message: str


async def check(parts: MonitoredParts) -> list[Problem]:
    """Look at every tier. Cheap enough for after each test; reads no event twice. What cannot be read is a problem."""
    await parts.pipeline.flush()
    problems = [Problem("tracking", f"an event that nobody awaited was not stored: {m}") for m in parts.ingest.failures]
    problems += [Problem("log", f"{what}: {message}") for what, message in parts.pipeline.problems.items()]
    problems += _books(parts)
    problems += await _asked("storage", parts.storage.check())
    problems += await _asked("dead letters", parts.dead_letters.check())
    problems += _at("archive", parts.maintenance.problems.values())
    problems += await _asked("rollups", _caught_up(parts))
    problems += await _asked("rollups", parts.rollups.check(parts.pipeline.next_seq))
    problems += await _asked("identity", parts.identity.check(parts.pipeline.next_seq))
    problems += await _asked("archive", _archive(parts))
    problems += await _asked("schedule", _schedule(parts))
    return list(dict.fromkeys(problems))  # a damaged storage.db says the same to each who asks


async def _caught_up(parts: MonitoredParts) -> list[str]:
    await parts.catch_up.rollup()
    return []


async def _schedule(parts: MonitoredParts) -> list[str]:
    failing = await parts.storage.failing_jobs() | parts.scheduler.failures
    return [f"{job} failed: {error}" for job, error in failing.items()]


async def _archive(parts: MonitoredParts) -> list[str]:
    found = await parts.archive.check() if parts.archive.exists() else []
    start, end = parts.pipeline.start_seq, parts.pipeline.next_seq
    try:
        watermark = await parts.archive.watermark() if parts.archive.exists() else 0
    except LakebedError as error:  # nobody can say where it ends; most of the time that was found above
        return found or [str(error)]
    if watermark < start:
        found.append(f"events {watermark} to {start} are in neither log nor archive")
    if watermark > end:
        found.append(f"its watermark {watermark} lies past the log's end {end}")
    return found


async def _asked(where: str, look: Awaitable[Iterable[str]]) -> list[Problem]:
    try:
        return _at(where, await look)
    except LakebedError as error:
        return [Problem(where, str(error))]


def _at(where: str, messages: Iterable[str]) -> list[Problem]:
    return [Problem(where, message) for message in messages]


def _books(parts: MonitoredParts) -> list[Problem]:
    """Received = stored + duplicate + rejected, for what this opening took."""
    ingest, pipeline = parts.ingest, parts.pipeline
    stored = pipeline.next_seq - parts.opened_at_seq
    if ingest.received == stored + pipeline.duplicates + ingest.rejected:
        return []
    message = (
        f"{ingest.received} received are not {stored} stored + {pipeline.duplicates} duplicate"
        f" + {ingest.rejected} rejected"
    )
    return [Problem("tracking", message)]
