"""The live counters that tracking feeds: events by name (ever, last minute, last hour), and active people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa

from lakebed.clock import HOUR_S, MINUTE_S, SECOND_US
from lakebed.events.batch import EventBatch
from lakebed.events.documents import DocumentPositions, document_seqs, without_documents
from lakebed.tiers.counters.counters import Counters
from lakebed.tiers.pipeline.log_view import LogView
from lakebed.tiers.pipeline.sealing import read_sealed

__all__ = ["ALL_1H", "ALL_1M", "RECENT_S", "LiveCounters", "LoggedCounts", "count_log"]

ALL_1M = "all_events_1m"
ALL_1H = "all_events_1h"
RECENT_S = float(HOUR_S)  # the longest fixed window, which a restart counts from the log; `active_ttl_s` may be longer


class LiveCounters:
    """Feeds an object's `Counters` from its log. Lives on the loop's thread.

    `events:{name}` counts all events with this name ever stored; `events_1m:{name}` and `events_1h:{name}` count those
    received in the last minute and hour; `active:{person}` counts the events of a person in the last `active_ttl_s`. A
    person is `user_id`, else `anonymous_id`. Events without a name count only in the totals. Documents do not count.

    Args:
        documents: receives the positions of the documents in each commit.
    """

    def __init__(self, counters: Counters, active_ttl_s: float, documents: DocumentPositions | None = None) -> None:
        self.documents = DocumentPositions() if documents is None else documents
        self._counters = counters
        self._active_ttl_s = active_ttl_s
        self._totals: Counter[str] = Counter()

    def feed(self, events: EventBatch, _received_at: int) -> None:
        """Count the events of a commit."""
        if events.documents:
            self.documents.feed(events.documents)
        self.documents.end += len(events)
        names, people = _counts(events.names), _counts(events.people)
        self._totals.update(names)
        if total := len(events) - len(events.documents):
            self._count_recent(names, total, 0.0)
        self._counters.incr_each("events:", names, None)
        self._counters.incr_each("active:", people, self._active_ttl_s)

    def _count_recent(self, names: Mapping[str, int], total: int, age: float) -> None:
        for prefix, all_key, ttl in (("events_1m:", ALL_1M, MINUTE_S), ("events_1h:", ALL_1H, HOUR_S)):
            if age < ttl:
                self._counters.incr(all_key, total, ttl, age=age)
                self._counters.incr_each(prefix, names, ttl, age=age)

    def totals(self) -> dict[str, int]:
        """The number of events ever stored, by name. The caller stores it with the seq after the counted events."""
        return dict(self._totals)

    def restore(self, totals: Mapping[str, int], logged: LoggedCounts, now_us: int) -> None:
        """Set the counters from stored totals, and from the counts of the log after these totals."""
        self._totals = Counter(totals) + Counter(logged.names)
        self._counters.incr_each("events:", self._totals, None)
        for received, counts in logged.recent.items():
            names = {name: count for name, count in counts.items() if name is not None}
            self._count_recent(names, sum(counts.values()), max(0.0, (now_us - received) / SECOND_US))
        for received, people in logged.people.items():
            age = max(0.0, (now_us - received) / SECOND_US)
            self._counters.incr_each("active:", people, self._active_ttl_s, age=age)


def _counts(texts: Sequence[str | None]) -> dict[str, int]:
    counts = Counter(texts)
    counts.pop(None, None)
    return counts  # type: ignore[return-value]  # None is gone


class LoggedCounts(msgspec.Struct, frozen=True):
    """Counts of the events in a log.

    Attributes:
        names: the number of events by name, without events that have no name.
        recent: the number of events by second of `received_at` (in microseconds), then by name; None is no name.
        people: the number of events by second, then by person, without events that have no person.
        documents: the positions of documents from `totals_seq` on. No other count includes documents.
    """

    names: Mapping[str, int]
    recent: Mapping[int, Mapping[str | None, int]]
    people: Mapping[int, Mapping[str, int]]
    documents: Sequence[int] = ()


def count_log(view: LogView, totals_seq: int, since_us: int, active_since_us: int) -> LoggedCounts:
    """Count a log for `LiveCounters.restore`. Blocks.

    Names and documents are counted from `totals_seq` on, without events that were pruned from the log. The windows from
    `since_us` and `active_since_us` on are complete, because `Maintenance.prune` keeps the events of these windows.
    """
    if view.start_seq == view.end_seq:
        return LoggedCounts({}, {}, {})
    import pyarrow.compute as pc  # a quarter of what pyarrow costs; most imports never need it

    columns = ["seq", "event", "user_id", "anonymous_id", "received_at", "source", "type"]
    oldest_us = min(since_us, active_since_us)
    files: list[Path] = [f.path for f in view.files if f.end_seq > totals_seq or f.last_received >= oldest_us]
    sealed = [read_sealed(path, columns) for path in files]
    table = pa.concat_tables([*sealed, view.tail.select(columns)])
    documents = document_seqs(table)
    table = without_documents(table)
    received = table["received_at"].cast(pa.int64())

    def since(us: int) -> int:
        """The position of the first row received at `us` or later: a log is in order of `received_at`."""
        return pc.sum(pc.less(received, us)).as_py() or 0

    counted = table["event"].slice(pc.sum(pc.less(table["seq"], totals_seq)).as_py() or 0)
    recent, active = since(since_us), since(active_since_us)
    newest = [seq for seq in documents if seq >= totals_seq]
    names = {row["values"]: row["counts"] for row in pc.value_counts(counted).to_pylist() if row["values"] is not None}
    events = _by_second(received.slice(recent), table["event"].slice(recent))
    people = pc.coalesce(table["user_id"].slice(active), table["anonymous_id"].slice(active))
    return LoggedCounts(names, events, _without_none(_by_second(received.slice(active), people)), newest)


def _by_second(received: pa.ChunkedArray, texts: pa.ChunkedArray) -> dict[int, dict[str | None, int]]:
    """The number of occurrences of each text, by second.

    Texts are first encoded as numbers, in one pass, and then integers are counted. Arrow's group_by on second and text
    took four times as long.
    """
    import pyarrow.compute as pc  # a quarter of what pyarrow costs; most imports never need it

    encoded = texts.dictionary_encode().combine_chunks()
    values = [*encoded.dictionary.to_pylist(), None]
    seconds = pc.multiply(pc.divide(received.combine_chunks(), SECOND_US), len(values))
    by_second: dict[int, dict[str | None, int]] = {}
    counts = pc.value_counts(pc.add(seconds, encoded.indices.cast(pa.int64()).fill_null(len(values) - 1)))
    for key, count in zip(counts.field(0).to_pylist(), counts.field(1).to_pylist(), strict=True):
        second, value = divmod(key, len(values))
        by_second.setdefault(second * SECOND_US, {})[values[value]] = count
    return dict(sorted(by_second.items()))


def _without_none(by_second: dict[int, dict[str | None, int]]) -> dict[int, dict[str, int]]:
    for counts in by_second.values():
        counts.pop(None, None)
    return by_second  # type: ignore[return-value]  # None is gone
