"""Runs jobs when they are due. This file is the only importer of APScheduler.

APScheduler is only a timer. The recorded runs, not the timer, decide which jobs are due: no missed run is forgotten.
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

_log = logging.getLogger("lakebed.scheduler")
_TIMER = "timer"
# Timers follow the monotonic clock. Checks this often notice that the wall clock was set, or the machine slept.
_CHECK_US = 300 * SECOND_US
# The shortest wait: a clock that stands still just before a moment must not keep the loop busy.
_MIN_WAIT_US = 10_000
# A recorded run this far in the future came from a wrong clock; trusting it would stop the job until then.
_AHEAD_US = DAY_US


class Job(msgspec.Struct, frozen=True):
    """A function and its schedule. After a crash it may run again for the same moment, so it must be idempotent.

    Attributes:
        name: a unique name, which does not change at a restart.
        schedule: schedule with the planned moments.
        run: called without arguments on the loop; an awaitable result is awaited.
    """

    name: str
    schedule: Schedule
    run: Callable[[], object]


class JobRun(msgspec.Struct, frozen=True):
    """The outcome of one run. A new job is recorded like a run, too, with three equal times.

    Attributes:
        job: name of the job.
        planned_us: latest planned moment that the run covers; for `run_now`, the moment of the call.
        started_us: start of the run.
        finished_us: end of the run.
        error: type and message of its exception; None for success.
    """

    job: str
    planned_us: int
    started_us: int
    finished_us: int
    error: str | None


class Scheduler:
    """Runs each due job: one run covers all planned moments since the last run.

    Jobs run concurrently on the loop; a job never overlaps itself. A failed job is in `failures` until it succeeds. A
    failed job does not stop the others, and runs again at its next planned moment. A run counts once it is recorded: a
    run that a crash or `close` interrupted is repeated after the next `start`.

    Args:
        clock: source of wall time.
        timezone: IANA zone of schedules without a zone.
        jobs: the jobs; their names must differ.
        last_runs: by name of a job, `planned_us` of its last recorded run.
        record: awaited with the outcome of each run. Errors that it raises are put into `failures`.

    Attributes:
        failures: by name of a job, the error of its last run, if that run failed.

    Raises:
        InvalidSchedule: the zone is unknown, or two jobs have the same name.

    Not promised: punctuality. A run starts late if the loop is busy, and up to five minutes late if the machine slept
    or its wall clock was set.
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
            raise InvalidSchedule(
                f"two of the jobs {[job.name for job in jobs]} have the same name",
                hint="Give each job a name of its own",
            )
        self._record = record
        self._last = {name: last_runs[name] for name in self._jobs if name in last_runs}
        self._running: dict[str, asyncio.Task[JobRun]] = {}
        self._timer: AsyncIOScheduler | None = None
        self._closed = False
        self.failures: dict[str, str] = {}

    async def start(self) -> None:
        """Start the jobs that are due, in the background: now, and at each further planned moment.

        Raises:
            ObjectClosed: after `close`.
            Exception: a new job could not be recorded; the error of `record`.
        """
        self._check_open()
        await self._adopt(self._clock.now_us())
        if self._jobs and self._timer is None and not self._closed:
            self._timer = self._start_timer()
        self._launch_due()

    async def run_due(self) -> list[JobRun]:
        """Run the due jobs that are not running already, and wait for them. Returns outcomes in the order of the jobs.

        Cancelling the wait does not cancel the jobs.

        Raises:
            ObjectClosed: after `close`.
            Exception: a new job could not be recorded; the error of `record`.
        """
        self._check_open()
        await self._adopt(self._clock.now_us())
        return await _outcomes(self._launch_due())

    async def run_now(self, name: str) -> JobRun:
        """Run a job now, or when its current run has ended. Missed planned moments count as done.

        Raises:
            InvalidSchedule: there is no such job.
            ObjectClosed: after `close`, or when `close` interrupted the run.
        """
        if name not in self._jobs:
            raise InvalidSchedule(f"there is no job {name!r}", hint=f"Jobs are {sorted(self._jobs)}", name=name)
        while (running := self._running.get(name)) is not None:
            await asyncio.wait([running])
        self._check_open()
        planned_us = max(self._clock.now_us(), self._last.get(name, 0))
        runs = await _outcomes([self._launch(self._jobs[name], planned_us)])
        if not runs:
            raise ObjectClosed(f"close() interrupted job {name!r}", hint="It runs again when its schedule is due")
        return runs[0]

    def next_run_us(self) -> int | None:
        """The next planned moment of any job; it is in the past if a job is overdue. None if there are no jobs."""
        return min((self._next(job) for job in self._jobs.values()), default=None)

    async def close(self, timeout_s: float = 10.0) -> None:
        """Start no more jobs, wait `timeout_s` for running jobs, then cancel them. Leaves no task and no timer.

        A cancelled job is not recorded. A job that ignores its cancellation is awaited. Idempotent.
        """
        self._closed = True
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.remove_all_jobs()
            timer.shutdown(wait=False)
            await asyncio.sleep(0)  # APScheduler stops itself in the next turn of the loop
        # A job that closes its own object must not wait for itself.
        running = set(self._running.values()) - {asyncio.current_task()}
        if running:
            _, late = await asyncio.wait(running, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.wait(running)

    # Jobs

    async def _adopt(self, now_us: int) -> None:
        """Record new jobs, durably. A new job first runs at its next planned moment."""
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
        self._set_timer()
        return tasks

    def _launch(self, job: Job, planned_us: int) -> asyncio.Task[JobRun]:
        task = asyncio.create_task(self._run(job, planned_us), name=f"lakebed-job-{job.name}")
        self._running[job.name] = task
        task.add_done_callback(lambda _: self._ended(job.name))
        return task

    def _ended(self, name: str) -> None:
        del self._running[name]
        self._set_timer()

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
        except Exception as problem:  # noqa: BLE001 - any error of the store is in failures, for check()
            _log.exception("a run of job %r could not be recorded", job.name)
            self.failures[job.name] = f"{error or 'it ran'}, but was not recorded: {_described(problem)}"
        return run

    async def _attempt(self, job: Job) -> str | None:
        """Run a job. Returns its error as text; None for success."""
        task = asyncio.current_task()
        try:
            result = job.run()
            if isinstance(result, Awaitable):
                await result
        except asyncio.CancelledError as problem:
            if task is not None and task.cancelling():
                raise
            return _described(problem)  # what the job awaited was cancelled, not the job
        except Exception as problem:  # noqa: BLE001 - users' code may raise anything; it is recorded
            _log.exception("job %r failed", job.name)
            return _described(problem)
        return None

    # The timer

    def _next(self, job: Job) -> int:
        return job.schedule.next_after(self._last.get(job.name, self._clock.now_us()), self._timezone)

    def _start_timer(self) -> AsyncIOScheduler:
        from apscheduler.events import EVENT_JOB_ERROR  # costs as much as pyarrow
        from apscheduler.schedulers.asyncio import AsyncIOScheduler

        timer = AsyncIOScheduler(timezone="UTC")
        timer.add_listener(self._on_timer_error, EVENT_JOB_ERROR)
        timer.start()
        return timer

    def _set_timer(self) -> None:
        """Set the timer to the next planned moment of the jobs that are not running. Also called when a job ends."""
        if self._timer is None:
            return
        now_us = self._clock.now_us()
        delays = [self._next(job) - now_us for job in self._jobs.values() if job.name not in self._running]
        # APScheduler reads the machine's clock, which may differ from `clock`.
        moment = from_us(SystemClock().now_us() + max(_MIN_WAIT_US, min([_CHECK_US, *delays])))
        self._timer.add_job(
            self._on_timer,
            "date",
            run_date=moment,
            id=_TIMER,
            replace_existing=True,
            misfire_grace_time=None,
            coalesce=True,
        )

    async def _on_timer(self) -> None:
        """Called by APScheduler. Only starts tasks, because APScheduler cancels its own tasks at its shutdown."""
        self._launch_due()

    def _on_timer_error(self, event: Any) -> None:
        self.failures[_TIMER] = _described(event.exception)

    def _check_open(self) -> None:
        if self._closed:
            raise ObjectClosed("the scheduler is closed", hint="Open the object again")


async def _outcomes(tasks: Sequence[asyncio.Task[JobRun]]) -> list[JobRun]:
    """Wait for runs to end. Returns the outcomes of the runs that were not cancelled."""
    if tasks:
        await asyncio.wait(tasks)
    return [task.result() for task in tasks if not task.cancelled()]


def _described(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {problem}"
