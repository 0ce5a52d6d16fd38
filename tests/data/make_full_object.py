"""Writes `object-N.tar.gz` and `.json`: an object with state of every kind, and its answers to every reading verb.

`PYTHONPATH=<checkout> python tests/data/make_full_object.py` lets that checkout write it. The program uses public names
only, so that it runs on any version. `object-4` was written by commit 7497014, and is never written again: the test in
`tests/faults/test_upgrade.py` opens it with today's code.

Each question of the JSON file is a verb, its arguments and the recorded answer. At that commit the documents of the
operator (cohorts, price books, invoices, quotas, dataset mappings) counted as events in `events`, in rollups and in
reports. Where that changes an answer, `without_documents` has the rows over all other events. The same commit computed
them, with a WHERE around `events` or in the report. Merges are events of the operator too, but no documents.
"""

import asyncio
import json
import os
import sys
import tarfile
import tempfile
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from full_object import NAME, answer, opened, plain
from full_questions import NO_DOCUMENT, questions, without_documents

from lakebed import ManualClock

HERE = Path(__file__).parent
START = datetime(2026, 1, 20, 9, tzinfo=UTC)
BOOK = {
    "currency": "EUR",
    "prices": {
        "calls": {"model": "tiered", "free": "10", "tiers": [{"up_to": 100, "amount": "0.10"}, {"amount": "0.05"}]},
        "storage": {"model": "per_unit", "amount": "0.0231", "unit": "GB", "minimum": "1"},
        "mails": {"model": "package", "amount": "1.50", "per": "1000"},
        "support": {"model": "flat", "amount": "99"},
    },
}
COHORTS = {
    "buyers": {"did": "Bought", "at_least": 2},
    "pro buyers": {"all": [{"did": "Bought", "within": "30d"}, {"trait": "plan", "is": "pro"}]},
    "spenders": {"did": {"event": "Bought", "where": "revenue > 10"}, "measure": "sum(revenue)", "above": 20},
    "others": {"all": [{"not": {"cohort": "buyers"}}, {"not": {"people": ["ann", "v3"]}}]},
    "sequence": {"sequence": ["Seen", "Bought"], "within": "30d"},
}


async def visits(store, clock, first, last):
    """Days of visitors who look, buy, call an API and fail; the events of each day happened before it was over."""
    for day in range(first, last):
        for number in range(9):
            person = f"u{number % 4}" if number % 3 else None
            moment = START.replace(hour=7) + timedelta(days=day - 8, minutes=47 * number)
            identity = {"user_id": person, "anonymous_id": f"v{number % 5}", "session_id": f"s{day}.{number % 4}"}
            for step, event in enumerate(("Seen", "Bought") if (day + number) % 3 else ("Seen",)):
                await store.track(
                    event,
                    {
                        "plan": ("free", "pro", "Ünï 🎉")[number % 3],
                        "revenue": day * number / 4 if step else None,
                        "items": number,
                        "gift": number % 2 == 0,
                        "price": f"{day}.{number:02}",
                        "due": f"2026-03-{number + 1:02}T00:00:00Z",
                        "nested": {"list": [number, None, {"deep": True}]},
                    },
                    timestamp=moment + timedelta(minutes=step),
                    message_id=f"{event}-{day}-{number}",
                    context={"ip": "203.0.113.7", "locale": "de-DE"},
                    **identity,
                )
            await store.batch(
                [
                    {
                        "type": "track",
                        "event": "api.request",
                        "messageId": f"request-{day}-{number}",
                        "timestamp": (moment + timedelta(seconds=5)).isoformat(),
                        "userId": person,
                        "anonymousId": f"v{number % 5}",
                        "properties": {
                            "path": f"/{'abc'[number % 3]}",
                            "method": "GET" if number % 2 else "POST",
                            "status_code": 500 if (day + number) % 7 == 0 else 200,
                            "duration_ms": 3.5 * number * day + 1,
                            "organization_id": f"org{number % 2}",
                            "error": "timeout" if (day + number) % 7 == 0 else None,
                        },
                    }
                ],
                source="http",
            )
            clock.advance(3)
    await store.page("docs", "Start", {"plan": "free"}, anonymous_id="v1", message_id=f"page-{last}")
    await store.screen("Home", anonymous_id="v2", message_id=f"screen-{last}")


async def used(store, organization, sku, quantity, unit, day, number):
    await store.track_usage(
        organization, sku, quantity, unit, timestamp=f"{day}T12:00:00Z", message_id=f"used-{organization}-{number}"
    )


async def people(store, clock):
    """Identities that are linked by every kind of statement, and two that are parted again."""
    await store.identify("ann", {"plan": "pro", "email": "ann@example.org"}, anonymous_id="v3", message_id="identify-1")
    await store.identify("u1", {"plan": "pro", "name": "Ünï"}, anonymous_id="v1", message_id="identify-2")
    await store.identify(None, {"email": "ANN@example.org"}, anonymous_id="v9", message_id="identify-3")
    await store.track("Seen", {"plan": "free"}, anonymous_id="v9", message_id="seen-v9")
    await store.group("acme", {"seats": 5}, user_id="u2", message_id="group-1")
    await store.alias("u3", "old-u3", message_id="alias-1")
    clock.advance(60)
    await store.merge("u2", "v4", why="the same phone")
    clock.advance(60)
    wrong = await store.merge("u1", "u3", why="a mistake")
    clock.advance(60)
    await store.identify("u1", {"plan": "free"}, message_id="identify-4")
    await store.unmerge(wrong.id, why="they are two")


async def refused(store):
    """Dead letters: one waits, one is cut, one was replayed and one purged."""
    items = [
        {"type": "track", "messageId": "no-name"},
        {"type": "track", "event": "x" * 201, "messageId": "long-name"},
        {"type": "shout", "event": "Loud", "messageId": "no-type"},
        {"type": "track", "event": "Fine", "messageId": "fine", "anonymousId": "v0"},
        {"type": "track", "event": "Late", "messageId": "late", "timestamp": "never"},
    ]
    await store.batch(items, source="http", keep_refused=True, key="key1")
    await store.refuse(b"\xff not json", "cannot be read", source="http", key="key2")
    letters = {letter.message_id: letter.id for letter in await store.dead_letters()}
    await store.replay([letters["no-type"]], edit={"type": "track"})
    await store.replay([letters["no-name"]])  # is refused again
    await store.purge([letters["late"]])


def note(moments, name, clock):
    """Remember an instant between two events."""
    clock.advance(1)
    moments[name] = datetime.fromtimestamp(clock.now_us() / 1e6, UTC).isoformat()
    clock.advance(1)


async def fill(store, clock):
    """Store every kind of state, in the archive, in sealed segments and in the tail. Return instants by name."""
    moments = {}
    await january(store, clock, moments)
    await february(store, clock, moments)
    await tail(store, clock)
    note(moments, "last", clock)
    return moments


async def january(store, clock, moments):
    """All of it comes into the archive, in snapshots of which one is tagged, and is compacted."""
    await store.save_cohort("buyers", {"did": "Bought"})
    await store.save_price_book("default", BOOK)
    await visits(store, clock, 1, 4)
    await store.save_dataset(
        "requests", {"event": "api.request", "index1": "organization_id", "doubles": ["duration_ms"]}
    )
    note(moments, "first", clock)
    await store.archive()
    await store.tag("audit")
    clock.advance(2 * 86_400)
    await people(store, clock)
    for name, definition in COHORTS.items():
        await store.save_cohort(name, definition)
    await store.save_cohort("trial", {"did": "Seen"})
    for number, quantity in enumerate(("0.1", "0.2", Decimal(1500), "-3.000000001")):
        await used(store, "acme", "calls", quantity, "call", f"2026-01-{12 + number}", number)
    await used(store, "acme", "storage", "12.5", "GB", "2026-01-15", 10)
    await used(store, "globex", "mails", 2001, "mail", "2026-01-22", 11)
    await store.save_quota("acme", "calls", 2000, thresholds=(0.5, 0.75, 1.0))
    note(moments, "second", clock)
    await store.archive()
    await visits(store, clock, 4, 6)
    await store.delete_cohort("trial")
    await store.save_dataset("gone", {"event": "Seen"})
    await store.delete_dataset("gone")
    await store.save_dataset(
        "requests",
        {"event": "api.request", "index1": "organization_id", "blobs": ["method", "path"], "doubles": ["duration_ms"]},
    )
    await store.archive()
    await store.compact()


async def february(store, clock, moments):
    """Hourly, daily and Sunday's jobs run, January is billed, late usage arrives. All of it is sealed, not archived."""
    clock.advance((datetime(2026, 2, 1, 6, 30, tzinfo=UTC).timestamp() * 1e6 - clock.now_us()) / 1e6)
    await store.run_due()
    await store.invoice("acme", "2026-01", issue=True)
    await store.save_price_book(
        "default", BOOK | {"prices": BOOK["prices"] | {"seats": {"model": "flat", "amount": "7"}}}
    )
    await store.save_price_book("other", {"currency": "USD", "prices": {"calls": {"model": "per_unit", "amount": "1"}}})
    note(moments, "billed", clock)
    await used(store, "acme", "calls", "250", "call", "2026-01-20", 20)
    await used(store, "acme", "seats", "3", "seat", "2026-01-21", 21)
    await used(store, "acme", "calls", "700.5", "call", "2026-02-01", 22)
    await store.invoice("globex", "2026-01", issue=True)
    await store.write_data_point("points", indexes=["k"], blobs=["a", None, "ß"], doubles=[1.5, -2])
    await refused(store)
    await visits(store, clock, 10, 12)
    clock.advance(3600)
    await store.run_due()
    await store.rollup()
    note(moments, "sealed", clock)


async def tail(store, clock):
    """Events in the open segment; documents too, but over an hour ago, and not among the dozen newest events."""
    await store.save_cohort("latest", {"did": "Bought", "within": "14d"})
    await store.save_quota("globex", "mails", "3000")
    await visits(store, clock, 18, 19)
    clock.advance(2400)
    await visits(store, clock, 19, 20)
    clock.advance(1500)
    await store.run_due()  # so that no job is due when the object is opened again
    await visits(store, clock, 20, 21)
    await store.track("Seen", {"plan": "pro"}, user_id="u0", message_id="Seen-1-0")  # the id of an archived event


async def record(moments, now_us):
    """Ask everything of the object in the working directory."""
    clock = ManualClock(datetime.fromtimestamp(now_us / 1e6, UTC))
    recorded = []
    async with opened(clock) as store:
        templates = {template.name: template.sql for template in store.templates()}
        for question in questions(moments, templates):
            now = await answer(store, question["verb"], question["arguments"])
            entry = {"verb": question["verb"], "arguments": question["arguments"], "answer": now}
            rows = await without_documents(store, question, now)
            if rows is not None and rows != now["rows"]:
                entry["without_documents"] = rows
            recorded.append(entry)
        documents = await store.query(f"SELECT count(*), min(seq), max(seq) FROM events WHERE NOT ({NO_DOCUMENT})")
        merges = await store.query("SELECT count(*) FROM events WHERE source = 'lakebed:operator' AND type = 'alias'")
    return recorded, {"documents": plain(documents)["rows"][0][0], "merges": merges.scalar()}


async def make():
    clock = ManualClock(START)
    async with opened(clock) as store:
        moments = await fill(store, clock)
    return moments, clock.now_us()


def anonymous(entry):
    """An entry of the tar file, without what it says of this machine."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return None if entry.name == f"{NAME}/lock" else entry


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else f"object-{len(list(HERE.glob('object-*.json'))) + 1}"
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        moments, now_us = asyncio.run(make())
        with tarfile.open(HERE / f"{name}.tar.gz", "w:gz") as archive:
            archive.add(NAME, filter=anonymous)
        # A copy answers, so that the answers are those of an object that was opened, and the file has none of theirs.
        Path("copy").mkdir()
        os.chdir("copy")
        with tarfile.open(HERE / f"{name}.tar.gz") as archive:
            archive.extractall(".", filter="data")
        recorded, operator = asyncio.run(record(moments, now_us))
    made = {"object": NAME, "now_us": now_us, "moments": moments, "operator_events": operator, "questions": recorded}
    text = json.dumps(made, ensure_ascii=False, separators=(",", ":")).replace('{"verb":', '\n{"verb":')
    (HERE / f"{name}.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
