"""People in the answers of an object."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from lakebed import Analytics, InvalidMerge, ManualClock, Rollup
from lakebed.clock import from_us
from lakebed.query.running_query import RunningQuery

START = datetime(2026, 1, 15, 12, tzinfo=UTC)
BY_PERSON = "SELECT person_id, count(*) AS n FROM events WHERE person_id IS NOT NULL GROUP BY 1 ORDER BY 1"


class Shop(Analytics):
    buyers = Rollup("buyers", by=["plan"], measures={"people": "distinct(person_id)", "n": "count()"}, grain="day")


@pytest.fixture
def clock():
    return ManualClock(START)


@pytest.fixture
def make(tmp_path, clock):
    def make(**options):
        return Shop("shop", root=tmp_path, clock=clock, **{"headroom_bytes": 0, "segment_events": 10} | options)

    return make


@pytest.fixture
async def shop(make):
    async with make() as shop:
        yield shop
        assert await shop.check() == []


async def counted(shop, **options):
    return {row.person_id: row.n for row in await shop.query(BY_PERSON, **options)}


async def test_identify_links_anonymous_events(shop):
    """Events before and after it belong to the identified user, in SQL, dau, mau, series and rollups alike."""
    await shop.track("seen", {"plan": "pro"}, anonymous_id="a")
    await shop.track("seen", {"plan": "pro"}, user_id="ann")
    assert (await shop.dau(1))[0].dau == 2
    await shop.identify("ann", anonymous_id="a")
    await shop.track("seen", {"plan": "free"}, anonymous_id="a")
    assert await counted(shop) == {"ann": 4}
    assert ((await shop.dau(1))[0].dau, (await shop.wau(1))[0].wau, (await shop.mau(2))[1].mau) == (1, 1, 1)
    series = await shop.timeseries(start=START, end=START + timedelta(hours=1), measure="people")
    assert [row.value for row in series] == [1]
    assert [row.people for row in await shop.query("SELECT people FROM buyers WHERE plan = 'pro'")] == [1]
    assert [row.dau for row in await shop.query("SELECT dau FROM daily_metrics")] == [1]


async def test_a_second_user_on_a_shared_anonymous_id_stays_apart(shop):
    """The user with the earliest event time owns the anonymous events; the other owns those with their own id."""
    await shop.identify("bob", anonymous_id="kiosk", timestamp=START - timedelta(hours=1))
    await shop.identify("ann", anonymous_id="kiosk", timestamp=START - timedelta(hours=2))  # arrives later, is earlier
    await shop.track("seen", anonymous_id="kiosk")
    await shop.track("bought", anonymous_id="kiosk", user_id="bob")
    assert await counted(shop) == {"ann": 2, "bob": 2}
    effects = {(merge.into, merge.effect) for merge in await shop.merges("kiosk")}
    assert ("ann", "merged") in effects
    assert [merge.effect for merge in await shop.merges("bob")] == ["refused"]


async def test_alias_joins_two_users_and_names_the_person(shop):
    """The new id of an alias is the id of the person; a chain of them ends at the newest."""
    for user in ("v1", "v2", "v3"):
        await shop.track("seen", user_id=user)
    await shop.alias("v2", "v1")
    await shop.alias("v3", "v2")
    assert await counted(shop) == {"v3": 5}
    assert (await shop.dau(1))[0].dau == 1


async def test_as_of_has_the_people_of_that_moment(shop, clock):
    """As of an instant, people follow from the edges received by then, also after archiving and a restart."""
    await shop.track("seen", anonymous_id="a")
    await shop.track("seen", user_id="ann")
    clock.advance(60)
    before = from_us(clock.now_us())
    clock.advance(60)
    await shop.identify("ann", anonymous_id="a", timestamp=START - timedelta(days=1))
    clock.advance(60)
    linked = from_us(clock.now_us())
    clock.advance(60)
    merged = await shop.merge("ann", "eve", why="same card")
    clock.advance(60)
    merged_at = from_us(clock.now_us())
    clock.advance(60)
    await shop.unmerge(merged.id)
    for _ in range(2):
        assert await counted(shop, as_of=before) == {"a": 1, "ann": 1}
        assert await counted(shop, as_of=linked) == {"ann": 3}
        assert (await shop.dau(1, as_of=before))[0].dau == 2
        assert (await shop.person("a", as_of=before)).ids == ["a"]
        assert (await shop.person("a", as_of=linked)).person_id == "ann"
        assert (await shop.person("eve", as_of=merged_at)).ids == ["a", "ann", "eve"]
        assert await shop.person("eve", as_of=linked) is None
        assert await shop.person("eve") is None
        await shop.archive()
        await shop.compact()


async def test_a_person(shop):
    """A person has all ids, first and last seen, groups, and traits by event time with their history."""
    await shop.identify("ann", {"plan": "pro", "city": "Oslo"}, timestamp=START - timedelta(days=1), message_id="m2")
    await shop.identify("ann", {"plan": "free", "age": 30}, timestamp=START - timedelta(days=3), message_id="m1")
    await shop.identify("ann", {"plan": "max", "age": None}, timestamp=START - timedelta(days=3), message_id="m0")
    await shop.identify("ann", {}, anonymous_id="a")
    await shop.group("acme", user_id="ann")
    await shop.track("seen", anonymous_id="a", group_id="labs", timestamp=START - timedelta(days=9))
    ann = await shop.person("a")
    assert (ann.person_id, ann.ids, ann.user_ids, ann.anonymous_ids) == ("ann", ["a", "ann"], ["ann"], ["a"])
    assert (ann.first_seen, ann.events) == (START - timedelta(days=9), 6)
    assert ann.traits == {"plan": "pro", "city": "Oslo", "age": 30}
    assert [(entry.value, entry.message_id) for entry in ann.history["plan"]] == [
        ("max", "m0"),
        ("free", "m1"),
        ("pro", "m2"),
    ]
    assert ann.groups == ["acme", "labs"]
    assert await shop.person("ann") == ann
    (row,) = await shop.query("SELECT * FROM people")
    assert (row.ids, row.groups, row.events) == (ann.ids, ann.groups, ann.events)
    assert json.loads(row.traits) == ann.traits


async def test_traits_whose_json_has_a_key_twice(shop):
    """Such JSON is accepted, and does not break the table of people."""
    await shop.batch(b'{"type":"identify","userId":"ann","traits":{"a":1,"a":1,"/~":2}}')
    (row,) = await shop.query("SELECT traits FROM people")
    assert json.loads(row.traits) == {"a": 1, "/~": 2}
    assert (await shop.person("ann")).traits == {"a": 1, "/~": 2}


async def test_an_operator_merges_and_unmerges(shop):
    """A merge is listed with its reason, and undone without a rescan; it makes no person active."""
    await shop.track("seen", user_id="ann")
    await shop.track("seen", user_id="eve")
    done = await shop.merge("ann", "eve", why="same card")
    assert (done.kind, done.into, done.other, done.effect, done.why) == ("merge", "ann", "eve", "merged", "same card")
    assert (await shop.dau(1))[0].dau == 1
    assert await counted(shop) == {"ann": 2}
    with pytest.raises(InvalidMerge, match="one person already"):
        await shop.merge("eve", "ann")
    undone = await shop.unmerge(done.id, why="two sisters")
    assert (undone.kind, undone.why) == ("unmerge", "two sisters")
    assert (await shop.dau(1))[0].dau == 2
    assert {merge.id: merge.effect for merge in await shop.merges()}[done.id] == "undone"
    again = await shop.merge("eve", "ann")
    assert await counted(shop) == {"eve": 2}
    assert again.effect == "merged"
    for missing in ("merge:none", "nothing", "unmerge:" + undone.id.partition(":")[2]):
        with pytest.raises(InvalidMerge, match="no merge"):
            await shop.unmerge(missing)
    with pytest.raises(InvalidMerge):
        await shop.merge("", "ann")


async def test_unmerged_people_stay_separate(shop):
    """Clients repeat their identify and alias calls: after unmerge these no longer join the two."""
    await shop.identify("ann", anonymous_id="a")
    await shop.alias("ann", "eve")
    await shop.track("seen", user_id="eve")
    for merge in await shop.merges():
        await shop.unmerge(merge.id)
    await shop.identify("ann", anonymous_id="a")
    await shop.alias("ann", "eve")
    await shop.track("seen", anonymous_id="a")
    assert await counted(shop) == {"a": 1, "ann": 4, "eve": 1}


async def test_a_client_cannot_use_the_source_of_the_operator(shop):
    """An event with the reserved source is refused, alone and in a batch."""
    word = {"type": "alias", "source": "lakebed:operator", "userId": "x", "previousId": "y"}
    good = {"event": "e", "userId": "u"}
    assert [receipt.status for receipt in await shop.batch([good, word])] == ["stored", "rejected"]
    receipts = await shop.batch(b'[{"event":"e","userId":"u"},{"event":"e","userId":"u","source":"lakebed:operator"}]')
    assert [receipt.status for receipt in receipts] == ["stored", "rejected"]
    assert "reserved" in receipts[1].reason
    assert [receipt.status for receipt in await shop.batch([good], source="lakebed:operator")] == ["rejected"]
    assert await shop.merges() == []


async def test_placeholders_link_no_people(shop):
    """Values that programs send in place of an id do not join people."""
    for user in ("ann", "bob", "null", "-1"):
        await shop.identify(user, anonymous_id="0000-0000")
        await shop.alias(user, "anonymous")
    assert await shop.merges() == []


async def test_matching_is_off_by_default(make):
    """With the setting, emails and phones link anonymous visits, over all history; never two known users."""
    async with make() as shop:
        await shop.identify(None, {"email": " Ann@Example.com", "phone": "+1 (555) 010-0000"}, anonymous_id="news")
        await shop.identify("ann", {"email": "ann@example.com"})
        await shop.identify("bob", {"email": "ann@example.com"})
        await shop.identify(None, {"phone": "001 555 0100000"}, anonymous_id="call")
        await shop.track("seen", anonymous_id="ads", context={"traits": {"email": "ANN@example.com"}})
        assert len(await counted(shop)) == 5
        await shop.rollup()
    async with make(identity_email=True, identity_phone=True) as shop:
        assert await counted(shop) == {"ann": 4, "bob": 1}
        (refused,) = [merge for merge in await shop.merges() if merge.effect == "refused"]
        assert (refused.into, refused.kind, refused.other) == ("bob", "email", "ann@example.com")
        assert await shop.check() == []
    async with make(identity_email=True, identity_user_limit=2) as shop:
        assert await counted(shop) == {"ann": 4, "call": 1}
        (first,) = [merge for merge in await shop.merges("bob") if merge.into == "bob"]
        await shop.unmerge(first.id)
        assert await counted(shop) == {"ann": 3, "bob": 1, "call": 1}
        assert await shop.check() == []


async def test_devices_link_with_a_confidence(make):
    """A device id, or all signals of a browser, reaches the threshold; a shared device links no users."""
    browser = {"ip": "203.0.113.7", "userAgent": "UA", "locale": "en", "timezone": "UTC", "screen": {"width": 1}}
    phone = {"device": {"id": "ios_1", "type": "ios"}}
    async with make(identity_devices=True) as shop:
        await shop.track("seen", anonymous_id="w1", context=browser)
        await shop.track("seen", user_id="ann", context=browser)
        await shop.track("seen", anonymous_id="w2", context=browser | {"screen": None})
        for who in ({"user_id": "bob"}, {"user_id": "eve"}, {"anonymous_id": "p"}):
            await shop.track("seen", context=phone, **who)
        assert await counted(shop) == {"ann": 2, "w2": 1, "bob": 1, "eve": 1, "p": 1}
        assert {merge.confidence for merge in await shop.merges() if merge.effect == "merged"} == {0.9}
        assert await shop.check() == []
    async with make(identity_devices=True, identity_device_confidence=0.95) as shop:
        assert len(await counted(shop)) == 6


async def test_people_survive_a_restart_and_the_loss_of_storage(make, tmp_path, clock):
    """Closed and opened, or without its storage.db and most of its log, the people are the same."""
    async with make(retention_s=0.0, dedupe_window_s=1.0) as shop:
        for number in range(30):
            await shop.identify(f"u{number % 3}", anonymous_id=f"a{number}")
        await shop.merge("u0", "u1")
        expected = await counted(shop)
        await shop.archive()
        clock.advance(7200)
        await shop.track("late", user_id="u0")
        await shop.rollup()
        assert shop._components.pipeline.start_seq > 0
        assert (await shop.dau(1, end=START))[0].dau == 2
    for path in (tmp_path / "shop").glob("storage.db*"):
        path.unlink()
    for _ in range(2):
        async with make() as shop:
            assert (await shop.dau(1, end=START))[0].dau == 2
            assert await counted(shop) == expected | {"u0": expected["u0"] + 1}
            assert await shop.check() == []


@pytest.mark.parametrize("unsaved", [10, 1_000_000])
async def test_events_without_new_facts_are_read_once(make, monkeypatch, unsaved):
    """No event is read again after closing; after a crash at most `_UNSAVED` events are."""
    monkeypatch.setattr("lakebed.identity.identity._UNSAVED", unsaved)
    async with make() as shop:
        for _ in range(3):
            await shop.batch([{"event": "e", "userId": "u"} for _ in range(7)])
            assert await counted(shop) == {"u": shop.stats().stored}
        assert await shop._components.identity.checkpoint() == (21 if unsaved == 10 else 7)
    async with make() as shop:
        assert shop._components.identity.position == 21
        assert await shop.check() == []


async def test_the_log_waits_for_identity(make, clock):
    """A segment is deleted only when the durable checkpoint of the graph has passed it."""
    async with make(retention_s=0.0, dedupe_window_s=1.0) as shop:
        await shop.batch([{"event": "e", "userId": "u"} for _ in range(25)])
        await shop.archive()
        clock.advance(7200)
        await shop._components.rollups.catch_up(25)
        await shop._components.maintenance.save_totals()
        assert await shop._components.maintenance.prune() == 0
        assert (await shop.rollup()).pruned > 0
        assert await shop.check() == []


async def test_check_finds_people_that_do_not_follow_from_the_edges(make):
    """A row of storage.db that was changed is a problem."""
    async with make() as shop:
        await shop.identify("ann", anonymous_id="a")
        await shop.rollup()
        assert await shop.check() == []

        async def forge(tx):
            await tx.fetch("DELETE FROM identity_people")

        await shop._components.storage.transact(forge)
        assert [problem.where for problem in await shop.check()] == ["identity"]


@pytest.mark.parametrize(
    ("sql", "sees"),
    [
        ("SELECT count(*) FROM events", False),
        ("SELECT event, count(*) FROM events e WHERE e.timestamp > now() GROUP BY ALL", False),
        ("SELECT e.properties, lower(event) FROM events e JOIN events f USING (seq)", False),
        ("SELECT count(DISTINCT PERSON_ID) FROM events", True),
        ('SELECT e."person_id" FROM events e', True),
        ("FROM events", True),
        ("SELECT e FROM events e", True),
        ("SELECT events FROM events", True),
        ("SELECT #7 FROM events", True),
        ("SELECT COLUMNS('per.*') FROM events", True),
        ("SELECT g FROM events t(a, b, c, d, e, f, g)", True),
        ("SELECT 1 FROM events JOIN events f USING (person_id)", True),
        ("SELECT 1 FROM events NATURAL JOIN people", True),
        ("SUMMARIZE events", True),
        ("SELECT (e).event FROM events e", True),
        ("WITH x AS (FROM events) SELECT seq FROM x", True),
    ],
)
async def test_only_queries_that_can_see_person_id_pay_for_it(shop, sql, sees):
    """A query that may see the column reads the mapping; others join nothing."""
    await shop.identify("ann", anonymous_id="a")
    statement = await shop._components.queries._statement(RunningQuery(), sql)
    assert statement.mentions_person is sees
