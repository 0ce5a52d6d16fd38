"""The runs of scheduled jobs in `storage.db`: the last planned time of each job, and whether its last run failed."""

from __future__ import annotations

from lakebed.tiers.storage.storage import Storage

__all__ = ["ScheduleRuns"]


class ScheduleRuns:
    """The runs of the scheduled jobs of one object."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def record(self, job: str, planned_us: int, finished_us: int, error: str | None = None) -> None:
        """Record a run that was planned for `planned_us`. Replaces the job's error; a successful run clears it."""
        sql = """INSERT INTO schedule_runs VALUES (:job, :planned, :finished, 1, :error IS NOT NULL, :error)
            ON CONFLICT (job) DO UPDATE SET
                planned_us = max(planned_us, excluded.planned_us), finished_us = excluded.finished_us,
                runs = runs + 1, failures = failures + excluded.failures, error = excluded.error"""
        parameters = {"job": job, "planned": planned_us, "finished": finished_us, "error": error}
        await self._storage.transact(lambda tx: tx.fetch(sql, parameters))

    async def last(self) -> dict[str, int]:
        """For each job that has run, the latest planned time of a run, in microseconds."""
        return dict(await self._storage.fetch("SELECT job, planned_us FROM schedule_runs"))

    async def failing(self) -> dict[str, str]:
        """The jobs whose last run failed, each with the error of that run."""
        sql = "SELECT job, error FROM schedule_runs WHERE error IS NOT NULL ORDER BY job"
        return dict(await self._storage.fetch(sql))
