"""Analytics: the four tiers in one object. The class opens its components, and has one line for each verb."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from lakebed.billing.billing import Billing
from lakebed.billing.quotas import QuotaState
from lakebed.components import Components, ObjectOptions, open_components
from lakebed.definitions.cohorts import Cohorts
from lakebed.definitions.datasets import Datasets
from lakebed.definitions.definitions import Definitions
from lakebed.errors import ObjectClosed
from lakebed.identity.people import People
from lakebed.ingest.dead_letters import DeadLetterQueue
from lakebed.ingest.ingest import Ingest
from lakebed.interface.delegate import delegate
from lakebed.maintenance.maintenance import Maintenance
from lakebed.monitoring.health import LifetimeCounts
from lakebed.monitoring.monitor import Monitor
from lakebed.objects.durable_object import DurableObject
from lakebed.query.queries import Queries
from lakebed.query.sandbox.untrusted_queries import UntrustedQueries
from lakebed.query.templates.templates import Templates
from lakebed.reports.metrics import Metrics
from lakebed.reports.reports import Reports
from lakebed.rollups.rollup import Rollup
from lakebed.scheduling.schedule import every, schedules_of
from lakebed.scheduling.scheduler import Job, Scheduler
from lakebed.tiers.archive.archive import Archive
from lakebed.tiers.counters.counters import Counters
from lakebed.tiers.pipeline.pipeline import Pipeline

__all__ = ["Analytics"]

_log = logging.getLogger("lakebed")


class Analytics(DurableObject):
    """A product-analytics engine in a directory of its own. An async context manager.

    Args:
        name: name of the object: `^[a-z0-9][a-z0-9_-]{0,62}$`.
        root: directory that contains the object's directory.
        promote: properties that become typed columns, for ever: `{"revenue": float}`. Types are str, float, int, bool,
            Decimal, datetime.
        options: `settings`, `clock`, `disk`, `on_error` and single settings, as for `DurableObject`.

    Subclasses may declare `Rollup`s as class attributes and methods under `@every`.
    """

    def __init__(self, name: str, *, promote: Mapping[str, type] | None = None, **options: Any) -> None:
        super().__init__(name, **options)
        self._promote = dict(promote or {})
        self._closing = AsyncExitStack()
        self._closed = _Closed(self)
        self._components: Components | _Closed = self._closed
        self._opening: Components | None = None  # complete components, until they are closed
        self._lifetime = LifetimeCounts()  # counts of earlier openings

    # Events

    track = delegate(Ingest.track, "_components.ingest")
    page = delegate(Ingest.page, "_components.ingest")
    screen = delegate(Ingest.screen, "_components.ingest")
    identify = delegate(Ingest.identify, "_components.ingest")
    group = delegate(Ingest.group, "_components.ingest")
    alias = delegate(Ingest.alias, "_components.ingest")
    batch = delegate(Ingest.batch, "_components.ingest")
    refuse = delegate(Ingest.refuse, "_components.ingest")
    flush = delegate(Pipeline.flush, "_components.pipeline")

    dead_letters = delegate(DeadLetterQueue.dead_letters, "_components.dead_letters")
    dead_letter = delegate(DeadLetterQueue.dead_letter, "_components.dead_letters")
    replay = delegate(DeadLetterQueue.replay, "_components.dead_letters")
    purge = delegate(DeadLetterQueue.purge, "_components.dead_letters")

    # Answers

    dau = delegate(Metrics.dau, "_components.metrics")
    wau = delegate(Metrics.wau, "_components.metrics")
    mau = delegate(Metrics.mau, "_components.metrics")
    timeseries = delegate(Metrics.timeseries, "_components.metrics")
    query = delegate(Queries.run, "_components.queries")
    query_untrusted = delegate(UntrustedQueries.run, "_components.untrusted")
    templates = delegate(Templates.templates, "_components.templates")
    template = delegate(Templates.template, "_components.templates")

    funnel = delegate(Reports.funnel, "_components.reports")
    funnel_people = delegate(Reports.funnel_people, "_components.reports")
    funnel_times = delegate(Reports.funnel_times, "_components.reports")
    retention = delegate(Reports.retention, "_components.reports")
    lifecycle = delegate(Reports.lifecycle, "_components.reports")
    stickiness = delegate(Reports.stickiness, "_components.reports")
    sessions = delegate(Reports.sessions, "_components.reports")
    session_list = delegate(Reports.session_list, "_components.reports")
    segmentation = delegate(Reports.segmentation, "_components.reports")
    top = delegate(Reports.top, "_components.reports")
    paths = delegate(Reports.paths, "_components.reports")
    timeline = delegate(Reports.timeline, "_components.reports")
    anomalies = delegate(Reports.anomalies, "_components.reports")
    performance = delegate(Reports.performance, "_components.reports")
    errors = delegate(Reports.errors, "_components.reports")
    cohort_people = delegate(Reports.cohort_people, "_components.reports")
    cohort_size = delegate(Reports.cohort_size, "_components.reports")
    usage = delegate(Reports.usage, "_components.reports")
    report_untrusted = delegate(Reports.report_untrusted, "_components.reports")

    save_cohort = delegate(Cohorts.save_cohort, "_components.cohorts")
    cohorts = delegate(Cohorts.cohorts, "_components.cohorts")
    cohort = delegate(Cohorts.cohort, "_components.cohorts")
    delete_cohort = delegate(Cohorts.delete_cohort, "_components.cohorts")

    save_dataset = delegate(Datasets.save_dataset, "_components.datasets")
    datasets = delegate(Datasets.datasets, "_components.datasets")
    dataset = delegate(Datasets.dataset, "_components.datasets")
    delete_dataset = delegate(Datasets.delete_dataset, "_components.datasets")
    write_data_point = delegate(Datasets.write_data_point, "_components.datasets")
    analytics_engine = delegate(Datasets.analytics_engine, "_components.datasets")

    # People

    person = delegate(People.person, "_components.people")
    merge = delegate(People.merge, "_components.people")
    unmerge = delegate(People.unmerge, "_components.people")
    merges = delegate(People.merges, "_components.people")

    # Billing

    track_usage = delegate(Billing.track_usage, "_components.billing")
    save_price_book = delegate(Billing.save_price_book, "_components.billing")
    price_books = delegate(Billing.price_books, "_components.billing")
    invoice = delegate(Billing.invoice, "_components.billing")
    invoices = delegate(Billing.invoices, "_components.billing")
    save_quota = delegate(Billing.save_quota, "_components.billing")
    quotas = delegate(Billing.quotas, "_components.billing")
    quota = delegate(Billing.quota, "_components.billing")

    def on_quota(self, state: QuotaState) -> None:
        """Called when `track_usage` finds a threshold newly reached. Does nothing; override it in a subclass.

        It is called once per threshold and period, again if usage returns to a threshold after corrections, and again
        at the first usage after the object was opened, so a process that ends before the call loses nothing.
        """

    # Upkeep

    rollup = every.hour(delegate(Maintenance.rollup, "_components.maintenance"))
    archive = delegate(Maintenance.archive, "_components.maintenance")
    compact = delegate(Archive.compact, "_components.archive")
    expire = delegate(Archive.expire, "_components.archive")
    collect_garbage = delegate(Archive.collect_garbage, "_components.archive")
    snapshots = delegate(Archive.snapshots, "_components.archive")
    tag = delegate(Archive.tag, "_components.archive")
    untag = delegate(Archive.untag, "_components.archive")
    run_due = delegate(Scheduler.run_due, "_components.scheduler")

    @every.day.at("3am")
    async def tidy(self) -> None:
        """The daily job: bring rollups up to date, expire snapshots and delete files that only those used."""
        await self.rollup()
        if self._opened_components().archive.exists():
            await self.expire()
            await self.collect_garbage()

    @every.Sunday.at("4am")
    async def settle(self) -> None:
        """The weekly job: archive events older than `archive_window_s`, then merge small files."""
        await self.archive(older_than=self.settings.archive_window_s)
        if self._opened_components().archive.exists():
            await self.compact()

    # Monitoring

    stats = delegate(Monitor.stats, "_components.monitor")
    pulse = delegate(Monitor.pulse, "_components.monitor")
    tiers = delegate(Monitor.tiers, "_components.monitor")
    vitals = delegate(Monitor.vitals, "_components.monitor")
    check = delegate(Monitor.check, "_components.monitor")

    @property
    def log_problems(self) -> dict[str, str]:
        """Steps of the log ("append", "seal") whose last try failed, with the error; empty if the object is closed."""
        return {} if isinstance(self._components, _Closed) else dict(self._components.pipeline.problems)

    def tally(self) -> LifetimeCounts:
        """Counts since this Python object was made: events, groups, syncs, queries. Works on a closed object, too."""
        counts = LifetimeCounts()
        counts.add(self._lifetime)
        if self._opening is not None:
            counts.add(self._opening.monitor.lifetime_counts())
        return counts

    # Areas

    @property
    def counters(self) -> Counters:
        """L0: live counters. `incr`, `get`, `count`, `keys`, `top`, `ttl`, `delete`."""
        return self._opened_components().counters

    @property
    def reports(self) -> Reports:
        """Product analytics: each report by name."""
        return self._opened_components().reports

    @property
    def people(self) -> People:
        """Identity: who a person is, and merges."""
        return self._opened_components().people

    @property
    def billing(self) -> Billing:
        """Usage, price books, invoices and quotas."""
        return self._opened_components().billing

    @property
    def definitions(self) -> Definitions:
        """Named documents with all their versions: cohorts and price books, for example."""
        return self._opened_components().definitions

    # Opening and closing

    def _opened_components(self) -> Components:
        if isinstance(self._components, _Closed):
            raise self._components.error()
        return self._components

    async def _open(self) -> None:
        with self._unavailable():
            components = await open_components(self._closing, self._options())
        # Calls are refused before the components close, but after the scheduler closed: its running jobs make calls.
        self._closing.callback(self._refuse_calls)
        self._closing.push_async_callback(components.scheduler.close)
        self._components = self._opening = components
        await components.scheduler.start()

    async def _close(self) -> None:
        try:
            await self._closing.aclose()
        finally:
            if self._opening is not None:
                self._lifetime.add(self._opening.monitor.lifetime_counts())
            self._opening = None
            self._refuse_calls()

    def _refuse_calls(self) -> None:
        self._components = self._closed

    def _options(self) -> ObjectOptions:
        return ObjectOptions(
            name=self.name,
            directory=self.directory,
            settings=self.settings,
            clock=self.clock,
            disk=self.disk,
            promote=self._promote,
            rollups=_rollups_of(type(self)),
            jobs=[
                Job(scheduled.name, scheduled.schedule, getattr(self, scheduled.method_name))
                for scheduled in schedules_of(type(self))
            ],
            on_error=self.on_error,
            on_quota=self._report_quota,
        )

    def _report_quota(self, state: QuotaState) -> None:
        try:
            self.on_quota(state)
        except Exception as error:  # noqa: BLE001 - the app's own code; the usage is stored already
            _log.exception("on_quota of %s failed", self.name)
            if self.on_error is not None:
                self.on_error(error)


class _Closed:
    """Replaces the components while the object is closed: access to a component raises ObjectClosed."""

    def __init__(self, owner: DurableObject) -> None:
        self._owner_kind, self._owner_name = type(owner).__name__, owner.name

    def error(self) -> ObjectClosed:
        return ObjectClosed(
            f"{self._owner_kind} {self._owner_name!r} is not open",
            hint="Use `async with`, or call open()",
            name=self._owner_name,
        )

    def __getattr__(self, component: str) -> Any:
        if component.startswith("__"):
            raise AttributeError(component)
        raise self.error()


def _rollups_of(kind: type) -> list[Rollup]:
    """The rollups that a class declares as attributes, inherited ones included."""
    rollups: dict[str, Rollup] = {}
    for base in reversed(kind.__mro__):
        for attribute, value in vars(base).items():
            rollups.pop(attribute, None)
            if isinstance(value, Rollup):
                rollups[attribute] = value
    return list(rollups.values())
