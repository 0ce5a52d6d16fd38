"""check(): is what this object promises true of it now? Empty when healthy."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING

import msgspec

from lakebed.errors import LakebedError

if TYPE_CHECKING:
    from lakebed.components import Components

__all__ = ["Problem", "check_up"]


class Problem(msgspec.Struct, frozen=True):
    """Something that is not as promised.

    Attributes:
        where: "log", "storage", "dead letters", "rollups", "identity", "archive", "schedule", "tracking" or "counters".
        message: what, with facts and, where there is one, the next step.
    """

    where: str
    message: str


async def check_up(tiers: Components) -> list[Problem]:
    """Look at every tier. Cheap enough for after each test; reads no event twice. What cannot be read is a problem."""
    await tiers.pipeline.flush()
    problems = [Problem("tracking", f"an event that nobody awaited was not stored: {m}") for m in tiers.intake.failures]
    problems += [Problem("log", f"{what}: {message}") for what, message in tiers.pipeline.problems.items()]
    problems += _books(tiers)
    problems += await _asked("storage", tiers.storage.check())
    problems += await _asked("dead letters", tiers.letters.check())
    problems += _at("archive", tiers.maintenance.problems.values())
    problems += await _asked("rollups", _caught_up(tiers))
    problems += await _asked("rollups", tiers.rollups.check(tiers.pipeline.next_seq))
    problems += await _asked("identity", tiers.identity.check(tiers.pipeline.next_seq))
    problems += await _asked("archive", _archive(tiers))
    problems += await _asked("schedule", _schedule(tiers))
    return list(dict.fromkeys(problems))  # a damaged storage.db says the same to each who asks


async def _caught_up(tiers: Components) -> list[str]:
    await tiers.maintenance.catch_up()
    return []


async def _schedule(tiers: Components) -> list[str]:
    failing = await tiers.storage.failing_jobs() | tiers.scheduler.failures
    return [f"{job} failed: {error}" for job, error in failing.items()]


async def _archive(tiers: Components) -> list[str]:
    found = await tiers.archive.check() if tiers.archive.exists() else []
    start, end = tiers.pipeline.start_seq, tiers.pipeline.next_seq
    try:
        watermark = await tiers.archive.watermark() if tiers.archive.exists() else 0
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


def _books(tiers: Components) -> list[Problem]:
    """Received = stored + duplicate + rejected, for what this opening took."""
    intake, pipeline = tiers.intake, tiers.pipeline
    stored = pipeline.next_seq - tiers.opened_at_seq
    if intake.received == stored + pipeline.duplicates + intake.rejected:
        return []
    message = (
        f"{intake.received} received are not {stored} stored + {pipeline.duplicates} duplicate"
        f" + {intake.rejected} rejected"
    )
    return [Problem("tracking", message)]
