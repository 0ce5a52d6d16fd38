"""The catalogue of verbs: which methods of an object can be called from outside, by whom, and with which arguments.

HTTP reports, RPC, the command line, MCP and OpenAPI read this table. A verb that is not in the table cannot be called
over a network, and a network caller can set only the arguments in a verb's row: a new argument must be added here
before network callers can set it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

__all__ = ["REPORT_VERBS", "VERBS", "Cost", "Scope", "Verb"]

Scope = Literal["read", "write", "admin"]
"""What a key must allow. An admin key allows everything."""

Cost = Literal["memory", "append", "lookup", "scan", "store", "maintenance"]
"""What a call costs the server:

- memory: nothing is read from disk
- append: a write to the log; counts against the key's event rate
- lookup: a few rows of the object's storage
- scan: events or rollups of any range are read, within the query limits (memory, seconds, rows)
- store: a document or a decision is written
- maintenance: files of a tier are rewritten or checked, for as long as it takes
"""


class Verb(msgspec.Struct, frozen=True, kw_only=True):
    """One verb: a method of `Analytics`, or of its `counters` if the name begins with `counters.`.

    Attributes:
        name: the method's name.
        scope: the scope that an API key needs to call the verb.
        cost: the kind of work that a call makes.
        arguments: names of the arguments that a network caller may set; no other can be set.
        untrusted: the method that runs instead when the arguments come over a network: SQL in them runs in the sandbox.
        forced: arguments that are always set in network calls, with their values.
        is_report: whether the verb is a report of product analytics: it returns a table; `report_untrusted` runs it.
    """

    name: str
    scope: Scope
    cost: Cost
    arguments: tuple[str, ...] = ()
    untrusted: str = ""
    forced: Mapping[str, Any] = {}
    is_report: bool = False


def _verb(scope: Scope, cost: Cost, name: str, arguments: str = "", **more: Any) -> Verb:
    return Verb(name=name, scope=scope, cost=cost, arguments=tuple(arguments.split()), **more)


def _report(name: str, arguments: str) -> Verb:
    return _verb("read", "scan", name, arguments, untrusted="report_untrusted", is_report=True)


def _by_name(verbs: Iterable[Verb]) -> Mapping[str, Verb]:
    return {verb.name: verb for verb in verbs}


# Arguments that many verbs share.
_CONTEXT = "anonymous_id session_id timestamp message_id context"
_DAYS = "days start end as_of max_staleness"
_RANGE = "start end where cohort"
_CALENDAR = "start end where cohort tz week_start as_of"
_FUNNEL = "start end order exclude holding allow_equal where cohort as_of"

VERBS = _by_name(
    (
        # Events
        _verb("write", "append", "track", f"event properties user_id group_id {_CONTEXT}"),
        _verb("write", "append", "page", f"category name properties user_id group_id {_CONTEXT}"),
        _verb("write", "append", "screen", f"category name properties user_id group_id {_CONTEXT}"),
        _verb("write", "append", "identify", f"user_id traits group_id {_CONTEXT}"),
        _verb("write", "append", "group", f"group_id traits user_id {_CONTEXT}"),
        _verb("write", "append", "alias", f"user_id previous_id group_id {_CONTEXT}"),
        _verb("write", "append", "batch", "items"),
        _verb("write", "append", "flush"),
        _verb("write", "memory", "counters.incr", "key amount ttl"),
        # Live state
        _verb("read", "memory", "stats"),
        _verb("read", "memory", "pulse"),
        _verb("read", "lookup", "tiers"),
        # Metrics and SQL
        _verb("read", "scan", "dau", _DAYS),
        _verb("read", "scan", "wau", _DAYS),
        _verb("read", "scan", "mau", _DAYS),
        # Without `where`: the SQL of `timeseries` runs in the server's process, where it can read files.
        _verb("read", "scan", "timeseries", "event start end grain by measure as_of"),
        _verb("read", "scan", "query", "sql params as_of limit timeout", untrusted="query_untrusted"),
        _verb("read", "scan", "template", "name params"),
        _verb("read", "memory", "templates"),
        # Reports
        _report("funnel", f"steps within by top totals compare {_FUNNEL}"),
        _report("funnel_people", f"steps within step outcome limit after {_FUNNEL}"),
        _report("funnel_times", f"steps within from_step to_step bins {_FUNNEL}"),
        _report("retention", f"start_event return_event grain periods mode by top {_CALENDAR}"),
        _report("lifecycle", f"event grain by top {_CALENDAR}"),
        _report("stickiness", f"event grain interval {_CALENDAR}"),
        _report("sessions", f"timeout use grain by top engaged_after conversion {_CALENDAR}"),
        _report("session_list", f"timeout use by value limit before engaged_after conversion {_RANGE} as_of"),
        _report("segmentation", f"events measure by top formula grain compare {_CALENDAR}"),
        _report("top", f"what n people other event {_RANGE} as_of"),
        _report("paths", f"after before by steps top collapse timeout {_RANGE} as_of"),
        _report("timeline", "person limit before start end where as_of"),
        _report("anomalies", f"event measure grain seasonality history sensitivity {_RANGE} tz as_of"),
        _report("performance", f"grain by event path threshold_ms errors_from compare {_CALENDAR}"),
        _report("errors", f"by limit event errors_from {_RANGE} as_of"),
        _report("cohort_people", "cohort limit after as_of"),
        _report("cohort_size", "cohort as_of"),
        _report("usage", "organization_id sku grain start end where tz week_start as_of"),
        # Saved documents, people, dead letters, counters: reading
        _verb("read", "lookup", "cohorts"),
        _verb("read", "lookup", "dataset", "name"),
        _verb("read", "lookup", "datasets"),
        _verb("read", "lookup", "cohort", "name"),
        _verb("read", "lookup", "price_books"),
        _verb("read", "lookup", "invoices", "organization_id"),
        _verb("read", "lookup", "quotas", "organization_id"),
        _verb("read", "lookup", "quota", "organization_id sku"),
        _verb("read", "memory", "counters.get", "key"),
        _verb("read", "memory", "counters.count", "glob"),
        _verb("read", "memory", "counters.keys", "glob"),
        _verb("read", "memory", "counters.top", "glob n"),
        _verb("read", "memory", "counters.ttl", "key"),
        _verb("read", "lookup", "person", "id as_of"),
        _verb("read", "lookup", "merges", "id limit"),
        _verb("read", "lookup", "dead_letters", "limit before reason"),
        _verb("read", "lookup", "dead_letter", "id"),
        # The same: writing
        _verb("admin", "store", "save_cohort", "name definition", forced={"untrusted": True}),
        _verb("admin", "store", "delete_cohort", "name"),
        _verb("admin", "store", "save_dataset", "name mapping"),
        _verb("admin", "store", "save_price_book", "name document"),
        _verb("admin", "scan", "invoice", "organization_id period price_book version tz as_of issue"),
        _verb("admin", "store", "save_quota", "organization_id sku limit period tz thresholds"),
        _verb("admin", "store", "delete_dataset", "name"),
        _verb("admin", "store", "merge", "a b why"),
        _verb("admin", "store", "unmerge", "merge_id why"),
        _verb("admin", "append", "replay", "ids edit"),
        _verb("admin", "store", "purge", "ids before"),
        _verb("admin", "memory", "counters.delete", "key"),
        # Maintenance
        _verb("admin", "maintenance", "rollup"),
        _verb("admin", "maintenance", "archive", "older_than"),
        _verb("admin", "maintenance", "compact"),
        _verb("admin", "maintenance", "expire", "dry_run"),
        _verb("admin", "maintenance", "collect_garbage", "dry_run"),
        _verb("admin", "lookup", "snapshots"),
        _verb("admin", "store", "tag", "name snapshot_id"),
        _verb("admin", "store", "untag", "name"),
        _verb("admin", "maintenance", "check"),
    )
)
"""The verbs by name, in the order in which the faces list them."""

REPORT_VERBS: Mapping[str, Verb] = {name: verb for name, verb in VERBS.items() if verb.is_report}
"""The reports among them."""
