"""check(): is what this object promises true of it now? Empty when healthy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from lakebed.errors import LakebedError

if TYPE_CHECKING:
    from lakebed.assembly import Tiers

__all__ = ["Problem", "check_up"]


class Problem(msgspec.Struct, frozen=True):
    """Something that is not as promised.

    Attributes:
        where: "log", "storage", "rollups", "archive", "schedule", "tracking" or "counters".
        message: what, with facts and, where there is one, the next step.
    """

    where: str
    message: str


async def check_up(tiers: Tiers) -> list[Problem]:
    """Look at every tier. Cheap enough for after each test; reads no event twice."""
    await tiers.pipeline.flush()
    problems = [Problem("tracking", f"an event that nobody awaited was not stored: {m}") for m in tiers.intake.failures]
    problems += [Problem("log", f"{what}: {message}") for what, message in tiers.pipeline.problems.items()]
    problems += _books(tiers)
    problems += _at("storage", await tiers.storage.check())
    problems += _at("archive", tiers.maintenance.problems.values())
    try:
        await tiers.maintenance.catch_up()
    except LakebedError as error:
        problems.append(Problem("rollups", str(error)))
    problems += _at("rollups", await tiers.rollups.check(tiers.pipeline.next_seq))
    problems += _at("archive", await _archive(tiers))
    failing = await tiers.storage.failing_jobs() | tiers.scheduler.failures
    return problems + [Problem("schedule", f"{job} failed: {error}") for job, error in failing.items()]


async def _archive(tiers: Tiers) -> list[str]:
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


def _at(where: str, messages: Iterable[str]) -> list[Problem]:
    return [Problem(where, message) for message in messages]


def _books(tiers: Tiers) -> list[Problem]:
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
