"""How an Analytics object is put together and taken apart: each part once, in the order in which it can be trusted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from lakebed.billing.billing import Billing
from lakebed.billing.quota import QuotaState
from lakebed.concurrency import run_in_thread
from lakebed.definitions.cohorts import Cohorts
from lakebed.definitions.definitions import Definitions
from lakebed.errors import LogBehind
from lakebed.events.batch import EventBatch
from lakebed.events.operator_rows import OperatorRows
from lakebed.events.promotions import BUILT_IN, Promotion, as_promotions
from lakebed.identity.identity import Identity
from lakebed.identity.people import People
from lakebed.identity.rules import Rules
from lakebed.ingest.ingest import Ingest
from lakebed.ingest.live_counters import RECENT_S, LiveCounters, replay
from lakebed.ingest.replay import Replayer
from lakebed.maintenance.maintenance import ARCHIVED, TOTALS, Maintenance, Totals
from lakebed.monitoring.live_snapshot import LiveSnapshots
from lakebed.monitoring.stats import Stats, stats
from lakebed.objects.durable_object import DurableObject
from lakebed.query.event_history import EventHistory
from lakebed.query.queries import Queries
from lakebed.query.range_queries import RangeQueries
from lakebed.query.sandbox.untrusted_queries import UntrustedQueries
from lakebed.reports.context import ReportContext
from lakebed.reports.metrics import Metrics
from lakebed.rollups.rollup import Rollup
from lakebed.rollups.rollups import Rollups
from lakebed.scheduling.schedule import schedules_of
from lakebed.scheduling.scheduler import Job, JobRun, Scheduler
from lakebed.settings import Settings
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.archive.archive import Archive
from lakebed.tiers.counters.counters import Counters
from lakebed.tiers.pipeline.pipeline import Pipeline
from lakebed.tiers.storage.dead_letters import DeadLetters
from lakebed.tiers.storage.storage import Storage

__all__ = ["Components", "assemble", "disassemble", "rollups_of"]

_PROMOTIONS = "promotions"  # keys of Storage's meta: columns that there will always be …
_SETTLED = "settled"  # … and the newest `as_of` that was answered before an event came after it
_US = 1_000_000
_log = logging.getLogger("lakebed")


class Components:
    """The parts of one open object. What is not built yet is not there: taking apart copes with that."""

    storage: Storage
    engine: SqlEngine
    counters: Counters
    operator_rows: OperatorRows
    live: LiveCounters
    pipeline: Pipeline
    archive: Archive
    history: EventHistory
    rollups: Rollups
    identity: Identity
    maintenance: Maintenance
    queries: Queries
    untrusted: UntrustedQueries
    metrics: Metrics
    letters: DeadLetters
    intake: Ingest
    roster: People
    definitions: Definitions
    cohorts: Cohorts
    promotions: tuple[Promotion, ...]
    inquiry: ReportContext
    stranger: ReportContext
    biller: Billing
    replays: Replayer
    pulse: LiveSnapshots
    scheduler: Scheduler
    opened_at_seq: int = 0
    ready: bool = False

    def stats(self) -> Stats:
        """What was taken since this opening, and where log and archive stand."""
        own = self.operator_rows.committed  # since this opening: they were neither received nor stored for a client
        return stats(
            self.counters,
            received=self.intake.received - own,
            stored=self.pipeline.next_seq - self.opened_at_seq - own,
            duplicate=self.pipeline.duplicates,
            rejected=self.intake.rejected,
            next_seq=self.pipeline.next_seq,
            watermark=self.maintenance.watermark,
            dead_letters=self.letters.books.waiting,
            dead_letters_dropped=self.letters.books.dropped,
            events=self.pipeline.next_seq - len(self.operator_rows.seqs),
        )


def rollups_of(kind: type) -> list[Rollup]:
    """The rollups that a class declares as attributes, inherited ones included."""
    found: dict[str, Rollup] = {}
    for base in reversed(kind.__mro__):
        for attribute, value in vars(base).items():
            found.pop(attribute, None)
            if isinstance(value, Rollup):
                found[attribute] = value
    return list(found.values())


async def assemble(
    tiers: Components, owner: DurableObject, promote: Mapping[str, type], rollups: Sequence[Rollup]
) -> None:
    """Open every part. If it raises, `disassemble` closes those that were opened.

    Raises:
        LogCorrupted, LogBehind, FormatTooNew, PromotionConflict, InvalidRollup, StorageUnavailable.
    """
    settings, directory = owner.settings, owner.directory
    tiers.storage = Storage(directory / "storage.db")
    await tiers.storage.open()
    promotions = await _promotions(tiers.storage, promote)
    tiers.engine = SqlEngine(
        threads=settings.query_threads,
        memory_bytes=settings.query_memory_bytes,
        spill=directory / "spill",
        spill_bytes=settings.query_spill_bytes,
    )
    tiers.counters = Counters(owner.clock, settings.counters_max_keys)
    tiers.operator_rows = OperatorRows()
    tiers.live = LiveCounters(tiers.counters, settings.active_ttl_s, tiers.operator_rows)

    def on_commit(block: EventBatch, received_at: int) -> None:
        tiers.live.feed(block, received_at)
        tiers.maintenance.relieve()

    async def keep_settled(as_of_us: int) -> None:
        await tiers.storage.put(_SETTLED, as_of_us)

    tiers.pipeline = Pipeline(
        directory / "log",
        owner.name,
        settings,
        clock=owner.clock,
        disk=owner.disk,
        promotions=promotions,
        engine=tiers.engine,
        on_commit=on_commit,
        settled_us=await tiers.storage.get(_SETTLED, 0, int),
        keep_settled=keep_settled,
    )
    await tiers.pipeline.open()
    tiers.opened_at_seq = tiers.pipeline.next_seq
    tiers.archive = Archive(directory / "archive", owner.name, settings, owner.clock, owner.disk, promotions)
    watermark = await _watermark(tiers, settings)
    await _check_not_behind(tiers, directory, watermark)
    tiers.history = EventHistory(tiers.pipeline, tiers.archive, promotions, tiers.engine, tiers.operator_rows)
    excerpts = RangeQueries(tiers.history, tiers.pipeline, tiers.archive, tiers.engine)
    tiers.identity = Identity(tiers.storage, tiers.history.read, excerpts.ask, Rules.of(settings))
    await tiers.identity.open()
    tiers.rollups = Rollups(
        tiers.storage,
        rollups,
        promotions,
        tiers.engine,
        tiers.history.read,
        settings,
        people=tiers.identity.mapping,
        operator_rows=tiers.history.operator_rows,
    )
    await tiers.rollups.open()
    tiers.maintenance = Maintenance(
        settings,
        owner.clock,
        pipeline=tiers.pipeline,
        storage=tiers.storage,
        archive=tiers.archive,
        rollups=tiers.rollups,
        identity=tiers.identity,
        history=tiers.history,
        live=tiers.live,
    )

    async def rollup_tables(names: set[str]) -> dict[str, pa.Table]:
        tables = {}
        for rollup in sorted(names):
            await tiers.maintenance.catch_up(rollup)
            tables[rollup] = await tiers.rollups.table(rollup)
        return tables

    async def people(end_seq: int) -> pa.Table:
        await tiers.maintenance.catch_up_identity(end_seq)
        return (await tiers.identity.mapping_at(end_seq)).pairs

    tiers.queries = Queries(
        tiers.history,
        tiers.engine,
        settings,
        owner.clock,
        name=owner.name,
        tables=rollup_tables,
        rollups=[rollup.name for rollup in rollups],
        people=people,
    )
    tiers.untrusted = UntrustedQueries(tiers.queries, settings, owner.clock, name=owner.name)
    tiers.metrics = Metrics(
        tiers.queries,
        tiers.rollups,
        tiers.maintenance.catch_up,
        promotions=promotions,
        clock=owner.clock,
        max_rows=settings.query_max_rows,
    )
    tiers.letters = DeadLetters(tiers.storage, settings.dead_letters_max, settings.dead_letters_max_bytes)
    await tiers.letters.open()
    tiers.intake = Ingest(tiers.pipeline, tiers.letters, owner.clock, owner.on_error)
    tiers.replays = Replayer(tiers.letters, tiers.intake, tiers.pipeline, tiers.history, owner.clock)
    await tiers.replays.recover()
    tiers.roster = People(tiers.identity, tiers.intake, tiers.maintenance, tiers.history, tiers.queries, owner.clock)
    _prepare_reports(tiers, owner, promotions)
    tiers.pulse = LiveSnapshots(
        owner.name,
        tiers.counters,
        tiers.pipeline,
        tiers.history,
        settings.active_ttl_s,
        owner.clock,
        tiers.operator_rows,
    )
    tiers.maintenance.watermark = watermark
    await _restore_counters(tiers, owner)
    tiers.scheduler = await _scheduler(tiers, owner)
    tiers.ready = True
    await tiers.scheduler.start()


def _prepare_reports(tiers: Components, owner: DurableObject, promotions: Sequence[Promotion]) -> None:
    tiers.promotions = tuple(promotions)
    tiers.definitions = Definitions(tiers.intake, tiers.history, tiers.queries)
    tiers.cohorts = Cohorts(tiers.definitions, promotions, owner.clock)
    asked = tiers.queries, tiers.metrics, tiers.cohorts.at, promotions, owner.clock, tiers.untrusted
    tiers.inquiry = ReportContext(*asked, trusting=True)
    tiers.stranger = ReportContext(*asked, trusting=False)

    def on_quota(state: QuotaState) -> None:
        hook = getattr(owner, "on_quota", None)  # of Analytics; other objects have no quotas
        try:
            if hook is not None:
                hook(state)
        except Exception as error:  # noqa: BLE001 - the app's own; the usage was stored before it
            _log.exception("on_quota of %s failed", owner.name)
            if owner.on_error is not None:
                owner.on_error(error)

    tiers.biller = Billing(tiers.definitions, tiers.inquiry, tiers.counters, owner.clock, on_quota)


async def _promotions(storage: Storage, promote: Mapping[str, type]) -> tuple[Promotion, ...]:
    """What was ever promoted in this object, and what is new. A column stays a column."""
    known: list[Promotion] = await storage.get(_PROMOTIONS, [], list[Promotion])
    promotions = as_promotions(promote, known or BUILT_IN)
    if list(promotions) != known:
        await storage.put(_PROMOTIONS, promotions)
    return promotions


async def _watermark(tiers: Components, settings: Settings) -> int:
    """What the archive is known to have. It is asked only where there is one of which storage does not know.

    An external catalog may always have one: it is asked by an object whose log is empty, since that may have been lost.
    """
    known: int = await tiers.storage.get(ARCHIVED, 0, int)
    if known or (settings.catalog and tiers.pipeline.next_seq):
        return known
    return await tiers.archive.watermark() if tiers.archive.exists() else 0


async def _check_not_behind(tiers: Components, directory: Any, watermark: int) -> None:
    end = tiers.pipeline.next_seq
    marks = await tiers.storage.checkpoints()
    marks["the archive"] = watermark
    marks["totals"] = (await tiers.storage.get(TOTALS, Totals(), Totals)).seq
    for consumer, seq in marks.items():
        if seq > end:
            raise LogBehind(
                f"{consumer} has seen {seq} events, the log ends at {end}",
                path=directory / "log",
                offset=end,
                hint="Files of the log are missing, or storage.db belongs to another log: restore both from one backup",
            )


async def _restore_counters(tiers: Components, owner: DurableObject) -> None:
    kept = await tiers.storage.get(TOTALS, Totals(), Totals)
    now = owner.clock.now_us()
    recent, active_since = now - int(RECENT_S * _US), now - int(owner.settings.active_ttl_s * _US)
    names = Counter(kept.names)
    with tiers.pipeline.view() as view:
        if kept.seq < view.start_seq:  # storage.db was lost: the archive has what the log let go of
            async for table in tiers.history.read(kept.seq, view.start_seq, frozenset()):
                names.update(name for name in table["event"].to_pylist() if name is not None)
        found = await tiers.history.in_thread(lambda: replay(view, kept.seq, recent, active_since))
        unknown = view.start_seq if kept.seq < view.start_seq else 0 if kept.operator is not None else kept.seq
        tiers.operator_rows.restore([*(kept.operator or ()), *found.operator], unknown, view.end_seq)
    tiers.live.restore(names, found, now)


async def _scheduler(tiers: Components, owner: DurableObject) -> Scheduler:
    async def record(run: JobRun) -> None:
        await tiers.storage.record_run(run.job, run.planned_us, run.finished_us, run.error)

    jobs = [Job(one.name, one.schedule, getattr(owner, one.method_name)) for one in schedules_of(type(owner))]
    last_runs = await tiers.storage.last_runs()
    return Scheduler(owner.clock, owner.settings.schedule_timezone, jobs, last_runs, record)


async def disassemble(tiers: Components) -> None:
    """Close every part that was opened, newest first; each is closed whatever happens to the others."""
    failures: list[BaseException] = []
    for close in _closings(tiers):
        try:
            await close()
        except Exception as error:  # noqa: BLE001 - raised below, when the others are closed too
            failures.append(error)
    if failures:
        raise failures[0]


def _closings(tiers: Components) -> list[Callable[[], Any]]:
    ready, built = tiers.ready, vars(tiers)

    async def refuse() -> None:
        tiers.ready = False

    async def drain() -> None:
        """Nothing is lost: what was handed over is committed before anything below it goes."""
        await tiers.pipeline.flush()
        await tiers.intake.settle()
        await tiers.maintenance.close()
        await tiers.maintenance.save_totals()

    async def close_blocking() -> None:
        if "history" in built:
            await run_in_thread("close", tiers.history.close)
        if "engine" in built:
            await run_in_thread("close", tiers.engine.close)

    steps: list[Callable[[], Any]] = []
    if "scheduler" in built:
        steps.append(tiers.scheduler.close)  # before calls are refused: the jobs that it waits for make calls
    steps.append(refuse)
    if ready:
        steps.append(drain)
    steps += [
        getattr(tiers, part).close
        for part in ("untrusted", "queries", "pipeline", "rollups", "identity", "archive")
        if part in built
    ]
    steps.append(close_blocking)
    if "storage" in built:
        steps.append(tiers.storage.close)
    return steps
