"""A real object and the ledger side by side, through everything that may happen to an object."""

import asyncio
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from lakebed import Analytics, ManualClock, Rollup
from lakebed.clock import from_us
from tests.model.plain_model import DAY_US, US, Ledger, Row, days_until, rollup_order

START = datetime(2026, 1, 15, 12, tzinfo=UTC)
WINDOW_S = 600.0
NAMES = ("order", "view", "login")
BY_EVENT = (
    "SELECT event, count(*) AS n, sum(revenue) AS total, sum(CASE WHEN json_type(properties, '$.revenue') IN "
    "('DOUBLE', 'UBIGINT', 'BIGINT') THEN CAST(properties->>'$.revenue' AS DOUBLE) END) AS json_total "
    "FROM events GROUP BY event ORDER BY event"
)
_MOST_INSTANTS = 4


class Shop(Analytics):
    revenue = Rollup(
        "revenue",
        by=["plan"],
        measures={"total": "sum(revenue)", "orders": "count()", "buyers": "distinct(person_id)"},
        grain="day",
        where="event = 'order'",
    )


events = st.fixed_dictionaries(
    {
        "event": st.sampled_from(NAMES),
        "revenue": st.one_of(
            st.none(), st.integers(-40, 400).map(lambda quarters: quarters / 4), st.sampled_from([3, "n/a"])
        ),
        "plan": st.sampled_from([None, "free", "pro"]),
        "user_id": st.sampled_from([None, "ann", *(f"u{number}" for number in range(12))]),
        "anonymous_id": st.sampled_from([None, "ann", "anon"]),
        # Seconds before now, by the client's clock: mostly 0, else late or out of order; a little ahead is allowed too.
        "ago": st.one_of(
            st.none(),
            st.integers(-3600, 7200),
            st.integers(0, 12).map(lambda days: days * 86_400),
            st.just(40 * 86_400),
        ),
        "message_id": st.sampled_from([None, None, *"abcdefgh"]),
    }
)
# What a step draws must not depend on times and ids, which differ between two runs of the same steps.
indices = st.integers(0, 1000)
BAD = ({"event": ""}, {"event": "x" * 201}, {"type": "nonsense"}, {"event": "view", "userId": ""}, 7)


class Sides(RuleBasedStateMachine):
    """After each step every answer equals the ledger's, and remembered answers never change."""

    def __init__(self):
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="lakebed-model-"))
        self.runner = asyncio.Runner()
        self.clock = ManualClock(START)
        self.ledger = Ledger(WINDOW_S)
        self.instants = {}  # as_of in microseconds -> (answers)
        self.tags = {}  # tag, or snapshot id -> end seq
        self.settled = 0  # the newest instant that was queried
        self.watermark = 0
        self.shop = None

    def teardown(self):
        try:
            self.run(self.shop.close())
        finally:
            self.runner.close()
            shutil.rmtree(self.root)

    def run(self, work):
        return self.runner.run(work)

    @initialize(segment_events=st.sampled_from([3, 7, 50]), retention_s=st.sampled_from([0.0, 0.0, 3600.0]))
    def open(self, segment_events, retention_s):
        self.options = {
            "segment_events": segment_events,
            "retention_s": retention_s,
            "dedupe_window_s": WINDOW_S,
            "headroom_bytes": 0,
            "archive_rows": 11,
            "snapshots_keep": 2,
            "snapshots_age_s": 0.0,
            "garbage_grace_s": 0.0,
            "promote": {"revenue": float},
        }
        self._reopen()

    def _reopen(self):
        self.shop = Shop("shop", root=self.root, clock=self.clock, **self.options)
        self.run(self.shop.open())
        while running := list(self.shop._components.scheduler._running.values()):
            self.run(asyncio.wait(running))  # due jobs run now, and not in a later step
        self._look()

    def _look(self):
        """Note the state after scheduled jobs: they may archive events, and expire snapshots without a tag."""
        watermark = self.shop.stats().watermark
        assert self.watermark <= watermark <= len(self.ledger.rows), "the watermark went back"
        self.watermark = watermark
        kept = {snapshot.id for snapshot in self.run(self.shop.snapshots())}
        self.tags = {name: end for name, end in self.tags.items() if isinstance(name, str) or name in kept}

    # What is tracked

    def _call(self, event):
        fields = {name: event[name] for name in ("user_id", "anonymous_id", "message_id")}
        if event["ago"] is not None:
            fields["timestamp"] = from_us(self.clock.now_us() - event["ago"] * US)
        properties = {name: event[name] for name in ("revenue", "plan") if event[name] is not None}
        return event["event"], properties, fields

    def _row(self, event, receipt):
        person = event["user_id"] if event["user_id"] is not None else event["anonymous_id"]
        ago = event["ago"]
        return Row(
            seq=receipt.seq,
            message_id=receipt.message_id,
            event=event["event"],
            person=person,
            timestamp=None if ago is None else self.clock.now_us() - ago * US,
            revenue=event["revenue"],
            plan=event["plan"],
        )

    def _book(self, answered):
        """Add the stored events to the ledger with the times that the object reports; check the duplicates."""
        stored = sorted(
            ((event, receipt) for event, receipt in answered if receipt.status == "stored"), key=lambda x: x[1].seq
        )
        first = len(self.ledger.rows)
        sql = "SELECT seq, message_id, received_at FROM events WHERE seq >= ? ORDER BY seq"
        rows = self.run(self.shop.query(sql, [first])).rows
        assert [(row.seq, row.message_id) for row in rows] == [
            (receipt.seq, receipt.message_id) for _, receipt in stored
        ]
        received = [(row.received_at - from_us(0)) // timedelta(microseconds=1) for row in rows]
        before = self.ledger.rows[-1].received_at if self.ledger.rows else 0
        assert received == sorted(received), "time never goes back within a log"
        assert all(us > max(before, self.settled) for us in received), "nothing comes into an instant once asked for"
        assert all(us >= self.clock.now_us() for us in received)
        at = max([self.clock.now_us(), *received])
        for (event, receipt), moment in zip(stored, received, strict=True):
            assert self.ledger.repeats(receipt.message_id, moment) is None, "a repeated id was stored"
            row = self._row(event, receipt)
            row.received_at = moment
            row.timestamp = moment if row.timestamp is None else row.timestamp
            self.ledger.add(row)
        for _, receipt in answered:
            if receipt.status == "duplicate":
                row = self.ledger.repeats(receipt.message_id, at)
                assert row is not None, "an id that nothing used within the window was called a duplicate"
                assert receipt.seq == row.seq

    @rule(event=events)
    def track(self, event):
        name, properties, fields = self._call(event)
        receipt = self.run(_wait(lambda: self.shop.track(name, properties, **fields)))
        self._book([(event, receipt)])

    @rule(items=st.lists(st.one_of(events, events, st.sampled_from(BAD)), max_size=12), as_bytes=st.booleans())
    def batch(self, items, as_bytes):
        wire = [self._wire(item) if item not in BAD else item for item in items]
        if as_bytes:
            wire = msgspec.json.encode(wire)
        receipts = self.run(_wait(lambda: self.shop.batch(wire)))
        assert len(receipts) == len(items)
        for item, receipt in zip(items, receipts, strict=True):
            assert (receipt.status == "rejected") == (item in BAD)
            assert (receipt.reason is None) == (item not in BAD)
        self._book([(i, r) for i, r in zip(items, receipts, strict=True) if i not in BAD])

    def _wire(self, event):
        name, properties, fields = self._call(event)
        wire = {"event": name, "properties": properties, "userId": fields["user_id"]}
        wire |= {"anonymousId": fields["anonymous_id"], "messageId": fields["message_id"]}
        if "timestamp" in fields:
            wire["timestamp"] = fields["timestamp"].isoformat()
        return wire

    @rule(index=indices, event=events)
    def retry(self, index, event):
        """Track an event with an earlier message id, within the window or beyond it."""
        if rows := self.ledger.rows:
            self.track(event | {"message_id": rows[index % len(rows)].message_id})

    # Time

    @rule(seconds=st.sampled_from([0.001, 1.0, 59.0, 301.0, 700.0, 4000.0, 90_000.0]))
    def advance(self, seconds):
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-0.5, -30.0, -400.0]))
    def step_back(self, seconds):
        self.clock.step(seconds)

    # The tiers

    @rule()
    def rollup(self):
        done = self.run(self.shop.rollup())
        assert done.seq == len(self.ledger.rows)
        assert self.run(self.shop.rollup()).events == 0

    @rule(age=st.sampled_from([None, None, 0.0, 60.0, 700.0]))
    def archive(self, age):
        done = self.run(self.shop.archive(age))
        assert self.watermark <= done.watermark <= len(self.ledger.rows)
        if age is None:
            assert done.watermark == len(self.ledger.rows)
            assert self.run(self.shop.archive()).rows == 0
        else:
            now = self.clock.now_us()
            assert all(row.received_at < now - age * US for row in self.ledger.rows[self.watermark : done.watermark])
        self.watermark = done.watermark

    @rule()
    def compact(self):
        self.run(self.shop.compact())
        assert self.run(self.shop.compact()).commits == 0

    @rule()
    def expire(self):
        done = self.run(self.shop.expire())
        self._look()
        assert not {snapshot.id for snapshot in self.run(self.shop.snapshots())} & set(done.snapshots)
        assert len(done.snapshots) == 0 or done.kept >= 2

    @rule()
    def run_due(self):
        """Run the due jobs: rollups each hour, expiry each day, the archive each Sunday."""
        assert all(run.error is None for run in self.run(self.shop.run_due()))
        self._look()

    @rule()
    def collect_garbage(self):
        self.run(self.shop.collect_garbage())
        assert self.run(self.shop.collect_garbage(dry_run=True)).paths == ()

    @rule(name=st.sampled_from(["audit", "2026.q1"]))
    def tag(self, name):
        if self.watermark == 0:
            return
        self.run(self.shop.tag(name))
        newest = self.run(self.shop.snapshots())[-1]
        assert name in newest.tags
        self.tags[name] = self.tags[newest.id] = self.watermark

    # Everything at once

    @rule(batch=st.lists(events, min_size=1, max_size=6))
    def together(self, batch):
        """Track, query and maintain at the same time; a count never dips and never doubles."""
        before = len(self.ledger.rows)
        calls = [self._call(event) for event in batch]

        async def ask():
            return (await self.shop.query("SELECT count(*), count(DISTINCT seq), max(seq) + 1 FROM events"))[0]

        async def everything():
            acks = [self.shop.track(name, properties, **fields) for name, properties, fields in calls]
            jobs = [self.shop.archive(), self.shop.rollup(), self.shop.compact(), self.shop.expire()]
            jobs += [self.shop.collect_garbage(), *(ask() for _ in range(4))]
            done = await asyncio.gather(*jobs)
            return [await ack for ack in acks], done[0], done[-4:]

        receipts, archived, counts = self.run(everything())
        self._book(list(zip(batch, receipts, strict=True)))
        for total, distinct, end in counts:
            assert total == distinct == (end or 0)
            assert before <= total <= len(self.ledger.rows)
        assert archived.watermark >= self.watermark
        self._look()

    @rule()
    def restart(self):
        self.run(self.shop.close())
        self._reopen()

    # Remembered answers

    @rule(index=indices)
    def remember(self, index):
        """Query as of an instant: now, or at or just before an event."""
        moments = [self.clock.now_us()]
        moments += [row.received_at - back for row in self.ledger.rows for back in (0, 1)]
        moments = [us for us in moments if us <= self.clock.now_us()]
        moment = moments[index % len(moments)]
        end = self.ledger.until(moment)
        days = days_until(from_us(moment).date(), 3)
        self.settled = max(self.settled, moment)
        while len(self.instants) >= _MOST_INSTANTS:
            self.instants.pop(next(iter(self.instants)))
        self.instants[moment] = (end, self.ledger.by_event(end), days, self.ledger.actives(days, 1, end))
        self._check_instant(moment)

    def _check_instant(self, moment):
        end, by_event, days, actives = self.instants[moment]
        if moment > self.clock.now_us():
            return  # the clock was set back: the instant is in the future
        as_of = from_us(moment)
        result = self.run(self.shop.query(BY_EVENT, as_of=as_of))
        assert result.seq == (0, end)
        assert [(row.event, row.n, row.total) for row in result] == by_event, f"as of {as_of}"
        actual = self.run(self.shop.dau(start=days[0], end=days[-1], as_of=as_of))
        assert [tuple(row) for row in actual] == actives, f"as of {as_of}"

    # After each step

    @invariant()
    def healthy(self):
        assert self.run(self.shop.check()) == []

    @invariant()
    def same_counts(self):
        result = self.run(self.shop.query(BY_EVENT))
        expected = self.ledger.by_event()
        assert [(row.event, row.n, row.total) for row in result] == expected
        assert [(row.event, row.n, row.json_total) for row in result] == expected
        seqs = self.run(self.shop.query("SELECT count(*), count(DISTINCT seq), coalesce(max(seq) + 1, 0) FROM events"))
        assert tuple(seqs[0]) == (len(self.ledger.rows),) * 3
        stats = self.shop.stats()
        assert stats.totals == self.ledger.totals()
        assert stats.received == stats.stored + stats.duplicate + stats.rejected
        assert (stats.next_seq, stats.watermark) == (len(self.ledger.rows), self.watermark)

    @invariant()
    def same_metrics(self):
        days = days_until(from_us(self.clock.now_us()).date(), 5)
        assert [tuple(row) for row in self.run(self.shop.dau(5))] == self.ledger.actives(days, 1)
        assert [tuple(row) for row in self.run(self.shop.wau(5))] == self.ledger.actives(days, 7)
        end_us = self.clock.now_us() // (3600 * US) * 3600 * US + 3600 * US
        start_us = end_us - DAY_US // 2
        for options in ({}, {"event": "order"}, {"people": True}):
            measure = {"event": options.get("event"), "measure": "people" if "people" in options else "count"}
            series = self.run(self.shop.timeseries(start=from_us(start_us), end=from_us(end_us), **measure))
            expected = self.ledger.series(start_us, end_us, **options)
            assert [(row.time, row.value) for row in series] == [(from_us(at), value) for at, value in expected]

    @invariant()
    def same_rollup(self):
        rows = self.run(self.shop.query("SELECT date, plan, total, orders, buyers FROM revenue")).rows
        assert sorted((tuple(row) for row in rows), key=rollup_order) == self.ledger.revenue()

    @invariant()
    def remembered(self):
        for moment in self.instants:
            self._check_instant(moment)
        for name, end in self.tags.items():
            result = self.run(self.shop.query(BY_EVENT, snapshot=name))
            assert [(row.event, row.n, row.total) for row in result] == self.ledger.by_event(end)


async def _wait(call):
    """Call within a running loop: `track` and `batch` need one."""
    return await call()
