"""Components: the parts of one open object. Each is opened once, after the parts on which it depends."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from lakebed.billing.billing import Billing
from lakebed.billing.quotas import Quotas, QuotaState
from lakebed.clock import SECOND_US, Clock
from lakebed.concurrency import run_in_thread
from lakebed.definitions.cohorts import CohortLookup, Cohorts
from lakebed.definitions.datasets import Datasets
from lakebed.definitions.definitions import Definitions
from lakebed.disk import Disk
from lakebed.errors import LogBehind
from lakebed.events.documents import DocumentPositions
from lakebed.events.promotions import BUILT_IN, Promotion, as_promotions
from lakebed.identity.identity import Identity
from lakebed.identity.people import People
from lakebed.identity.rules import Rules
from lakebed.ingest.dead_letters import DeadLetterQueue, Replayer
from lakebed.ingest.ingest import Ingest
from lakebed.ingest.live_counters import RECENT_S, LiveCounters, count_log
from lakebed.maintenance.maintenance import ARCHIVED, TOTALS, CatchUp, Maintenance, Totals
from lakebed.monitoring.live_snapshot import LiveSnapshots
from lakebed.monitoring.monitor import Monitor
from lakebed.monitoring.parts import MonitoredParts
from lakebed.query.event_history import EventHistory
from lakebed.query.queries import Queries
from lakebed.query.range_queries import RangeQueries
from lakebed.query.sandbox.untrusted_queries import UntrustedQueries
from lakebed.query.templates.templates import Templates
from lakebed.reports.context import ReportContext
from lakebed.reports.metrics import Metrics
from lakebed.reports.reports import Reports
from lakebed.rollups.rollup import Rollup
from lakebed.rollups.rollups import Rollups
from lakebed.scheduling.scheduler import Job, JobRun, Scheduler
from lakebed.settings import Settings
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.archive.archive import Archive
from lakebed.tiers.counters.counters import Counters
from lakebed.tiers.pipeline.pipeline import Pipeline
from lakebed.tiers.storage.dead_letters import DeadLetters
from lakebed.tiers.storage.schedule_runs import ScheduleRuns
from lakebed.tiers.storage.storage import Storage

__all__ = ["Components", "ObjectOptions", "open_components"]

_PROMOTIONS = "promotions"  # key in Storage's meta: all properties that were ever promoted
_SETTLED = "settled"  # key in Storage's meta: the newest `as_of` that was answered and must not change


class ObjectOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options with which the components of one object are opened.

    Attributes:
        promote: properties that become typed columns, by name.
        rollups: rollups that the object's class declares.
        jobs: the object's scheduled methods.
        on_error: called with each error of a call that was not awaited.
        on_quota: called with the state of a quota when usage reaches a threshold.
    """

    name: str
    directory: Path
    settings: Settings
    clock: Clock
    disk: Disk
    promote: Mapping[str, type]
    rollups: Sequence[Rollup]
    jobs: Sequence[Job]
    on_error: Callable[[BaseException], None] | None
    on_quota: Callable[[QuotaState], None]


class Components(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of one open object; exists only if all parts are open. `AsyncExitStack` closes them, newest first."""

    storage: Storage
    engine: SqlEngine
    counters: Counters
    pipeline: Pipeline
    archive: Archive
    history: EventHistory
    identity: Identity
    rollups: Rollups
    catch_up: CatchUp
    maintenance: Maintenance
    queries: Queries
    untrusted: UntrustedQueries
    templates: Templates
    metrics: Metrics
    ingest: Ingest
    dead_letters: DeadLetterQueue
    people: People
    definitions: Definitions
    cohorts: Cohorts
    datasets: Datasets
    reports: Reports
    billing: Billing
    scheduler: Scheduler
    monitor: Monitor


async def open_components(stack: AsyncExitStack, options: ObjectOptions) -> Components:
    """Open every part, and register its closing on `stack`. The caller closes the stack, after an error, too.

    Raises:
        LogCorrupted, LogBehind, FormatTooNew, PromotionConflict, InvalidRollup, StorageUnavailable.
    """
    settings, clock, directory = options.settings, options.clock, options.directory
    storage = Storage(directory / "storage.db")
    stack.push_async_callback(storage.close)
    await storage.open()
    promotions = await _promotions(storage, options.promote)
    engine = SqlEngine(
        threads=settings.query_threads,
        memory_bytes=settings.query_memory_bytes,
        spill=directory / "spill",
        spill_bytes=settings.query_spill_bytes,
    )
    stack.push_async_callback(run_in_thread, "close", engine.close)
    counters = Counters(clock, settings.counters_max_keys)
    documents = DocumentPositions()
    live_counters = LiveCounters(counters, settings.active_ttl_s, documents)
    pipeline = Pipeline(
        directory / "log",
        options.name,
        settings,
        clock=clock,
        disk=options.disk,
        promotions=promotions,
        engine=engine,
        on_commit=live_counters.feed,
        settled_us=await storage.get(_SETTLED, 0, int),
        keep_settled=functools.partial(storage.put, _SETTLED),
    )
    stack.push_async_callback(pipeline.close)
    await pipeline.open()
    opened_at_seq = pipeline.next_seq
    archive = Archive(directory / "archive", options.name, settings, clock, options.disk, promotions)
    stack.push_async_callback(archive.close)
    watermark = await _watermark(storage, pipeline, archive, settings)
    await _check_not_behind(storage, pipeline, directory, watermark)
    history = EventHistory(pipeline, archive, promotions, engine, documents)
    stack.push_async_callback(run_in_thread, "close", history.close)
    identity = Identity(storage, history.read, RangeQueries(history, pipeline, archive, engine).ask, Rules.of(settings))
    stack.push_async_callback(identity.close)
    await identity.open()
    rollups = Rollups(
        storage,
        options.rollups,
        promotions,
        engine,
        history.read,
        settings,
        people=identity.mapping,
        documents=history.documents,
        known_documents=documents,
    )
    stack.push_async_callback(rollups.close)
    await rollups.open()
    catch_up = CatchUp(pipeline, rollups, identity, settings, clock)
    maintenance = Maintenance(
        settings,
        clock,
        pipeline=pipeline,
        storage=storage,
        archive=archive,
        rollups=rollups,
        identity=identity,
        history=history,
        live=live_counters,
        catch_up=catch_up,
    )
    maintenance.watermark = watermark
    pipeline.on_full = maintenance.relieve
    queries = Queries(
        history,
        engine,
        settings,
        clock,
        name=options.name,
        tables=catch_up.rollup_tables,
        rollups=[rollup.name for rollup in options.rollups],
        people=catch_up.people,
    )
    stack.push_async_callback(queries.close)
    untrusted = UntrustedQueries(queries, settings, clock, name=options.name)
    stack.push_async_callback(untrusted.close)
    metrics = Metrics(
        queries, rollups, catch_up.rollup, promotions=promotions, clock=clock, max_rows=settings.query_max_rows
    )
    dead_letters = DeadLetters(storage, settings.dead_letters_max, settings.dead_letters_max_bytes)
    await dead_letters.open()
    ingest = Ingest(pipeline, dead_letters, clock, options.on_error)
    replayer = Replayer(dead_letters, ingest, pipeline, history, clock)
    await replayer.recover()
    definitions = Definitions(ingest, history, queries)
    cohort_lookup = CohortLookup(definitions, promotions, clock)
    report_parts = queries, metrics, cohort_lookup.named, promotions, clock, untrusted
    context = ReportContext(*report_parts, trusting=True)
    await _restore_live_counters(live_counters, storage, pipeline, history, settings, clock)
    runs = ScheduleRuns(storage)
    scheduler = Scheduler(clock, settings.schedule_timezone, options.jobs, await runs.last(), _RunRecorder(runs))
    stack.push_async_callback(_drain, pipeline, ingest, maintenance)
    monitored = MonitoredParts(
        directory=directory,
        settings=settings,
        counters=counters,
        documents=documents,
        pipeline=pipeline,
        storage=storage,
        archive=archive,
        dead_letters=dead_letters,
        ingest=ingest,
        rollups=rollups,
        identity=identity,
        queries=queries,
        catch_up=catch_up,
        maintenance=maintenance,
        scheduler=scheduler,
        opened_at_seq=opened_at_seq,
    )
    return Components(
        storage=storage,
        engine=engine,
        counters=counters,
        pipeline=pipeline,
        archive=archive,
        history=history,
        identity=identity,
        rollups=rollups,
        catch_up=catch_up,
        maintenance=maintenance,
        queries=queries,
        untrusted=untrusted,
        templates=Templates(untrusted),
        metrics=metrics,
        ingest=ingest,
        dead_letters=DeadLetterQueue(dead_letters, replayer),
        people=People(identity, ingest, catch_up.identity, history, queries, clock),
        definitions=definitions,
        cohorts=Cohorts(definitions, cohort_lookup, context),
        datasets=Datasets(definitions, ingest, queries, untrusted, promotions, clock),
        reports=Reports(context, ReportContext(*report_parts, trusting=False)),
        billing=Billing(
            definitions, context, ingest, Quotas(definitions, context, counters, clock, options.on_quota), clock
        ),
        scheduler=scheduler,
        monitor=Monitor(
            monitored, LiveSnapshots(options.name, counters, pipeline, history, settings.active_ttl_s, clock, documents)
        ),
    )


class _RunRecorder:
    """Records each run of a scheduled job in storage."""

    def __init__(self, runs: ScheduleRuns) -> None:
        self._runs = runs

    async def __call__(self, run: JobRun) -> None:
        await self._runs.record(run.job, run.planned_us, run.finished_us, run.error)


async def _drain(pipeline: Pipeline, ingest: Ingest, maintenance: Maintenance) -> None:
    """Commit all received events, before a part that they need is closed."""
    await pipeline.flush()
    await ingest.settle()
    await maintenance.close()
    await maintenance.save_totals()


async def _promotions(storage: Storage, promote: Mapping[str, type]) -> tuple[Promotion, ...]:
    """All properties that were ever promoted in this object, and the new ones in `promote`. Stores the new ones."""
    known: list[Promotion] = await storage.get(_PROMOTIONS, [], list[Promotion])
    promotions = as_promotions(promote, known or BUILT_IN)
    if list(promotions) != known:
        await storage.put(_PROMOTIONS, promotions)
    return promotions


async def _watermark(storage: Storage, pipeline: Pipeline, archive: Archive, settings: Settings) -> int:
    """The archive's watermark, from storage. Reads the archive only if storage has no watermark.

    With an external catalog, the archive is read only if the log is empty, because the log may have been lost.
    """
    known: int = await storage.get(ARCHIVED, 0, int)
    if known or (settings.catalog and pipeline.next_seq):
        return known
    return await archive.watermark() if archive.exists() else 0


async def _check_not_behind(storage: Storage, pipeline: Pipeline, directory: Path, watermark: int) -> None:
    end = pipeline.next_seq
    checkpoints = await storage.checkpoints()
    checkpoints["the archive"] = watermark
    checkpoints["totals"] = (await storage.get(TOTALS, Totals(), Totals)).seq
    for consumer, seq in checkpoints.items():
        if seq > end:
            raise LogBehind(
                f"{consumer} has processed {seq} events, the log ends at {end}",
                path=directory / "log",
                offset=end,
                hint="Files of the log are missing, or storage.db belongs to another log: restore both from one backup",
            )


async def _restore_live_counters(
    live_counters: LiveCounters,
    storage: Storage,
    pipeline: Pipeline,
    history: EventHistory,
    settings: Settings,
    clock: Clock,
) -> None:
    saved = await storage.get(TOTALS, Totals(), Totals)
    now = clock.now_us()
    recent, active_since = now - int(RECENT_S * SECOND_US), now - int(settings.active_ttl_s * SECOND_US)
    names = Counter(saved.names)
    with pipeline.view() as view:
        if saved.seq < view.start_seq:  # storage.db was lost: events that the log has deleted are read from the archive
            async for table in history.read(saved.seq, view.start_seq, frozenset()):
                names.update(name for name in table["event"].to_pylist() if name is not None)
        counted = await history.in_thread(lambda: count_log(view, saved.seq, recent, active_since))
        # An older Lakebed did not save `documents`: `EventHistory` searches positions before `unknown` when needed.
        unknown = 0 if saved.documents is not None else max(saved.seq, view.start_seq)
        live_counters.documents.restore([*(saved.documents or ()), *counted.documents], unknown, view.end_seq)
    live_counters.restore(names, counted, now)
