from __future__ import annotations

import asyncio
import gc
import threading
from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import pytest
from freezegun import freeze_time
from hypothesis import given, settings

from lakebed.clock import ManualClock, SystemClock, from_us, to_us
from lakebed.errors import InvalidSchedule, ObjectClosed
from lakebed.scheduling.schedule import every
from lakebed.scheduling.scheduler import Job, JobRun, Scheduler

HOUR = 3600
START = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday


class Ledger:
    """What storage will do: keep the last run of each job, through restarts."""

    def __init__(self):
        self.runs: list[JobRun] = []

    async def record(self, run):
        await asyncio.sleep(0)
        self.runs.append(run)

    @property
    def last_runs(self):
        return {run.job: run.planned_us for run in self.runs}


@pytest.fixture
def clock():
    return ManualClock(START)


@pytest.fixture
def ledger():
    return Ledger()


def job(schedule, run=None, name="job"):
    async def nothing():
        """Succeed."""

    return Job(name, schedule, run or nothing)


def make(clock, ledger, *jobs, timezone="UTC"):
    return Scheduler(clock, timezone, jobs, ledger.last_runs, ledger.record)


def others():
    return asyncio.all_tasks() - {asyncio.current_task()}


async def turns(number=5):
    """Let everything that is ready run."""
    for _ in range(number):
        await asyncio.sleep(0)


async def test_a_week_of_schedules_hour_by_hour():
    """Through a week, looked at each hour, each job runs at its moments and at no other."""
    seen: list[tuple[str, str]] = []
    ledger = Ledger()
    with freeze_time("2026-03-23 00:30:00", real_asyncio=True) as frozen:  # Berlin's clocks change on Sunday 29th

        def note(name):
            async def run():
                seen.append((name, from_us(SystemClock().now_us()).strftime("%a %H:%M")))

            return run

        schedules = {
            "hourly": every.hour,
            "nightly": every.day.at("3am"),
            "berlin": every.day.at("2am", tz="Europe/Berlin"),
            "archive": every.Sunday.at("4am"),
            "week": every.week,
            "weekdays": every.weekday.at5pm,
            "weekend": every.weekend.atnoon,
            "default": every.Friday.at("9am"),
            "six": every(6).hours,
        }
        jobs = [Job(name, schedule, note(name)) for name, schedule in schedules.items()]
        scheduler = Scheduler(SystemClock(), "America/New_York", jobs, {}, ledger.record)
        assert await scheduler.run_due() == []
        for _ in range(7 * 24):
            frozen.tick(timedelta(hours=1))
            await scheduler.run_due()
    await scheduler.close()
    by_name = {name: [when for what, when in seen if what == name] for name in schedules}
    days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    every_hour = [f"{day} {hour:02}:30" for day in days for hour in range(24)]
    assert by_name["hourly"] == [*every_hour[1:], "Mon 00:30"]
    # New York is at UTC-4 this week.
    assert by_name["nightly"] == [f"{day} 07:30" for day in days]
    # 2 am is 01:00 UTC in winter; on Sunday it does not exist and comes at 01:00 UTC too; Monday's is at 00:00 UTC.
    assert by_name["berlin"] == [*(f"{day} 01:30" for day in days), "Mon 00:30"]
    assert by_name["archive"] == ["Sun 08:30"]
    assert by_name["week"] == ["Mon 04:30"]
    assert by_name["weekdays"] == [f"{day} 21:30" for day in days[:5]]
    assert by_name["weekend"] == ["Sat 16:30", "Sun 16:30"]
    assert by_name["default"] == ["Fri 13:30"]
    assert by_name["six"] == [when for when in [*every_hour[1:], "Mon 00:30"] if int(when[4:6]) % 6 == 0]
    assert [run for run in ledger.runs if run.error] == []
    assert len(ledger.runs) == len(seen) + len(jobs)  # the first record of each job is its starting point


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.tuples(st.integers(0, 30 * HOUR), st.booleans()), max_size=20))
def test_every_moment_is_made_good_once(steps):
    """Whatever the pauses and restarts, the recorded moments rise, none is skipped at the end, and none comes twice."""

    async def drive():
        clock, ledger = ManualClock(START), Ledger()
        schedules = {"nightly": every.day.at("3am"), "often": every(7).minutes}
        jobs = [job(schedule, name=name) for name, schedule in schedules.items()]
        scheduler = make(clock, ledger, *jobs)
        await scheduler.run_due()
        for pause, restart in steps:
            clock.advance(pause)
            if restart:
                await scheduler.close()
                scheduler = make(clock, ledger, *jobs)
            now = clock.now_us()
            before = ledger.last_runs
            runs = {run.job: run for run in await scheduler.run_due()}
            for name, schedule in schedules.items():
                due = schedule.latest_due(before[name], now)
                assert (runs[name].planned_us if name in runs else None) == due
            assert await scheduler.run_due() == []
            assert scheduler.next_run_us() == min(schedule.next_after(now) for schedule in schedules.values())
        await scheduler.close()
        for name in schedules:
            planned = [run.planned_us for run in ledger.runs if run.job == name]
            assert planned == sorted(set(planned))

    asyncio.run(drive())


async def test_missed_moments_are_made_up_by_one_run(clock, ledger):
    """Days of sleep are made good by a single run, planned for the latest moment, also by a new process."""
    scheduler = make(clock, ledger, job(every.hour))
    await scheduler.run_due()
    clock.advance(50 * HOUR + 60)
    await scheduler.close()
    scheduler = make(clock, ledger, job(every.hour))
    (run,) = await scheduler.run_due()
    assert from_us(run.planned_us) == START + timedelta(hours=50)
    assert run.started_us == run.finished_us == clock.now_us()
    assert await scheduler.run_due() == []


async def test_a_new_job_waits_for_its_next_moment_even_through_a_restart(clock, ledger):
    """The first sight of a job is its durable starting point: it does not run at once, and a restart remembers."""
    clock.advance(2 * HOUR)
    scheduler = make(clock, ledger, job(every.day.at("3am")))
    assert from_us(scheduler.next_run_us()).hour == 3
    await scheduler.start()
    await scheduler.close()
    assert ledger.runs == [JobRun("job", clock.now_us(), clock.now_us(), clock.now_us(), None)]
    clock.advance(2 * HOUR)
    scheduler = make(clock, ledger, job(every.day.at("3am")))
    (run,) = await scheduler.run_due()
    assert from_us(run.planned_us).hour == 3


async def test_a_clock_that_steps_back_runs_nothing_twice(clock, ledger):
    """A moment that was made good is not run again when the wall clock shows it a second time."""
    scheduler = make(clock, ledger, job(every.hour))
    await scheduler.run_due()
    clock.advance(HOUR)
    assert len(await scheduler.run_due()) == 1
    clock.step(-1800)
    clock.advance(1800)
    assert await scheduler.run_due() == []
    clock.advance(HOUR)
    assert len(await scheduler.run_due()) == 1


async def test_a_restart_with_a_clock_that_is_behind_runs_nothing_twice(clock, ledger):
    """A last run somewhat in the future is believed: its moments are not run again, nor forgotten."""
    ahead = to_us(START + timedelta(hours=3))
    ledger.runs.append(JobRun("job", ahead, ahead, ahead, None))
    scheduler = make(clock, ledger, job(every.hour))
    clock.advance(2 * HOUR)
    assert await scheduler.run_due() == []
    assert (await scheduler.run_now("job")).planned_us == ahead
    clock.advance(2 * HOUR)
    assert [from_us(run.planned_us).hour for run in await scheduler.run_due()] == [4]


async def test_a_run_recorded_by_a_clock_far_ahead_is_not_trusted(clock, ledger):
    """A job whose last run lies days in the future starts afresh instead of waiting for that day."""
    ledger.runs.append(JobRun("job", to_us(START + timedelta(days=400)), 0, 0, None))
    scheduler = make(clock, ledger, job(every.hour))
    await scheduler.run_due()
    clock.advance(HOUR)
    assert len(await scheduler.run_due()) == 1


async def test_a_failing_job_is_visible_and_stops_nobody(clock, ledger):
    """A failure is in the outcome, in the record and in `failures`, until a success; the other jobs run."""
    broken = True

    async def fail():
        if broken:
            raise ZeroDivisionError("by the broken handler")

    scheduler = make(clock, ledger, job(every.hour, fail, "bad"), job(every.hour, name="good"))
    await scheduler.run_due()
    clock.advance(HOUR)
    bad, good = await scheduler.run_due()
    assert (bad.error, good.error) == ("ZeroDivisionError: by the broken handler", None)
    assert bad in ledger.runs
    assert scheduler.failures == {"bad": "ZeroDivisionError: by the broken handler"}
    assert await scheduler.run_due() == []  # tried again at its next moment, not before
    broken = False
    clock.advance(HOUR)
    await scheduler.run_due()
    assert scheduler.failures == {}


async def test_plain_functions_are_jobs_too(clock, ledger):
    """A job need not be async; when it raises, that is a failure like any other."""
    scheduler = make(clock, ledger, job(every.hour, lambda: 7, "plain"), job(every.hour, lambda: 1 / 0, "bad"))
    await scheduler.run_due()
    clock.advance(HOUR)
    assert [run.error for run in await scheduler.run_due()] == [None, "ZeroDivisionError: division by zero"]


async def test_something_that_cancels_itself_is_a_failure(clock, ledger):
    """A job that awaits something cancelled has failed; the scheduler goes on."""

    async def run():
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    scheduler = make(clock, ledger, job(every.hour, run))
    await scheduler.run_due()
    clock.advance(HOUR)
    (outcome,) = await scheduler.run_due()
    assert outcome.error.startswith("CancelledError")


async def test_a_run_that_cannot_be_recorded_is_visible(clock):
    """When the store fails, that is in `failures`; the job is not run again by this process."""
    runs = []

    async def record(run):
        runs.append(run)
        if len(runs) > 1:
            raise OSError("disk full")

    scheduler = Scheduler(clock, "UTC", [job(every.hour)], {}, record)
    await scheduler.run_due()
    clock.advance(HOUR)
    assert len(await scheduler.run_due()) == 1
    assert scheduler.failures == {"job": "it ran, but was not recorded: OSError: disk full"}
    assert await scheduler.run_due() == []


async def test_a_starting_point_that_cannot_be_recorded_is_raised(clock):
    """start() fails when the store does, and can be tried again."""
    fails, runs = True, []

    async def record(run):
        if fails:
            raise OSError("disk full")
        runs.append(run)

    scheduler = Scheduler(clock, "UTC", [job(every.hour)], {}, record)
    with pytest.raises(OSError, match="disk full"):
        await scheduler.start()
    fails = False
    await scheduler.start()
    await scheduler.close()
    assert len(runs) == 1
    assert others() == set()


async def test_jobs_run_side_by_side_and_none_overlaps_itself(clock, ledger):
    """Two jobs run at once; a slow one is passed over until it has ended, then made up for."""
    gates = {name: asyncio.Event() for name in ("slow", "quick")}
    inside, most = [], []

    def gated(name):
        async def run():
            inside.append(name)
            most.append(list(inside))
            await gates[name].wait()
            inside.remove(name)

        return run

    scheduler = make(clock, ledger, *(job(every.hour, gated(name), name) for name in gates))
    await scheduler.run_due()
    clock.advance(HOUR)
    first = asyncio.create_task(scheduler.run_due())
    await turns()
    assert inside == ["slow", "quick"]
    gates["quick"].set()
    await turns()
    clock.advance(2 * HOUR)
    assert [run.job for run in await scheduler.run_due()] == ["quick"]
    assert inside == ["slow"]
    gates["slow"].set()
    assert [from_us(run.planned_us).hour for run in await first] == [1, 1]
    assert [(run.job, from_us(run.planned_us).hour) for run in await scheduler.run_due()] == [("slow", 3)]
    assert all(len(names) == len(set(names)) for names in most)


async def test_a_cancelled_wait_leaves_the_jobs_running(clock, ledger):
    """Cancelling run_due cancels the wait; the job ends and is recorded."""
    gate = asyncio.Event()
    scheduler = make(clock, ledger, job(every.hour, gate.wait))
    await scheduler.run_due()
    clock.advance(HOUR)
    waiting = asyncio.create_task(scheduler.run_due())
    await turns()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    await scheduler.close()
    assert from_us(ledger.last_runs["job"]).hour == 1


async def test_run_now(clock, ledger):
    """run_now runs out of turn, waits for the run under way, and counts for what was missed."""
    gate, starts = asyncio.Event(), []

    async def run():
        starts.append(clock.now_us())
        await gate.wait()

    scheduler = make(clock, ledger, job(every.hour, run))
    await scheduler.run_due()
    clock.advance(HOUR + 60)
    both = [asyncio.create_task(scheduler.run_now("job")) for _ in range(2)]
    await turns()
    assert len(starts) == 1
    gate.set()
    runs = await asyncio.gather(*both)
    assert len(starts) == 2
    assert {run.planned_us for run in runs} == {clock.now_us()}
    assert await scheduler.run_due() == []
    with pytest.raises(InvalidSchedule, match="no job 'jib'"):
        await scheduler.run_now("jib")


async def test_start_makes_up_in_the_background(clock, ledger):
    """start() returns while a missed run is still under way."""
    gate = asyncio.Event()
    ledger.runs.append(JobRun("job", to_us(START - timedelta(days=3)), 0, 0, None))
    scheduler = make(clock, ledger, job(every.day, gate.wait))
    await scheduler.start()
    assert len(ledger.runs) == 1
    gate.set()
    await scheduler.close()
    assert from_us(ledger.last_runs["job"]) == START


async def test_close_waits_for_running_jobs(clock, ledger):
    """A job that ends in time is waited for and recorded; nothing starts afterwards."""
    gate = asyncio.Event()
    scheduler = make(clock, ledger, job(every.hour, gate.wait))
    await scheduler.start()
    clock.advance(HOUR)
    waiting = asyncio.create_task(scheduler.run_due())
    await turns()
    closing = asyncio.create_task(scheduler.close())
    await turns()
    assert not closing.done()
    gate.set()
    await closing
    assert [run.error for run in await waiting] == [None]
    for refused in (scheduler.run_due(), scheduler.start(), scheduler.run_now("job")):
        with pytest.raises(ObjectClosed):
            await refused
    await scheduler.close()
    assert others() == set()


async def test_close_cancels_what_takes_too_long_and_it_is_made_up_for(clock, ledger):
    """A job that close() had to cancel was not recorded, so the next start runs it."""
    never = asyncio.Event()
    scheduler = make(clock, ledger, job(every.hour, never.wait))
    await scheduler.run_due()
    clock.advance(HOUR)
    await scheduler.start()
    await turns()
    by_hand = asyncio.create_task(scheduler.run_now("job"))
    await turns()
    await scheduler.close(timeout_s=0)
    with pytest.raises(ObjectClosed):
        await by_hand
    assert others() == set()
    scheduler = make(clock, ledger, job(every.hour))
    assert [from_us(run.planned_us).hour for run in await scheduler.run_due()] == [1]


async def test_a_job_may_close_its_own_object(clock, ledger):
    """close() called by a job does not wait for that job."""

    async def run():
        await scheduler.close()

    scheduler = make(clock, ledger, job(every.hour, run))
    await scheduler.start()
    clock.advance(HOUR)
    assert [run.error for run in await scheduler.run_due()] == [None]


async def test_a_real_timer_fires_in_real_time_and_leaves_nothing():
    """APScheduler wakes the loop for a one-second job, twice; after close no task, timer or thread is left."""
    threads = set(threading.enumerate())
    twice, ledger, count = asyncio.Event(), Ledger(), 0

    async def run():
        nonlocal count
        count += 1
        if count == 2:
            twice.set()

    scheduler = make(SystemClock(), ledger, job(every(1).seconds, run))
    await scheduler.start()
    assert count == 0
    await asyncio.wait_for(twice.wait(), 10)
    await scheduler.close()
    assert others() == set()
    assert set(threading.enumerate()) == threads
    assert [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()] == []
    assert all(run.planned_us % 1_000_000 == 0 for run in ledger.runs[1:])
    delays = [run.started_us - run.planned_us for run in ledger.runs[1:]]
    assert all(0 <= delay < 900_000 for delay in delays)
    assert scheduler.failures == {}


async def test_a_job_that_is_late_for_its_next_moment_runs_again_at_once():
    """A job that took longer than its interval is looked at when it ends, not at the next alarm of another job."""
    gate, again, ledger = asyncio.Event(), asyncio.Event(), Ledger()
    clock = ManualClock(START)

    async def run():
        if gate.is_set():
            again.set()
        await gate.wait()

    ledger.runs.append(JobRun("job", to_us(START - timedelta(hours=1)), 0, 0, None))
    scheduler = make(clock, ledger, job(every.hour, run))
    await scheduler.start()
    await turns()
    clock.advance(5 * HOUR)
    gate.set()
    await asyncio.wait_for(again.wait(), 10)
    await scheduler.close()
    assert [from_us(run.planned_us).hour for run in ledger.runs[1:]] == [0, 5]


async def test_the_timer_keeps_no_loop_busy(ledger):
    """Neither a job that is overdue while it runs, nor a clock that stands just before a moment, rings without end."""
    gate, clock = asyncio.Event(), ManualClock(START)
    scheduler = make(clock, ledger, job(every.hour, gate.wait))

    def wait_s():
        return scheduler._timer.get_job("timer").trigger.run_date.timestamp() - SystemClock().now_us() / 1e6

    await scheduler.start()
    assert 290 < wait_s() <= 300  # looks now and then, however far the next moment is
    clock.advance(2 * HOUR)
    waiting = asyncio.create_task(scheduler.run_due())
    await turns()
    clock.advance(HOUR + 10)
    await scheduler.run_due()
    assert 290 < wait_s() <= 300
    gate.set()
    await waiting
    await scheduler.run_due()
    await turns()
    clock.advance(HOUR - 10 - 0.000_001)
    before = SystemClock().now_us()
    scheduler._set_timer()
    assert scheduler._timer.get_job("timer").trigger.run_date.timestamp() - before / 1e6 >= 0.009
    await scheduler.close()


async def test_closing_at_the_moment_of_the_timer_leaves_nothing():
    """However the alarm and close() fall together, no task is left and nothing is reported as failed."""
    for yields in range(8):
        clock, ledger = ManualClock(START), Ledger()
        scheduler = make(clock, ledger, job(every.hour))
        await scheduler.start()
        clock.advance(2 * HOUR)
        scheduler._set_timer()  # rings as soon as it may
        await turns(yields)
        scheduler._timer.wakeup()
        await turns(yields % 3)
        await scheduler.close()
        assert others() == set()
        assert scheduler.failures == {}
    gc.collect()


async def test_no_jobs_need_no_timer(clock, ledger):
    """A scheduler without jobs starts nothing."""
    scheduler = make(clock, ledger)
    await scheduler.start()
    assert scheduler.next_run_us() is None
    assert others() == set()
    assert scheduler._timer is None
    await scheduler.close()


def test_refusals(clock, ledger):
    """An unknown zone and two jobs of one name are refused."""
    with pytest.raises(InvalidSchedule, match="Mars"):
        make(clock, ledger, timezone="Mars/Olympus")
    with pytest.raises(InvalidSchedule, match="same"):
        make(clock, ledger, job(every.hour), job(every.day))
