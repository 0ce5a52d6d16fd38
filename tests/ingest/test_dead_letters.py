"""Dead letters: storing rejected items, correcting and replaying them, and the counts."""

from __future__ import annotations

import asyncio
import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakebed import Analytics, InvalidEvent, LogUnavailable, ManualClock, StorageUnavailable, UnknownLetter
from lakebed.events.decoding import Rejected, decode_dead_letter, decode_items, items_as_sent
from lakebed.tiers.storage.dead_letters import MAX_PER_REQUEST, MAX_RAW_BYTES
from tests.disks import FaultyDisk, GatedDisk, reach

START = datetime(2026, 1, 15, 12, tzinfo=UTC)
NAMELESS = b'{"event":"","userId":"ann","properties":{"x": 1.50}}'


@pytest.fixture
def clock():
    return ManualClock(START)


@pytest.fixture
def make(tmp_path, clock):
    def made(**options):
        return Analytics("shop", root=tmp_path, clock=clock, headroom_bytes=0, **options)

    return made


@pytest.fixture
async def shop(make):
    async with make() as opened:
        yield opened
        assert await opened.check() == []


async def events(shop):
    rows = await shop.query("SELECT message_id, event, timestamp, properties, context FROM events ORDER BY seq")
    return [tuple(row) for row in rows]


def books(shop):
    stats = shop.stats()
    assert stats.received == stats.stored + stats.duplicate + stats.rejected
    return stats.stored, stats.duplicate, stats.rejected, stats.dead_letters


# Keeping


async def test_rejected_items_are_stored(shop):
    """A dead letter has the bytes as sent, reason, source, key and time; the good events are stored all the same."""
    body = b'[{"event":"a"},  ' + NAMELESS + b', {"event":7,"messageId":"m1"}]'
    receipts = await shop.batch(body, source="http", keep_refused=True, key="k1")
    assert [receipt.status for receipt in receipts] == ["stored", "rejected", "rejected"]
    wrong_type, nameless = await shop.dead_letters()
    assert (nameless.raw, nameless.reason) == (NAMELESS, "event name is empty")
    assert (nameless.source, nameless.key, nameless.message_id) == ("http", "k1", None)
    assert (nameless.received_at, nameless.tries, nameless.tried_at) == (START, 0, None)
    assert (wrong_type.raw, wrong_type.message_id) == (b'{"event":7,"messageId":"m1"}', "m1")
    assert wrong_type.reason == receipts[2].reason
    assert await shop.dead_letter(nameless.id) == nameless
    assert books(shop) == (1, 0, 2, 2)


async def test_nothing_is_stored_without_keep_refused(shop):
    """A Python caller has the receipts; a body that is not JSON raises immediately."""
    await shop.batch([{"event": ""}])
    with pytest.raises(InvalidEvent):
        shop.batch(b"[{")
    assert await shop.dead_letters() == []
    assert books(shop) == (0, 0, 1, 0)


async def test_a_body_that_is_not_json_is_stored_whole(shop):
    """One item received and rejected; the caller still gets the error, after it is stored."""
    with pytest.raises(InvalidEvent, match="truncated"):
        await shop.batch(b'[{"event":"a"}, {"ev', keep_refused=True)
    (letter,) = await shop.dead_letters()
    assert (letter.raw, letter.shared, letter.is_cut) == (b'[{"event":"a"}, {"ev', b"", False)
    assert books(shop) == (0, 0, 1, 1)


async def test_refuse_stores_a_dead_letter(shop):
    """A body that could not even be passed to `batch` can be stored with `refuse`."""
    receipts = await shop.refuse(b"\xff\x00", "no gzip", source="http", key="k")
    assert [(receipt.status, receipt.reason) for receipt in receipts] == [("rejected", "no gzip")]
    (letter,) = await shop.dead_letters()
    assert (letter.raw, letter.reason, letter.source, letter.key) == (b"\xff\x00", "no gzip", "http", "k")
    assert books(shop) == (0, 0, 1, 1)


@pytest.mark.parametrize(
    ("item", "raw"),
    [
        ({"event": ""}, b'{"event":""}'),
        (7, b"7"),
        ({"event": "a", "properties": {1: {2, 3}}}, None),
        ({"event": "\ud800"}, None),
    ],
)
async def test_python_values_are_stored_as_json(shop, item, raw):
    """As near to what was handed in as JSON or Python's own text of it can come."""
    await shop.batch([{"event": "ok"}, item], keep_refused=True, key=["k0", "k1"])
    letters = await shop.dead_letters()
    assert [letter.key for letter in letters] == ["k1"] * len(letters)
    assert [letter.raw for letter in letters] == ([raw] if raw is not None else [letter.raw for letter in letters])
    assert books(shop)[3] == len(letters)


async def test_a_client_that_retries(shop):
    """The same text with the same message id is one dead letter; without a message id each is another event."""
    for _ in range(3):
        await shop.batch(b'[{"event":"","messageId":"m1"},{"event":""}]', keep_refused=True)
    assert [letter.message_id for letter in await shop.dead_letters()] == [None, None, None, "m1"]
    await shop.batch(b'[{"event":"","messageId":"m1","x":1}]', keep_refused=True)
    assert len(await shop.dead_letters()) == 5
    assert books(shop) == (0, 0, 7, 5)


async def test_a_long_dead_letter_is_cut(shop):
    """At a documented size, larger than any event that can be corrected; its original size is still known."""
    raw = b"x" * (MAX_RAW_BYTES + 1)
    await shop.refuse(raw, "no JSON")
    (letter,) = await shop.dead_letters()
    assert (letter.raw, letter.size, letter.is_cut) == (raw[:-1], len(raw), True)
    (outcome,) = await shop.replay()
    assert (outcome.status, outcome.reason) == (
        "rejected",
        f"only the first {MAX_RAW_BYTES} of {len(raw)} bytes are stored: replay it with its complete text",
    )
    assert [outcome.status for outcome in await shop.replay([letter.id], '{"event":"whole"}')] == ["stored"]


async def test_dead_letters_come_in_pages(shop):
    """Newest first, in pages, filtered by the text of the reason."""
    for number in range(5):
        await shop.batch([{"event": ""}, {"event": "x" * (201 + number)}], keep_refused=True)
    first = await shop.dead_letters(limit=3)
    rest = await shop.dead_letters(before=first[-1].id)
    assert [letter.id for letter in first + rest] == list(range(10, 0, -1))
    assert [letter.id for letter in await shop.dead_letters(reason="203 characters")] == [6]
    for limit in (0, 1001):
        with pytest.raises(ValueError, match="from 1 to 1000"):
            await shop.dead_letters(limit=limit)
    with pytest.raises(UnknownLetter):
        await shop.dead_letter(11)


# Bounds


async def test_the_oldest_are_dropped(make):
    """There are never more than the settings allow; dropped ones are counted, and check() reports them."""
    async with make(dead_letters_max=3) as shop:
        for number in range(5):
            await shop.refuse(b"%d" % number, "bad")
        assert [letter.raw for letter in await shop.dead_letters()] == [b"4", b"3", b"2"]
        assert (shop.stats().dead_letters, shop.stats().dead_letters_dropped) == (3, 2)
        (problem,) = await shop.check()
        assert (problem.where, problem.message.partition(",")[0]) == ("dead letters", "2 dead letters were dropped")
    async with make(dead_letters_max=3, dead_letters_max_bytes=5) as shop:
        assert await shop.check() == []
        assert shop.stats().dead_letters_dropped == 2
        await shop.refuse(b"1234", "bad")
        assert [letter.raw for letter in await shop.dead_letters()] == [b"1234", b"4"]


async def test_concurrent_rejections_are_counted_once(make):
    """Many that are kept at the same time: what each of them drops is counted once."""
    async with make(dead_letters_max=3) as shop:
        await asyncio.gather(*(shop.refuse(b"%d" % number, "bad") for number in range(20)))
        assert (shop.stats().dead_letters, shop.stats().dead_letters_dropped) == (3, 17)
        (problem,) = await shop.check()
        assert problem.message.startswith("17 dead letters were dropped")


async def test_one_request_does_not_displace_the_others(shop):
    """Of one request so many are kept; the rest is counted as dropped, and all are rejected."""
    body = b'{"event":1}\n' * (MAX_PER_REQUEST + 7)
    receipts = await shop.batch(body, keep_refused=True)
    assert len(receipts) == MAX_PER_REQUEST + 7
    assert (shop.stats().dead_letters, shop.stats().dead_letters_dropped) == (MAX_PER_REQUEST, 7)
    assert len(await shop.check()) == 1
    shop._components.dead_letters._store.dropped = 0


async def test_a_request_keeps_a_limited_number_of_bytes(make):
    """So that one client with many invalid events does not displace those of all others."""
    async with make(dead_letters_max_bytes=4_000) as shop:
        await shop.batch([{"event": "", "userId": "x" * 200}] * 10, keep_refused=True)
        assert (shop.stats().dead_letters, shop.stats().dead_letters_dropped) == (4, 6)
        assert books(shop) == (0, 0, 10, 4)


@pytest.mark.parametrize("context", ['{"a":"%s"}' % ("x" * 40_000), '{"a":"\xff"}', "[]"])
async def test_a_shared_context_that_rejects_all(shop, context):
    """Shared fields of a batch that are too large are not stored with each of its events."""
    body = b'{"batch":[{"event":"a"},{"event":"b"}],"context":' + context.encode("latin-1") + b"}"
    receipts = await shop.batch(body, keep_refused=True)
    assert [receipt.status for receipt in receipts] == ["rejected", "rejected"]
    letters = await shop.dead_letters()
    assert sum(len(letter.raw) + len(letter.shared) for letter in letters) < len(body) + 100
    assert books(shop) == (0, 0, 2, 1 if len(context) > 32_768 else 2)
    if len(letters) == 1:
        assert [outcome.status for outcome in await shop.replay(edit={"context": None})] == ["stored"]
        assert len(await events(shop)) == 2


# Replaying


async def test_correct_and_replay(shop, clock):
    """A change is merged into the event; the dead letter is deleted; the event's time is that of its first receipt."""
    await shop.batch(b"[" + NAMELESS + b"]", keep_refused=True)
    clock.advance(3600)
    (outcome,) = await shop.replay(edit={"event": "Signed Up", "userId": None, "properties": {"y": 2}})
    (letter_id,) = {outcome.id}
    assert (outcome.status, outcome.seq, outcome.reason) == ("stored", 0, None)
    assert await events(shop) == [(outcome.message_id, "Signed Up", START, '{"x":1.5,"y":2}', "{}")]
    with pytest.raises(UnknownLetter):
        await shop.dead_letter(letter_id)
    assert books(shop) == (1, 0, 1, 0)


async def test_a_text_replaces_one(shop):
    """A text replaces the named dead letter, also one with a whole body of several events."""
    await shop.refuse(b"[{", "no JSON")
    await shop.batch([{"event": ""}], keep_refused=True)
    second, first = await shop.dead_letters()
    for ids in (None, [first.id, second.id], []):
        with pytest.raises(ValueError, match="one text cannot replace"):
            await shop.replay(ids, '{"event":"a"}')
    (outcome,) = await shop.replay([first.id], b'{"batch":[{"event":"a","messageId":"m"},{"event":"b"}]}')
    assert (outcome.status, outcome.message_id, outcome.seq) == ("stored", "m", 0)
    assert [outcome.status for outcome in await shop.replay([second.id], '{"event":"c"}')] == ["stored"]
    assert [event[:2] for event in await events(shop)] == [
        ("m", "a"),
        (f"{first.replay_id}-1", "b"),
        (second.replay_id, "c"),
    ]


async def test_a_dead_letter_rejected_again_stays(shop, clock):
    """It keeps its bytes, and gets the new reason, its tries and the time; of a body of several none is stored."""
    await shop.batch([{"event": ""}], keep_refused=True)
    await shop.refuse(b"[{", "no JSON")
    (before,) = await shop.dead_letters(reason="empty")
    clock.advance(5)
    outcomes = await shop.replay(edit={"event": "x" * 300})
    assert [outcome.status for outcome in outcomes] == ["rejected", "rejected"]
    assert [outcome.status for outcome in await shop.replay([2], '[{"event":"a"},{"event":""}]')] == ["rejected"]
    after = await shop.dead_letter(before.id)
    assert (after.raw, after.tries, after.tried_at) == (before.raw, 1, START + timedelta(seconds=5))
    assert after.reason == "event name has 300 characters, the limit is 200"
    assert (await shop.dead_letter(2)).tries == 2
    assert await events(shop) == []
    assert books(shop) == (0, 0, 5, 2)


async def test_a_replay_keeps_the_message_id(shop):
    """So a client that corrects its event itself, before or after, does not store it twice."""
    await shop.batch([{"event": "", "messageId": "m1"}, {"event": "", "messageId": "m2"}], keep_refused=True)
    await shop.track("fixed", message_id="m1")
    outcomes = await shop.replay(edit={"event": "fixed"})
    assert [(outcome.status, outcome.message_id, outcome.seq) for outcome in outcomes] == [
        ("duplicate", "m1", 0),
        ("stored", "m2", 1),
    ]
    assert (await shop.track("fixed", message_id="m2")).status == "duplicate"
    assert books(shop) == (2, 2, 2, 0)


async def test_a_replay_uses_times_and_context_of_the_batch(shop, clock):
    """`sentAt` corrects times by when the batch was received, not by when it is replayed; its context is merged."""
    sent = (START - timedelta(seconds=30)).isoformat()
    item = {"event": "", "timestamp": "2026-01-15T10:00:00Z", "context": {"own": 1}}
    body = json.dumps({"batch": [item, {"event": "ok"}], "sentAt": sent, "context": {"shared": 1}}).encode()
    await shop.batch(body, keep_refused=True)
    clock.advance(86400)
    await shop.replay(edit={"event": "fixed"})
    stored = await events(shop)
    assert stored[1][1:] == (
        "fixed",
        datetime(2026, 1, 15, 10, 0, 30, tzinfo=UTC),
        "{}",
        '{"shared":1,"own":1}',
    )


async def test_missing_ids(shop):
    """Missing ids have the status missing; an id given twice is replayed once."""
    await shop.batch([{"event": ""}], keep_refused=True)
    outcomes = await shop.replay([9, 1, 1], {"event": "a"})
    assert [(outcome.id, outcome.status) for outcome in outcomes] == [(9, "missing"), (1, "stored")]
    assert len(await events(shop)) == 1


@pytest.mark.parametrize("edit", [{"event": {1, 2}}, {"event": "\ud800"}, {"properties": float("nan")}])
async def test_a_change_that_is_not_json(shop, edit):
    """It is rejected as an event would be, and the dead letter stays."""
    await shop.batch([{"event": ""}], keep_refused=True)
    assert [outcome.status for outcome in await shop.replay(edit=edit)] == ["rejected"]
    assert len(await shop.dead_letters()) == 1


async def test_concurrent_replays_and_purges_store_each_event_once(shop):
    """Two replays of the same dead letters, and a purge, run one after another: each event is stored once."""
    await shop.batch([{"event": "", "userId": str(number)} for number in range(250)], keep_refused=True)
    first, second, _ = await asyncio.gather(
        shop.replay(edit={"event": "a"}), shop.replay(edit={"event": "b"}), shop.purge(before="2030-01-01")
    )
    assert [outcome.status for outcome in first] == ["stored"] * 250
    assert second == []
    assert {event[1] for event in await events(shop)} == {"a"}
    assert len(await events(shop)) == 250


async def test_purge_by_id_or_by_time(shop, clock):
    """By id or by time, permanently; ids are not reused."""
    for number in range(4):
        await shop.refuse(b"%d" % number, "bad")
        clock.advance(10)
    assert await shop.purge([4, 77]) == 1
    assert await shop.purge(before=START + timedelta(seconds=10)) == 1
    assert [letter.id for letter in await shop.dead_letters()] == [3, 2]
    for wrong in ({}, {"ids": [1], "before": START}):
        with pytest.raises(ValueError, match="exactly one of `ids` and `before`"):
            await shop.purge(**wrong)
    with pytest.raises(ValueError, match="no time zone"):
        await shop.purge(before=datetime(2026, 1, 16))  # noqa: DTZ001 - naive: no zone is guessed
    assert await shop.purge(before="2026-01-16") == 2
    await shop.refuse(b"", "bad")
    assert [letter.id for letter in await shop.dead_letters()] == [5]
    assert books(shop)[3] == 1


# Faults


async def test_nothing_is_stored_when_the_log_fails(make):
    """Where the log fails the caller sends all of it again: then the bad ones are kept, once."""
    disk = FaultyDisk()
    async with make(disk=disk) as shop:
        disk.fail("sync", times=99)
        body = b'[{"event":"a","messageId":"m1"},{"event":""}]'
        with pytest.raises(LogUnavailable):
            await shop.batch(body, keep_refused=True)
        assert await shop.dead_letters() == []
        disk.heal()
        await shop.batch(body, keep_refused=True)
        assert len(await shop.dead_letters()) == 1
        assert books(shop)[3] == 1
        assert await shop.check() == []


async def test_a_rejection_that_cannot_be_stored_is_an_error(make):
    """No rejection is reported before its dead letter is stored; a retry stores it."""
    async with make() as shop:
        await shop._components.storage.transact(
            lambda tx: tx.fetch("CREATE TRIGGER t BEFORE INSERT ON dead_letters BEGIN SELECT raise(ABORT, 'full'); END")
        )
        body = b'[{"event":"a","messageId":"m1"},{"event":""}]'
        with pytest.raises(StorageUnavailable):
            await shop.batch(body, keep_refused=True)
        await shop._components.storage.transact(lambda tx: tx.fetch("DROP TRIGGER t"))
        assert [receipt.status for receipt in await shop.batch(body, keep_refused=True)] == ["duplicate", "rejected"]
        assert len(await shop.dead_letters()) == 1
        assert await shop.check() == []


async def test_a_replay_while_the_log_fails_loses_nothing(make):
    """The replay raises, nothing is lost, and the next replay stores each event once."""
    disk = FaultyDisk()
    async with make(disk=disk) as shop:
        await shop.batch([{"event": ""}, {"event": ""}], keep_refused=True)
        disk.fail("sync", times=99)
        with pytest.raises(LogUnavailable):
            await shop.replay(edit={"event": "a"})
        assert len(await shop.dead_letters()) == 2
        disk.heal()
        assert [outcome.status for outcome in await shop.replay(edit={"event": "a"})] == ["stored"] * 2
        assert len(await events(shop)) == 2
        books(shop)
        assert await shop.check() == []


async def test_an_unfinished_replay_is_completed_by_the_next(make, clock):
    """Its events are in the log and its dead letters still there: the next one deletes them, also a day later."""
    async with make(dedupe_window_s=60.0, segment_events=5) as shop:
        await shop.batch([{"event": ""}, {"event": ""}], keep_refused=True)
        trigger = "CREATE TRIGGER t BEFORE DELETE ON dead_letters BEGIN SELECT raise(ABORT, 'full'); END"
        await shop._components.storage.transact(lambda tx: tx.fetch(trigger))
        with pytest.raises(StorageUnavailable):
            await shop.replay(edit={"event": "a"})
        assert (len(await events(shop)), len(await shop.dead_letters())) == (2, 2)
        await shop._components.storage.transact(lambda tx: tx.fetch("DROP TRIGGER t"))
        await shop.batch([{"event": "other"}] * 20)
        clock.advance(86_400)
        assert await shop.replay(edit={"event": "a"}) == []
        assert len(await events(shop)) == 22
        assert await shop.dead_letters() == []
        assert await shop.check() == []


async def test_a_cancelled_replay_is_finished_before_the_cancellation(make):
    """A cancelled caller gets the cancellation when the current dead letters are finished."""
    disk = GatedDisk()
    async with make(disk=disk, dedupe_window_s=60.0) as shop:
        await shop.batch([{"event": ""}], keep_refused=True)
        disk.gate.clear()
        disk.reached.clear()
        replaying = asyncio.ensure_future(shop.replay(edit={"event": "a"}))
        await reach(disk)
        replaying.cancel()
        await asyncio.sleep(0)
        disk.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await replaying
        assert await shop.dead_letters() == []
        assert len(await events(shop)) == 1
        assert await shop.check() == []


async def test_closing_finishes_storing(make):
    """A rejection that was not awaited is stored before the object is closed."""
    async with make() as shop:
        ack = shop.batch([{"event": ""}], keep_refused=True)
    assert [receipt.status for receipt in await ack] == ["rejected"]
    async with make() as shop:
        assert len(await shop.dead_letters()) == 1


async def test_wrong_counts_are_reported(make):
    """check() counts the dead letters itself."""
    async with make() as shop:
        await shop.refuse(b"x", "bad")
        await shop._components.storage.transact(lambda tx: tx.fetch("DELETE FROM dead_letters"))
        assert [problem.where for problem in await shop.check()] == ["dead letters"]


# What was sent


_ITEM = st.sampled_from(
    [
        b'{"event":"a"}',
        b'{"event":""}',
        b'{"event":"a","properties":{"batch":[1,{}],"s":"]},{"}}',
        b"7",
        b'"x"',
        b"null",
        b'{"event":NaN}',
        b'{"event":"\xff"}',
        b'{"event":"a" "b"}',
        b'{"event":"a","properties":[1e999]}',
        b'{"event":"a","properties":{"n":1e999}}',
    ]
)


@given(
    items=st.lists(_ITEM, min_size=1, max_size=6),
    form=st.sampled_from(["array", "envelope", "said", "lines"]),
    space=st.sampled_from([b"", b" ", b"\n "]),
)
def test_raw_items_correspond_to_decoded_items(items, form, space):
    """For any invalid items, the texts correspond one to one to the items of `decode_items`."""
    listed = b"[" + (space + b"," + space).join(items) + space + b"]"
    if form == "lines":
        items = [item for item in items if item[:1] == b"{"] * 2
        body = b"\n".join(items)
    elif form == "array":
        body = listed
    else:
        fields = b',"sentAt":"2026-01-01T00:00:00Z","context":{"a":[1]}' if form == "said" else b""
        body = b'{"batch":' + listed + fields + b"}"
    try:
        decoded = decode_items(body, 0)
    except InvalidEvent:
        return
    sent, shared = items_as_sent(body)
    assert sent == items
    assert len(decoded) == len(sent)
    assert json.loads(shared) == ({"sentAt": "2026-01-01T00:00:00Z", "context": {"a": [1]}} if form == "said" else {})
    for result, raw in zip(decoded, sent, strict=True):
        assert isinstance(result, Rejected) == isinstance(decode_dead_letter(raw, b"{}", 0)[0], Rejected)


# A plain model


class Model:
    """Dead letters in a dict, events in a list, nothing else."""

    MOST = 5

    def __init__(self):
        self.letters = {}  # id -> [raw, message_id, tries]
        self.events = []  # message ids, None where Lakebed gave one
        self.given = self.dropped = self.rejected = self.duplicate = 0

    def store(self, message_id):
        if message_id is not None and message_id in self.events:
            self.duplicate += 1
        else:
            self.events.append(message_id)

    def keep(self, refused):
        self.rejected += len(refused)
        for raw, message_id in refused:
            if message_id is None or [raw, message_id] not in [letter[:2] for letter in self.letters.values()]:
                self.given += 1
                self.letters[self.given] = [raw, message_id, 0]
        while len(self.letters) > self.MOST:
            del self.letters[min(self.letters)]
            self.dropped += 1

    def replay(self, ids, mends):
        for letter_id in sorted(self.letters) if ids is None else ids:
            if letter_id not in self.letters:
                continue
            raw, message_id, _ = self.letters[letter_id]
            if mends and raw[:1] == b"{":
                del self.letters[letter_id]
                self.store(message_id)
            else:
                self.letters[letter_id][2] += 1
                self.rejected += 1


_IDS = st.sampled_from([None, "m1", "m2"])
_DO = st.one_of(
    st.tuples(st.just("batch"), st.lists(st.tuples(st.booleans(), _IDS), min_size=1, max_size=4)),
    st.tuples(st.just("junk"), st.sampled_from([b"[{", b"\xff"])),
    st.tuples(st.just("replay"), st.none() | st.lists(st.integers(1, 12), max_size=3, unique=True), st.booleans()),
    st.tuples(st.just("purge"), st.lists(st.integers(1, 12), max_size=2, unique=True)),
    st.tuples(st.just("reopen")),
)


def _item(good, message_id):
    return {"event": "ok" if good else "", **({"messageId": message_id} if message_id else {})}


async def _do(shop, model, action):
    match action:
        case ("batch", items):
            texts = [json.dumps(_item(*item), separators=(",", ":")).encode() for item in items]
            await shop.batch(b"[" + b",".join(texts) + b"]", keep_refused=True)
            for good, message_id in items:
                if good:
                    model.store(message_id)
            model.keep([(raw, item[1]) for raw, item in zip(texts, items, strict=True) if not item[0]])
        case ("junk", body):
            with pytest.raises(InvalidEvent):
                await shop.batch(body, keep_refused=True)
            model.keep([(body, None)])
        case ("replay", ids, mends):
            await shop.replay(ids, {"event": "ok"} if mends else None)
            model.replay(ids, mends)
        case ("purge", ids):
            assert await shop.purge(ids) == len(model.letters.keys() & set(ids))
            for letter_id in ids:
                model.letters.pop(letter_id, None)


async def _compare(shop, model, since):
    letters = {letter.id: [letter.raw, letter.message_id, letter.tries] for letter in await shop.dead_letters()}
    assert letters == model.letters
    stored = [event[0] for event in await events(shop)]
    assert [message_id if message_id in ("m1", "m2") else None for message_id in stored] == model.events
    stats = shop.stats()
    counts = (len(model.events), model.duplicate, model.rejected)
    assert (stats.stored, stats.duplicate, stats.rejected) == tuple(
        now - then for now, then in zip(counts, since, strict=True)
    )
    books(shop)
    assert (stats.dead_letters, stats.dead_letters_dropped) == (len(model.letters), model.dropped)
    assert [problem for problem in await shop.check() if "were dropped" not in problem.message] == []


@settings(max_examples=15)
@given(st.lists(_DO, max_size=8))
def test_dead_letters_match_a_dict(tmp_path_factory, actions):
    """After any sequence of rejections, replays, purges and reopenings, dead letters, events and counts agree."""

    async def run(root):
        model, since, clock = Model(), (0, 0, 0), ManualClock(START)
        options = {"root": root, "clock": clock, "headroom_bytes": 0, "dead_letters_max": Model.MOST}
        shop = await Analytics("shop", **options).open()
        for action in actions:
            if action[0] == "reopen":
                await shop.close()
                shop = await Analytics("shop", **options).open()
                since = (len(model.events), model.duplicate, model.rejected)
            await _do(shop, model, action)
        try:
            await _compare(shop, model, since)
        finally:
            await shop.close()

    root = tmp_path_factory.mktemp("letters")
    asyncio.run(run(root))
    shutil.rmtree(root)
