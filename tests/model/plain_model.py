"""The plain model: the answers that an object must give, computed from a list."""

from collections import Counter, defaultdict
from datetime import date, timedelta

import msgspec

from lakebed.clock import from_us

US = 1_000_000
DAY_US = 86_400 * US


class Row(msgspec.Struct):
    """One stored event. `revenue` and `plan` are JSON values, None where the property is absent."""

    seq: int
    message_id: str
    event: str
    person: str | None
    timestamp: int | None  # None until it is known when the event was received
    received_at: int = -1
    revenue: object = None
    plan: str | None = None

    @property
    def amount(self):
        """The value of the promoted column: a finite number, or None."""
        return float(self.revenue) if isinstance(self.revenue, (int, float)) else None

    @property
    def day(self):
        return from_us(self.timestamp).date()


class Ledger:
    """Every acknowledged event in order of seq, and the answers that follow from them."""

    def __init__(self, window_s):
        self.rows = []
        self.latest = {}  # message id -> its newest row
        self._window_us = round(window_s * US)

    def add(self, row):
        assert row.seq == len(self.rows), "seqs are dense, in the order of the receipts"
        self.rows.append(row)
        self.latest[row.message_id] = row

    def repeats(self, message_id, received_at):
        """The row that an event with this message id, received at `received_at`, repeats; or None."""
        row = self.latest.get(message_id)
        return row if row is not None and row.received_at >= received_at - self._window_us else None

    def until(self, as_of_us):
        """The first seq received after an instant."""
        return sum(row.received_at <= as_of_us for row in self.rows)

    # Answers, over the rows before `end`

    def by_event(self, end=None):
        """(event, count, sum of revenue) of every event name."""
        groups = defaultdict(list)
        for row in self.rows[:end]:
            groups[row.event].append(row.amount)
        return [(event, len(amounts), _sum(amounts)) for event, amounts in sorted(groups.items())]

    def actives(self, days, width, end=None):
        """(date, people, events) of the `width` days that end with each of `days`."""
        people, events = defaultdict(set), Counter()
        for row in self.rows[:end]:
            events[row.day] += 1
            if row.person is not None:
                people[row.day].add(row.person)
        windows = [[day - timedelta(days=back) for back in range(width)] for day in days]
        return [
            (last, len(set().union(*(people[day] for day in window))), sum(events[day] for day in window))
            for last, window in zip(days, windows, strict=True)
        ]

    def series(self, start_us, end_us, *, event=None, people=False, grain_us=3600 * US, end=None):
        """(bucket, value) of every bucket in a range that starts with a bucket."""
        buckets = {bucket: [] for bucket in range(start_us, end_us, grain_us)}
        for row in self.rows[:end]:
            if start_us <= row.timestamp < end_us and event in (None, row.event):
                buckets[row.timestamp - row.timestamp % grain_us].append(row.person)
        return [
            (bucket, len(set(persons) - {None}) if people else len(persons))
            for bucket, persons in sorted(buckets.items())
        ]

    def revenue(self):
        """The user's rollup: (date, plan, total, orders, buyers) for every day and plan of the orders."""
        groups = defaultdict(list)
        for row in self.rows:
            if row.event == "order":
                groups[row.day, row.plan].append(row)
        return sorted(
            (
                (day, plan, _sum(row.amount for row in rows), len(rows), len({row.person for row in rows} - {None}))
                for (day, plan), rows in groups.items()
            ),
            key=rollup_order,
        )

    def totals(self):
        """Events ever stored, by name."""
        return dict(Counter(row.event for row in self.rows))


def rollup_order(row):
    return row[0], row[1] is not None, row[1] or ""


def days_until(last, count):
    """`count` dates that end with `last`."""
    assert isinstance(last, date)
    return [last - timedelta(days=back) for back in range(count - 1, -1, -1)]


def _sum(values):
    """The sum as in SQL: None without values. Amounts are quarters, so the order of addition does not matter."""
    numbers = [value for value in values if value is not None]
    return sum(numbers) if numbers else None
