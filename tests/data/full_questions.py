"""The questions of `make_full_object.py`, and their answers without the operator's documents."""

import re
from datetime import date, timedelta

from full_object import answer, plain

NO_DOCUMENT = "NOT (source IS NOT DISTINCT FROM 'lakebed:operator' AND type = 'track')"
OTHERS = f"(SELECT * FROM events WHERE {NO_DOCUMENT}) AS events"
PERIOD = {"start": "2026-01-10", "end": "2026-02-03"}
EVENTS = """
SELECT seq, message_id, type, event, user_id, anonymous_id, group_id, session_id, person_id, timestamp, received_at,
    source, properties, context, quantity, unit, sku, organization_id, duration_ms, status_code, path, method,
    revenue, plan, items, gift, price, due
FROM {events} ORDER BY seq
"""
EVENTS_THEN = "SELECT seq, event, person_id, revenue FROM {events} ORDER BY seq"
COHORT_NAMES = ("buyers", "pro buyers", "spenders", "others", "sequence", "latest")


def by_sql(sql, without=None, verb="query", **arguments):
    """A question in SQL over `{events}`; `without` is the SQL that leaves documents out of a table of a rollup."""
    question = {"verb": verb, "arguments": {"sql": sql.format(events="events"), **arguments}}
    if without is not None or "{events}" in sql:
        other = sql.format(events=OTHERS) if without is None else without
        question["without"] = {"verb": verb, "arguments": {"sql": other, **arguments}}
    return question


def by_report(verb, **arguments):
    """A question of a report; those that count events without a person take `where`."""
    question = {"verb": verb, "arguments": arguments}
    if verb not in {"cohort_people", "cohort_size"}:
        where = f"({arguments['where']}) AND {NO_DOCUMENT}" if "where" in arguments else NO_DOCUMENT
        question["without"] = {"verb": verb, "arguments": arguments | {"where": where}}
    return question


def simply(verb, **arguments):
    """A question whose answer documents do not change."""
    return {"verb": verb, "arguments": arguments}


SALES = f"""
SELECT CAST(timezone('Europe/Berlin', timestamp) AS DATE) AS date, plan, count(*) AS n, sum(revenue) AS total,
    count(DISTINCT person_id) AS people, quantile_cont(revenue, 0.5) AS p
FROM {OTHERS} GROUP BY ALL ORDER BY ALL
"""
HOURLY = (
    f"SELECT date_trunc('hour', timestamp) AS hour, event, count(*) AS count FROM {OTHERS} GROUP BY ALL ORDER BY ALL"
)
DAILY = f"""
SELECT CAST(timestamp AS DATE) AS date, count(*) AS events, count(DISTINCT person_id) AS dau
FROM {OTHERS} GROUP BY ALL ORDER BY ALL
"""
REPORTS = [
    by_report("funnel", steps=["Seen", {"event": "Bought", "where": "revenue > 1"}], within="1d", by="plan", **PERIOD),
    by_report("funnel", steps=["Seen", "Bought"], totals=True, compare=True, **PERIOD),
    by_report("funnel", steps=["Seen", "Bought"], exclude=["api.request"], cohort="buyers", **PERIOD),
    by_report("funnel_people", steps=["Seen", "Bought"], within="1d", outcome="converted", **PERIOD),
    by_report("funnel_times", steps=["Seen", "Bought"], within="1d", bins=5, **PERIOD),
    by_report("retention", start_event="Seen", return_event="Bought", grain="day", periods=5, **PERIOD),
    by_report("retention", grain="week", periods=3, mode="recurring", by="plan", **PERIOD),
    by_report("lifecycle", grain="day", **PERIOD),
    by_report("stickiness", event="Bought", **PERIOD),
    by_report("sessions", timeout="2h", conversion="Bought", **PERIOD),
    by_report("sessions", use="session_id", grain=None, by="exit", **PERIOD),
    by_report("session_list", timeout="2h", by="exit", value="Bought", limit=12, **PERIOD),
    by_report("segmentation", **PERIOD),
    by_report("segmentation", by="plan", measure="people", tz="Europe/Berlin", **PERIOD),
    by_report("segmentation", events=["Seen", "Bought"], formula="B / A * 100", grain="week", compare=True, **PERIOD),
    by_report("segmentation", measure="sum(revenue)", by="plan", grain=None, cohort="pro buyers", **PERIOD),
    by_report("top", **PERIOD),
    by_report("top", what="plan", n=2, other=True, **PERIOD),
    by_report("paths", after="Seen", steps=3, timeout="3h", **PERIOD),
    by_report("timeline", person="u1", limit=20),
    by_report("anomalies", grain="day", seasonality="day", history=3, **PERIOD),
    by_report("performance", grain="day", by="path", threshold_ms=100, **PERIOD),
    by_report("errors", by=["status_code", "error"], **PERIOD),
    *(by_report("cohort_size", cohort=name) for name in COHORT_NAMES),
    by_report("cohort_people", cohort="others", limit=5),
    by_report("usage", grain="day", **PERIOD),
    by_report("usage", organization_id="acme", tz="Europe/Berlin"),
]


def questions(moments, templates):
    """All of them, in the order in which they are asked."""
    listed = [
        by_sql(EVENTS),
        by_sql("SELECT * FROM events LIMIT 0"),
        by_sql("SELECT count(*) AS n FROM {events}"),
        by_sql("SELECT source, type, count(*) AS n FROM {events} GROUP BY ALL ORDER BY ALL"),
        by_sql("SELECT person_id, first_seen, last_seen, events FROM people ORDER BY ALL"),
        by_sql("SELECT hour, event, count FROM hourly_events ORDER BY ALL", HOURLY),
        by_sql("SELECT date, events, dau FROM daily_metrics ORDER BY ALL", DAILY),
        by_sql("SELECT date, plan, n, total, people, p FROM sales ORDER BY ALL", SALES),
        by_sql("SELECT hour, path, status_code, n, mean, most, least FROM busy ORDER BY ALL"),
        by_sql(EVENTS_THEN, snapshot="audit"),
        by_sql("SELECT event, count(*) AS n FROM {events} GROUP BY ALL ORDER BY ALL", verb="query_untrusted"),
        by_sql(
            "SELECT person_id, sum(revenue) AS total FROM {events} WHERE plan = $plan GROUP BY ALL ORDER BY ALL",
            verb="query_untrusted",
            params={"plan": "pro"},
            as_of=moments["billed"],
        ),
        *({"verb": verb, "arguments": {"start": "2026-01-10", "end": "2026-02-02"}} for verb in ("dau", "wau", "mau")),
        {"verb": "dau", "arguments": {"days": 4}},
        by_report("timeseries", start="2026-01-10", end="2026-02-03", grain="day"),
        by_report(
            "timeseries", event="Bought", start="2026-01-10", end="2026-02-03", by="plan", measure="sum(revenue)"
        ),
        by_report("timeseries", start="2026-02-01T00:00:00Z", end="2026-02-03T00:00:00Z", measure="people"),
        *REPORTS,
    ]
    for moment in moments.values():
        listed += [
            by_sql(EVENTS_THEN, as_of=moment),
            by_sql("SELECT person_id, count(*) AS n FROM {events} GROUP BY ALL ORDER BY ALL", as_of=moment),
            {"verb": "dau", "arguments": {"start": "2026-01-10", "end": "2026-02-02", "as_of": moment}},
            by_report("segmentation", grain=None, by="plan", as_of=moment, **PERIOD),
            by_report("usage", as_of=moment),
            *(simply("person", id=name, as_of=moment) for name in ("u1", "u3", "v4", "ann")),
            simply("analytics_engine", sql="SHOW TABLES", as_of=moment),
            simply(
                "analytics_engine",
                sql="SELECT index1, sum(_sample_interval) AS n, avg(double1) AS mean "
                "FROM requests GROUP BY index1 ORDER BY index1",
                as_of=moment,
            ),
        ]
    for moment in (moments["billed"], moments["sealed"], moments["last"]):
        listed += [
            by_report("funnel", steps=["Seen", "Bought"], cohort="spenders", as_of=moment, **PERIOD),
            by_report("cohort_size", cohort="buyers", as_of=moment),
            simply("invoice", organization_id="acme", period="2026-02", as_of=moment),
            simply("invoice", organization_id="acme", period="2026-01", as_of=moment),
        ]
    listed += [by_report("cohort_size", cohort=name, as_of=moments["second"]) for name in ("trial", "buyers")]
    required = {"conversion": {"first": "Seen", "second": "Bought"}, "usage-by-day": {"organization": "acme"}}
    for name, sql in sorted(templates.items()):
        params = required.get(name, {"person": "u1"} if name == "user-timeline" else {})
        listed.append(simply("template", name=name, params=params, as_of=moments["last"]) | {"template": sql})
    listed += [
        *(simply("person", id=name) for name in ("u0", "u1", "u2", "u3", "ann", "v4", "v9", "old-u3", "nobody")),
        simply("merges"),
        simply("merges", id="u1"),
        simply("cohorts"),
        simply("cohort", name="buyers"),
        simply("price_books"),
        simply("invoices"),
        simply("invoices", organization_id="globex"),
        simply("invoice", organization_id="acme", period="2026-01"),
        simply("invoice", organization_id="acme", period="2026-02"),
        simply(
            "invoice", organization_id="acme", period="2026-02", price_book="default", version=2, as_of=moments["last"]
        ),
        simply("quotas"),
        simply("quota", organization_id="acme", sku="calls"),
        simply("datasets"),
        simply("dataset", name="requests"),
        simply(
            "analytics_engine", sql="SELECT blob1, blob2, double1 FROM requests ORDER BY timestamp, double1 LIMIT 9"
        ),
        simply("analytics_engine", sql="SELECT index1, blob1, blob2, blob3, double1, double2 FROM points"),
        simply("definitions.history", kind="price book", name="default"),
        simply("definitions.history", kind="cohort", name="trial"),
        simply("dead_letters"),
        simply("dead_letters", reason="name"),
        simply("snapshots"),
        simply("expire", dry_run=True),
        simply("collect_garbage", dry_run=True),
        simply("run_due"),
        simply("templates"),
        simply("stats"),
        simply("pulse"),
        simply("log_problems"),
        simply("check"),
        simply("tiers"),
        simply("vitals"),
    ]
    return listed


async def active_without_documents(store, recorded, days, arguments):
    """The rows of `dau`, `wau` and `mau` with their events counted anew."""
    sql = f"SELECT CAST(timestamp AS DATE) AS date, count(*) AS n FROM {OTHERS} GROUP BY ALL"
    rows = await store.query(sql, as_of=arguments.get("as_of"))
    counts = {row.date: row.n for row in rows}
    corrected = []
    for text, active, _ in recorded["rows"]:
        last = date.fromisoformat(text)
        corrected.append([text, active, sum(counts.get(last - timedelta(days=ago), 0) for ago in range(days))])
    return corrected


async def without_documents(store, question, recorded):
    """The rows that the same question has over all events but documents; None where it is the same."""
    verb, arguments = question["verb"], question["arguments"]
    if verb in {"dau", "wau", "mau"}:
        return await active_without_documents(store, recorded, {"dau": 1, "wau": 7, "mau": 30}[verb], arguments)
    if "template" in question:
        sql = re.sub(r"\b(FROM|JOIN) events\b", lambda match: f"{match[1]} {OTHERS}", question["template"])
        template = next(other for other in store.templates() if other.name == arguments["name"])
        params = template.bind(arguments["params"])
        return plain(await store.query_untrusted(sql, params, as_of=arguments["as_of"]))["rows"]
    if "without" in question:
        return (await answer(store, **question["without"]))["rows"]
    return None
