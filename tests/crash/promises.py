"""The promises made to a process that was killed, and the audit that they hold."""

import random

import pyarrow.parquet as pq

from lakebed import ManualClock
from lakebed.clock import from_us, to_us
from tests.crash.subject import BY_EVENT, SETTINGS, Shop, amount_of, explained, item_of

US = 1_000_000
_PAIRS = {
    "hourly_events": (
        "SELECT hour, event, count FROM hourly_events",
        "SELECT date_trunc('hour', timestamp), event, count(*) FROM events GROUP BY ALL",
    ),
    "daily_metrics": (
        "SELECT date, events, dau FROM daily_metrics",
        "SELECT CAST(timestamp AS DATE), count(*), count(DISTINCT person_id) FROM events GROUP BY ALL",
    ),
    "amounts": (
        "SELECT date, event, total, people FROM amounts",
        "SELECT CAST(timestamp AS DATE), event, sum(amount), count(DISTINCT person_id) FROM events GROUP BY ALL",
    ),
}


class PromiseLog:
    """Every promise that an object made to its sessions."""

    def __init__(self, root, start):
        self.root = root
        self.now_us = to_us(start)
        self.acked = {}  # message id -> seq
        self.answers = {}  # as_of in microseconds -> (seq, rows)
        self.seen = []  # (message id, received_at) of every event that a reader saw, by seq
        self.watermark = 0
        self.sessions = 0
        self.faulty = False  # whether faults were injected into a session: `check` may report them

    def request(self, seed, **more):
        """A request to a worker. Its clock starts shortly after the clocks of earlier sessions, or `behind` them."""
        self.sessions += 1
        self.now_us += random.Random(seed).choice([US, US, 60 * US, 400 * US])
        known = sorted(self.acked)[-5:]
        self.faulty = self.faulty or "faults" in more
        start_us = self.now_us - more.get("behind", 0) * US
        base = {"root": str(self.root), "start_us": start_us, "seed": seed, "session": f"s{self.sessions}"}
        return base | {"jobs": 12, "known": known} | more

    def take(self, messages):
        """Record the promises in the messages of a session."""
        for line in messages:
            self.now_us = max(self.now_us, line.get("at", 0))
            if line["kind"] == "acked":
                for message_id, seq, status in line["receipts"]:
                    self._acknowledge(message_id, seq, status)
            elif line["kind"] == "asked":
                answer = (line["seq"], line["rows"])
                assert self.answers.setdefault(line["as_of"], answer) == answer, "asked twice, answered differently"
            elif line["kind"] == "archived":  # runs may end in another order than they archived
                self.watermark = max(self.watermark, line["watermark"])
            elif line["kind"] == "seen":
                assert line["watermark"] >= self.watermark, "the watermark went back"
                self.watermark = line["watermark"]
            elif line["kind"] == "ready":
                assert line["watermark"] >= self.watermark, "the watermark went back"
                assert line["next_seq"] >= len(self.seen), "the log has become shorter"
            elif line["kind"] == "failed":
                raise AssertionError(line["trace"])

    def _acknowledge(self, message_id, seq, status):
        assert status in ("stored", "duplicate")
        known = self.acked.get(message_id)
        if status == "duplicate":
            # After the window a call whose answer was lost may have stored it again.
            assert known is None or known <= seq, f"{message_id} was at {known}, and is said to repeat {seq}"
        self.acked[message_id] = seq

    async def audit(self, *, retried=0):
        """Open the object as the next process would, and check every promise; send `retried` events again."""
        async with Shop("shop", root=self.root, clock=ManualClock(from_us(self.now_us)), **SETTINGS) as shop:
            await self._events(shop)
            await self._derived(shop)
            await self._copies(shop)
            await self._past(shop)
            problems = [problem for problem in await shop.check() if not (self.faulty and explained(problem))]
            assert problems == [], problems
            if retried:
                await self._retry(shop, retried)
            return shop.stats()

    async def _events(self, shop):
        rows = (await shop.query("SELECT seq, message_id, received_at, event, amount FROM events ORDER BY seq")).rows
        assert [row.seq for row in rows] == list(range(len(rows))), "positions without gap, each once"
        events = [(row.message_id, to_us(row.received_at)) for row in rows]
        assert events[: len(self.seen)] == self.seen, "what was once read has changed"
        self.seen = events
        for row in rows:
            number = amount_of(row.message_id)
            assert (row.event, row.amount) == (f"e{number % 3}", number), "an event is not what was sent"
        for message_id, seq in self.acked.items():
            assert seq < len(events), f"acknowledged {message_id} at {seq} is gone: the log ends at {len(events)}"
            assert events[seq][0] == message_id, f"acknowledged {message_id} is not at {seq}"
        window_us = SETTINGS["dedupe_window_s"] * US
        last = {}
        for message_id, received in events:
            previous = last.get(message_id)
            assert previous is None or received - previous > window_us, f"{message_id} is there twice"
            last[message_id] = received

    async def _derived(self, shop):
        stats = shop.stats()
        assert stats.watermark >= self.watermark, "the watermark went back"
        self.watermark = stats.watermark
        totals = await shop.query("SELECT event, count(*) FROM events GROUP BY event")
        assert stats.totals == dict(totals.rows)
        for name, (rolled, raw) in _PAIRS.items():
            of = [sorted(map(tuple, await shop.query(sql)), key=repr) for sql in (rolled, raw)]
            assert of[0] == of[1], f"{name} is not what the events give"

    async def _copies(self, shop):
        """The archive alone has the events below the watermark; each sealed file has the same events as the query."""
        if snapshots := await shop.snapshots():
            archived = await shop.query("SELECT seq, message_id FROM events ORDER BY seq", snapshot=snapshots[-1].id)
            actual = [(row.seq, row.message_id) for row in archived]
            assert len(actual) >= self.watermark, "the archive lacks events"
            expected = [(seq, message_id) for seq, (message_id, _) in enumerate(self.seen[: len(actual)])]
            assert actual == expected, "the archive has each event once, up to the watermark"
        with shop._components.pipeline.view() as view:  # an open view pins its files
            for file in view.files:
                ids = pq.read_table(file.path, columns=["message_id"], partitioning=None)["message_id"].to_pylist()
                assert ids == [message_id for message_id, _ in self.seen[file.first_seq : file.end_seq]], (
                    f"{file.path} differs"
                )

    async def _past(self, shop):
        for as_of, (seq, rows) in self.answers.items():
            result = await shop.query(BY_EVENT, as_of=from_us(as_of))
            assert result.seq == (0, seq), f"as of {as_of} the log ended at {seq}"
            assert [list(row) for row in result] == rows, f"the answer as of {as_of} has changed"
        for old in list(self.answers)[2:-8]:  # each audit has compared these
            del self.answers[old]

    async def retry(self, count=20):
        """Send the newest acknowledged events again: each is a duplicate with the seq of its first receipt."""
        async with Shop("shop", root=self.root, clock=ManualClock(from_us(self.now_us)), **SETTINGS) as shop:
            await self._retry(shop, count)

    async def _retry(self, shop, count):
        window_us = round(SETTINGS["dedupe_window_s"] * US)
        # Not earlier: an id whose window is over stays forgotten when the clock is set back. Not before a moment that a
        # session queried, or at which a segment without events begins: the session may have died before it reported
        # that.
        log = shop._components.pipeline
        settled = max(log._settled, log._last_received, self.seen[-1][1] if self.seen else 0)
        now_us = max(shop.clock.now_us(), settled + 1)
        shop.clock.step((now_us - shop.clock.now_us()) / US)
        ids = {
            message_id: seq
            for seq, (message_id, received) in enumerate(self.seen)
            if received >= now_us - window_us // 2
        }
        ids = dict(list(ids.items())[-count:])
        receipts = await shop.batch([item_of(message_id, now_us) for message_id in ids])
        actual = [(receipt.message_id, receipt.seq, receipt.status) for receipt in receipts]
        expected = [(message_id, seq, "duplicate") for message_id, seq in ids.items()]
        wrong = [pair for pair in zip(actual, expected, strict=True) if pair[0] != pair[1]]
        assert not wrong, f"{len(wrong)} retries at {now_us} differ; (actual, expected) of the first: {wrong[0]}"

    async def settle(self):
        """Finish all maintenance: archive, compact, expire, collect garbage and prune the log."""
        self.now_us = max(self.now_us, self.seen[-1][1] if self.seen else 0) + 3 * 86_400 * US
        async with Shop("shop", root=self.root, clock=ManualClock(from_us(self.now_us)), **SETTINGS) as shop:
            for _ in range(2):  # the second run expires the snapshots that the first one made obsolete
                await shop.archive()
                await shop.compact()
                await shop.expire()
                await shop.collect_garbage()
            await shop.rollup()
