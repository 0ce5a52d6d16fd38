"""Runs jobs when they are due. With it, this is the sole importer of APScheduler.

APScheduler is only the alarm clock: it says "look now". What is due is asked of the recorded runs, never of the hour,
so that a run that was missed, for whatever reason, is made up for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from lakebed.clock import DAY_US, SECOND_US, Clock, SystemClock, from_us
from lakebed.errors import InvalidSchedule, ObjectClosed
from lakebed.scheduling.schedule import Schedule, zone

if TYPE_CHECKING:
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

__all__ = ["Job", "JobRun", "Scheduler"]

_LOG = logging.getLogger("lakebed.scheduler")
_ALARM = "alarm"
# Timers follow the monotonic clock. Looking this often notices a wall clock that was set, or a machine that slept.
_LOOK_US = 300 * SECOND_US
# The least wait, so that a clock that stands still just before a moment does not keep the loop busy.
_REST_US = 10_000
# A recorded run this far in the future came from a wrong clock; trusting it would stop the job until then.
_AHEAD_US = DAY_US


class Job(msgspec.Struct, frozen=True):
    """Something to run by a schedule. It may run again for the same moment after a crash, so it must bear that.

    Attributes:
        name: unique, and the same after a restart.
        schedule: when.
        run: called without arguments on the loop; what it returns is awaited if it can be.
    """

    name: str
    schedule: Schedule
    run: Callable[[], object]


class JobRun(msgspec.Struct, frozen=True):
    """What became of one run. The first time a job is seen is recorded as a run too, with all three times the same.

    Attributes:
        job: the job's name.
        planned_us: the latest planned moment that it made good; the moment of the call for `run_now`.
        started_us: when it started.
        finished_us: when it ended.
        error: type and message of what it raised; None for success.
    """

    job: str
    planned_us: int
    started_us: int
    finished_us: int
    error: str | None


class Scheduler:
    """Runs each job once for the planned moments since its last run, however many those are.

    Jobs run side by side on the loop; one job never overlaps itself. One that fails is in `failures` until it succeeds,
    does not stop the others, and is tried again at its next planned moment. A run counts once it has been recorded: one
    that a crash or `close` cut off is made up after the next `start`.

    Args:
        clock: its wall time.
        timezone: IANA zone of schedules that name none.
        jobs: what to run; names must differ.
        last_runs: `planned_us` of the last recorded run of each job that has one.
        record: awaited with each outcome. When it fails, that is in `failures`.

    Attributes:
        failures: the last error of each job whose last run failed.

    Raises:
        InvalidSchedule: for an unknown zone, or two jobs of one name.

    Not promised: punctuality. A run starts after its moment by what the loop is busy with; by up to five minutes when
    the machine slept or its wall clock was set.
    """

    def __init__(
        self,
        clock: Clock,
        timezone: str,
        jobs: Sequence[Job],
        last_runs: Mapping[str, int],
        record: Callable[[JobRun], Awaitable[None]],
    ) -> None:
        zone(timezone)
        self._clock = clock
        self._timezone = timezone
        self._jobs = {job.name: job for job in jobs}
        if len(self._jobs) < len(jobs):
            raise InvalidSchedule(f"two of {[job.name for job in jobs]} are the same", hint="Give each job its name")
        self._record = record
        self._last = {name: last_runs[name] for name in self._jobs if name in last_runs}
        self._running: dict[str, asyncio.Task[JobRun]] = {}
        self._alarm: AsyncIOScheduler | None = None
        self._closed = False
        self.failures: dict[str, str] = {}

    async def start(self) -> None:
        """Start what is due, in the background, and wake up by itself from now on.

        Raises:
            ObjectClosed: after `close`.
            Exception: what `record` raises for a job that is seen for the first time.
        """
        self._check_open()
        await self._adopt(self._clock.now_us())
        if self._jobs and self._alarm is None and not self._closed:
            self._alarm = self._start_alarm()
        self._launch_due()

    async def run_due(self) -> list[JobRun]:
        """Run what is due and not running already, and wait for it; the outcomes in the order of the jobs.

        Cancelling the wait does not cancel the jobs.

        Raises:
            ObjectClosed: after `close`.
            Exception: what `record` raises for a job that is seen for the first time.
        """
        self._check_open()
        await self._adopt(self._clock.now_us())
        return await _outcomes(self._launch_due())

    async def run_now(self, name: str) -> JobRun:
        """Run a job out of turn, after the run of it that may be under way. Missed moments count as made up for.

        Raises:
            InvalidSchedule: for an unknown job.
            ObjectClosed: after `close`, or when `close` cut the run off.
        """
        if name not in self._jobs:
            raise InvalidSchedule(f"there is no job {name!r}", hint=f"Jobs are {sorted(self._jobs)}", name=name)
        while (running := self._running.get(name)) is not None:
            await asyncio.wait([running])
        self._check_open()
        planned_us = max(self._clock.now_us(), self._last.get(name, 0))
        runs = await _outcomes([self._launch(self._jobs[name], planned_us)])
        if not runs:
            raise ObjectClosed(
                f"job {name!r} was cut off by close()", hint="It is made up for when its schedule is due"
            )
        return runs[0]

    def next_run_us(self) -> int | None:
        """The next planned moment of any job, in the past when one is overdue; None without jobs."""
        return min((self._next(job) for job in self._jobs.values()), default=None)

    async def close(self, timeout_s: float = 10.0) -> None:
        """Start nothing more, wait `timeout_s` for running jobs, cancel the rest, leave no task and no timer.

        A job that was cancelled is not recorded. One that ignores its cancellation is waited for. Idempotent.
        """
        self._closed = True
        alarm, self._alarm = self._alarm, None
        if alarm is not None:
            alarm.remove_all_jobs()
            alarm.shutdown(wait=False)
            await asyncio.sleep(0)  # it stops itself at the loop's next turn
        # A job that closes its own object must not wait for itself.
        running = set(self._running.values()) - {asyncio.current_task()}
        if running:
            _, late = await asyncio.wait(running, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.wait(running)

    # Jobs.

    async def _adopt(self, now_us: int) -> None:
        """Give jobs seen for the first time their starting point, durably: they run from their next moment on."""
        for name in self._jobs:
            if self._last.get(name, now_us + _AHEAD_US + 1) > now_us + _AHEAD_US:
                self._last[name] = now_us
                try:
                    await self._record(JobRun(name, now_us, now_us, now_us, None))
                except BaseException:
                    del self._last[name]
                    raise

    def _launch_due(self) -> list[asyncio.Task[JobRun]]:
        if self._closed:
            return []
        now_us = self._clock.now_us()
        due = [
            (job, planned)
            for job in self._jobs.values()
            if job.name not in self._running
            and (planned := job.schedule.latest_due(self._last[job.name], now_us, self._timezone)) is not None
        ]
        tasks = [self._launch(job, planned) for job, planned in due]
        self._arm()
        return tasks

    def _launch(self, job: Job, planned_us: int) -> asyncio.Task[JobRun]:
        task = asyncio.create_task(self._run(job, planned_us), name=f"lakebed-job-{job.name}")
        self._running[job.name] = task
        task.add_done_callback(lambda _: self._ended(job.name))
        return task

    def _ended(self, name: str) -> None:
        del self._running[name]
        self._arm()

    async def _run(self, job: Job, planned_us: int) -> JobRun:
        started_us = self._clock.now_us()
        error = await self._attempt(job)
        run = JobRun(job.name, planned_us, started_us, self._clock.now_us(), error)
        self._last[job.name] = planned_us
        self.failures.pop(job.name, None)
        if error is not None:
            self.failures[job.name] = error
        try:
            await self._record(run)
        except Exception as problem:  # noqa: BLE001 - whatever the store raises is kept in failures, for check()
            _LOG.exception("a run of job %r could not be recorded", job.name)
            self.failures[job.name] = f"{error or 'it ran'}, but was not recorded: {_said(problem)}"
        return run

    async def _attempt(self, job: Job) -> str | None:
        """Run a job; what it raised, in words."""
        task = asyncio.current_task()
        try:
            result = job.run()
            if isinstance(result, Awaitable):
                await result
        except asyncio.CancelledError as problem:
            if task is not None and task.cancelling():
                raise
            return _said(problem)  # something that the job awaited was cancelled: its own affair
        except Exception as problem:  # noqa: BLE001 - users' code may raise anything; it is recorded
            _LOG.exception("job %r failed", job.name)
            return _said(problem)
        return None

    # The alarm clock.

    def _next(self, job: Job) -> int:
        return job.schedule.next_after(self._last.get(job.name, self._clock.now_us()), self._timezone)

    def _start_alarm(self) -> AsyncIOScheduler:
        from apscheduler.events import EVENT_JOB_ERROR  # costs as much as pyarrow
        from apscheduler.schedulers.asyncio import AsyncIOScheduler

        alarm = AsyncIOScheduler(timezone="UTC")
        alarm.add_listener(self._alarm_failed, EVENT_JOB_ERROR)
        alarm.start()
        return alarm

    def _arm(self) -> None:
        """Set the alarm for the next planned moment of the jobs that are not running; those look when they end."""
        if self._alarm is None:
            return
        now_us = self._clock.now_us()
        waiting = [self._next(job) - now_us for job in self._jobs.values() if job.name not in self._running]
        # APScheduler reads the machine's clock, which need not be ours.
        moment = from_us(SystemClock().now_us() + max(_REST_US, min([_LOOK_US, *waiting])))
        self._alarm.add_job(
            self._ring,
            "date",
            run_date=moment,
            id=_ALARM,
            replace_existing=True,
            misfire_grace_time=None,
            coalesce=True,
        )

    async def _ring(self) -> None:
        """What APScheduler runs. It only starts tasks of ours: its shutdown would cancel its own."""
        self._launch_due()

    def _alarm_failed(self, event: Any) -> None:
        self.failures[_ALARM] = _said(event.exception)

    def _check_open(self) -> None:
        if self._closed:
            raise ObjectClosed("the scheduler is closed", hint="Open the object again")


async def _outcomes(tasks: Sequence[asyncio.Task[JobRun]]) -> list[JobRun]:
    """Wait for runs; what became of those that were not cut off."""
    if tasks:
        await asyncio.wait(tasks)
    return [task.result() for task in tasks if not task.cancelled()]


def _said(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {problem}"
