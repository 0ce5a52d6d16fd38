"""RemoteNamespace: the stubs of this process, over a network."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from lakebed import (
    AccessDenied,
    Analytics,
    Backpressure,
    InvalidAsOf,
    InvalidBilling,
    InvalidEvent,
    InvalidName,
    InvalidSettings,
    ManualClock,
    Namespace,
    NotReachable,
    ObjectClosed,
    QueryRefused,
    Receipt,
    Result,
    Row,
    Stats,
    TierStatus,
    Unreachable,
)
from lakebed.api.auth import Auth
from lakebed.api.body import Body
from lakebed.api.errors import error_handlers
from lakebed.api.rpc.endpoint import RpcEndpoint
from lakebed.api.server import make_server
from lakebed.auth.keys import Keys
from lakebed.rpc.stub import trips
from tests.running_server import serving

pytestmark = pytest.mark.integration


@pytest.fixture
async def objects(tmp_path):
    async with Namespace(tmp_path / "objects", Analytics, headroom_bytes=0) as namespace:
        yield namespace
        assert namespace.check() == []


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def keys(objects, clock):
    return Keys(objects.root, clock)


@pytest.fixture
async def rpc(objects, clock):
    return RpcEndpoint(Auth(objects, clock), Body(1 << 20, 10), interval_s=0.02)


@pytest.fixture
async def host(rpc):
    app = Starlette(routes=rpc.routes(), exception_handlers=error_handlers)
    async with serving(make_server(app, port=0, log_level="warning")) as port:
        yield f"127.0.0.1:{port}"
        await rpc.close()
        assert not rpc.peers


@pytest.fixture(params=["http", "ws"])
async def remote(request, keys, host):
    _, token = keys.create("shop", "admin")
    async with Namespace.connect(f"{request.param}://{host}", key=token) as namespace:
        yield namespace
        assert namespace.check() == []


async def test_a_chain_is_one_trip(remote):
    """Tracking, and then a column of an element of an answer, each in one trip; receipts and rows are what they are."""
    shop = remote.Analytics("shop")
    receipt = await shop.track("Seen", {"a": [1, [2, []]]}, user_id="alice")
    assert isinstance(receipt, Receipt)
    assert (receipt.seq, receipt.status) == (0, "stored")
    before = trips(shop)
    assert await shop.dau(7)[6].dau == 1
    assert trips(shop) == before + 1
    rows = shop.dau(days=2)
    last, stats, top = await asyncio.gather(
        _value(rows[1]), _value(shop.stats()), _value(shop.counters.top("events:*", 1))
    )
    assert isinstance(last, Row)
    assert (last.dau, last["dau"], last.date) == (1, 1, datetime.now(UTC).date())
    assert isinstance(stats, Stats)
    assert stats.totals == {"Seen": 1}
    assert top == [("events:Seen", 1)]
    assert trips(shop) == before + 2


async def _value(promise):
    return await promise


async def test_a_result_is_a_result(remote, objects):
    """Rows, table, columns, tiers and seq come as the object gave them."""
    await remote.get("shop").batch([{"event": "Seen", "userId": f"u{n % 3}"} for n in range(10)])
    sql = "SELECT user_id, count(*) AS n, max(timestamp) AS last FROM events WHERE event = $event GROUP BY 1 ORDER BY 1"
    result = await remote.get("shop").query(sql, {"event": "Seen"}, limit=2)
    expected = await objects.get("shop").query(sql, {"event": "Seen"}, limit=2)
    assert isinstance(result, Result)
    assert result.rows == expected.rows
    assert result.arrow() == expected.arrow()
    assert (result.tiers, result.seq, result.watermark, result.columns) == (
        expected.tiers,
        expected.seq,
        expected.watermark,
        expected.columns,
    )


async def test_a_report_keeps_its_name(remote, objects):
    """The result of a report keeps its name over a network, too, and draws the same picture as at the object."""
    await remote.get("shop").batch([{"event": "Seen", "userId": f"u{n % 3}"} for n in range(10)])
    result = await remote.get("shop").top("event")
    expected = await objects.get("shop").top("event")
    assert (result.report, expected.report) == ("top", "top")
    assert result.plot().svg() == expected.plot().svg()
    assert (await remote.get("shop").query("SELECT 1 AS n")).report == ""


async def test_structs_are_made_again(remote, objects):
    """Whatever struct a verb gives, with structs in it: the same class, equal."""
    near, far = objects.get("shop"), remote.get("shop")
    await near.track("Seen", {"a": 1}, user_id="u", anonymous_id="a")
    await near.identify("u", {"plan": "pro"}, anonymous_id="a")
    await near.batch([{"event": ""}], keep_refused=True)
    await near.archive()
    verbs = {"person": ["u"], "dead_letter": [1]}
    for verb in ("person", "merges", "dead_letters", "dead_letter", "snapshots", "check", "stats", "rollup", "compact"):
        wanted = await getattr(near, verb)(*verbs.get(verb, []))
        assert await getattr(far, verb)(*verbs.get(verb, [])) == wanted, verb
    status = await far.tiers()
    assert (type(status), status.archive.watermark) == (TierStatus, 2)


async def test_billing_is_exact_from_afar(remote, objects):
    """Price books, invoices and quotas: the same verbs and structs as here, and every decimal to its last digit."""
    near, far = objects.get("shop"), remote.get("shop")
    await near.track_usage("acme", "calls", "12345678901234567890.000000001", "call", timestamp="2025-01-05")
    book = {"currency": "EUR", "prices": {"calls": {"model": "per_unit", "amount": "0.000000000001"}}}
    saved = await far.save_price_book("default", book)
    assert (saved.version, saved.body) == (1, book)
    assert await far.price_books() == await near.price_books()
    issued = await far.invoice("acme", "2025-01", issue=True)
    assert issued.lines[0].quantity == Decimal("12345678901234567890.000000001")
    await near.track_usage("acme", "calls", Decimal("1e12"), "call", timestamp="2025-01-06")
    assert (await far.invoice("acme", "2025-02")).adjustments[0].amount == 1
    assert await far.invoice("acme", "2025-01") == issued == (await near.invoices())[0]
    assert await far.invoices("acme") == [issued]
    quota = await far.save_quota("acme", "calls", Decimal("0.000000001"), thresholds=[0.5])
    assert (type(quota).__name__, quota.limit) == ("Quota", Decimal("1e-9"))
    assert await far.quotas("acme") == await near.quotas()
    assert await far.quota("acme", "calls") == (await near.quotas())[0]
    with pytest.raises(InvalidBilling, match="`limit` is 0"):
        await far.save_quota("acme", "calls", 0)


async def test_arguments_keep_their_types(remote, objects):
    """Microseconds, days, decimals, bytes, large integers and floats arrive as they were given."""
    shop = remote.get("shop")
    at = datetime(2026, 1, 15, 12, 0, 0, 123_457, UTC)
    await shop.track("Timed", {"price": Decimal("1.50"), "day": date(2026, 1, 2)}, timestamp=at)
    await shop.batch(b'{"event":"Bytes"}')
    assert await shop.counters.incr("big", 2**60, ttl=timedelta(days=1).total_seconds()) == 2**60
    assert await shop.counters.incr("float", 1.0) == 1.0
    assert type(await shop.counters.get("float")) is float
    rows = (await objects.get("shop").query("SELECT event, timestamp, properties FROM events ORDER BY seq")).rows
    assert [(row.event, row.properties) for row in rows] == [
        ("Timed", '{"price":"1.50","day":"2026-01-02"}'),
        ("Bytes", "{}"),
    ]
    assert rows[0].timestamp == at
    series = shop.timeseries("Timed", start=at - timedelta(hours=1), end=at + timedelta(hours=1), grain="hour")
    assert sum(row.value for row in await series) == 1


async def test_errors_come_back_as_their_classes(remote):
    """With facts and hint; calls that build on a failed one fail alike; what is not listed is not reachable."""
    shop = remote.get("shop")
    await shop.track("Seen")
    with pytest.raises(InvalidEvent, match="event") as caught:
        await shop.track("")
    assert caught.value.reason
    with pytest.raises(InvalidAsOf, match="future"):
        await shop.dau(1, as_of="2999-01-01T00:00:00Z")[0].dau
    with pytest.raises(NotReachable, match="'settings'"):
        await shop.settings
    with pytest.raises(QueryRefused):
        await shop.query("SELECT * FROM read_csv('/etc/passwd')")
    with pytest.raises(TypeError, match="days must be int"):
        await shop.dau("x")
    with pytest.raises(IndexError):
        await shop.dau(1)[5]
    with pytest.raises(TypeError, match="cannot be sent"):
        await shop.track("x", {"a": object()})
    assert await shop.dau(1)[0].events == 1


async def test_a_key_opens_one_object(host, keys, clock, remote):
    """Another name is AccessDenied and says so; so are a wrong key, none, and one without the scope."""
    scheme = remote.url.partition(":")[0]
    await remote.get("shop").track("Seen")
    assert (await remote.get().stats()).totals == {"Seen": 1}, "without a name it is the key's object"
    with pytest.raises(AccessDenied, match="does not open the object 'other'"):
        await remote.get("other").stats()
    with pytest.raises(InvalidName):
        remote.get("../x")
    _, reading = keys.create("shop", "read")
    clock.advance(5)  # the server looks for new keys now and then
    for key, message in ((None, "needs a key"), ("lk_nothing", "unknown"), (reading, "read key")):
        async with Namespace.connect(f"{scheme}://{host}", key=key) as namespace:
            with pytest.raises(AccessDenied, match=message):
                await namespace.get("shop").track("x")


async def test_a_revoked_key_is_out_at_its_next_call(host, keys, clock):
    """Also on a connection that is open."""
    key, token = keys.create("shop", "write")
    async with Namespace.connect(f"ws://{host}", key=token) as namespace:
        await namespace.get("shop").track("x")
        keys.revoke(key.id)
        clock.advance(5)
        with pytest.raises(AccessDenied, match="revoked"):
            await namespace.get("shop").track("x")


async def test_a_function_is_called_back(host, keys, rpc):
    """Over a WebSocket: all first, then what changed, until it is closed. A batch says that it cannot."""
    _, token = keys.create("shop", "admin")
    heard = asyncio.Queue()
    async with Namespace.connect(f"ws://{host}", key=token) as namespace:
        shop = namespace.get("shop")
        await shop.counters.incr("clicks", 2)
        watch = await shop.counters.watch("clicks*", heard.put_nowait)
        assert await heard.get() == {"clicks": 2}
        await shop.counters.incr("clicks")
        assert await heard.get() == {"clicks": 3}
        watch.close()
        await shop.stats()
        assert len(rpc.watches) == 0
    async with Namespace.connect(f"http://{host}", key=token) as namespace:
        with pytest.raises(Unreachable, match="WebSocket"):
            await namespace.get("shop").counters.watch("clicks*", heard.put_nowait)


@pytest.mark.parametrize("scheme", ["http", "ws"])
async def test_a_server_that_is_gone(scheme):
    """A call raises Unreachable, or reports it if it is not awaited; a closed namespace raises ObjectClosed."""
    errors = []
    namespace = Namespace.connect(f"{scheme}://127.0.0.1:9", on_error=errors.append)
    with pytest.raises(Unreachable):
        await namespace.get("shop").stats()
    namespace.get("shop").track("lost")
    await namespace.close()
    assert [type(error) for error in errors] == [Unreachable]
    with pytest.raises(ObjectClosed):
        await namespace.get("shop").stats()


@pytest.mark.parametrize(
    ("status", "kind"), [(401, AccessDenied), (403, AccessDenied), (429, Backpressure), (500, Unreachable)]
)
async def test_what_stands_before_the_server_may_refuse(status, kind):
    """A response that is not of RPC: every call of the trip raises it, with its status, code and message."""

    async def refuse(_request):
        return JSONResponse({"error": {"code": "FROM_A_PROXY", "message": "not now"}}, status)

    app = Starlette(routes=[Route("/rpc", refuse, methods=["POST"])])
    async with (
        serving(make_server(app, port=0, log_level="warning")) as port,
        Namespace.connect(f"http://127.0.0.1:{port}") as namespace,
    ):
        shop = namespace.get("shop")
        days = shop.dau(2)
        for error in await asyncio.gather(
            _value(days), _value(days[0].dau), _value(shop.stats()), return_exceptions=True
        ):
            assert (type(error), error.status, error.code) == (kind, status, "FROM_A_PROXY")
            assert "not now" in str(error)


async def test_a_connection_that_broke_is_opened_again(host, keys, rpc):
    """What was under way fails, the next call connects."""
    _, token = keys.create("shop", "admin")
    async with Namespace.connect(f"ws://{host}", key=token) as namespace:
        assert (await namespace.get("shop").track("a")).seq == 0
        for peer in list(rpc.peers):
            peer.abort(Unreachable("for a test"))
        with pytest.raises(Unreachable, match="for a test"):
            await namespace.get("shop").stats()
        assert (await namespace.get("shop").track("b")).seq == 1


@pytest.mark.parametrize(
    "url", ["host", "ftp://host", "https://", "https://u:p@host", "https://host/?key=1", "ws://h#x"]
)
def test_invalid_addresses(url):
    """A key in a URL would be in logs."""
    with pytest.raises(InvalidSettings):
        Namespace.connect(url)


_KEYS = st.sampled_from(["a", "b:1", "b:2"])
_WRITES = st.one_of(
    st.tuples(st.just("track"), st.sampled_from(["Seen", "Bought", ""]), st.integers(0, 30), st.integers(0, 3)),
    st.tuples(st.just("batch"), st.integers(0, 3)),
    st.tuples(st.just("incr"), _KEYS, st.integers(-3, 2**70) | st.floats(-5, 5)),
    st.tuples(st.just("delete"), _KEYS),
)
_BUILT = st.tuples(st.just("add"), _KEYS, _KEYS) | st.tuples(st.just("seen"), _KEYS)
_READS = st.one_of(
    st.tuples(
        st.just("dau"), st.integers(1, 4), st.integers(-5, 5), st.sampled_from(["date", "dau", "events", "nope"])
    ),
    st.tuples(st.just("rows"), st.sampled_from(["dau", "wau", "mau"]), st.integers(1, 3)),
    st.tuples(st.just("series"), st.sampled_from([None, "event", ["event", "type"]]), st.sampled_from(["hour", "day"])),
    st.tuples(st.just("totals")),
    st.tuples(st.just("counters"), st.sampled_from(["count", "keys", "get", "ttl"]), st.sampled_from(["*", "b*", "a"])),
    st.tuples(st.just("top"), st.sampled_from(["*", "b*"]), st.integers(-1, 3)),
)
_START = datetime(2026, 1, 15, 12, 30, tzinfo=UTC)


def _made(stub, step, number):  # noqa: C901, PLR0911 - one case a step
    """The promise of one step, built on promises where it can be."""
    match step:
        case ("track", event, identity, person):
            facts = {"person": person, "price": Decimal("1.50"), "at": _START}
            return stub.track(event, facts, user_id=f"u{person}", message_id=f"m{identity}", timestamp=_START)
        case ("batch", count):
            return stub.batch(
                [{"event": "Many", "messageId": f"b{number}-{n}"} for n in range(count)] + [{"event": ""}]
            )[count].status
        case ("incr", key, amount):
            return stub.counters.incr(key, amount, ttl=None)
        case ("add", key, other):
            return stub.counters.incr(key, stub.counters.get(other))
        case ("seen", key):
            return stub.track("Seen", {"count": [stub.counters.get(key)]}, message_id=f"s{number}", timestamp=_START)
        case ("delete", key):
            return stub.counters.delete(key)
        case ("dau", days, at, column):
            return stub.dau(days=days, end="2026-01-16")[at][column]
        case ("rows", verb, days):
            return getattr(stub, verb)(days, end=date(2026, 1, 15)).rows
        case ("series", by, grain):
            return stub.timeseries(
                start=_START - timedelta(hours=2), end=_START + timedelta(hours=2), grain=grain, by=by
            )
        case ("totals",):
            return stub.stats().totals
        case ("counters", verb, glob):
            return getattr(stub.counters, verb)(glob)
        case ("top", glob, count):
            return stub.counters.top(glob, count)


async def _outcomes(stub, steps, number):
    """The outcome of each step: its type and value, or the class of its error."""
    outcomes = []
    for outcome in await asyncio.gather(*(_value(_made(stub, step, number)) for step in steps), return_exceptions=True):
        value = outcome.rows if isinstance(outcome, Result) else outcome
        outcomes.append(type(value) if isinstance(value, BaseException) else (type(value), value))
    return outcomes


@pytest.mark.parametrize("scheme", ["http", "ws"])
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rounds=st.lists(st.lists(_WRITES, max_size=4) | st.lists(_READS, max_size=4) | st.tuples(_BUILT), max_size=5))
async def test_the_same_calls_give_the_same_over_the_network(scheme, host, keys, clock, objects, rounds):
    """Any batches of calls, pipelined, with errors among them: values, types and classes of errors are the same.

    A call that is built on another begins when that is answered, here at once and there a moment later; so it has a
    round of its own.
    """
    name = f"o{uuid.uuid4().hex}"
    near = objects.get(f"{name}-near")
    await objects.get(name).stats()  # it exists
    _, token = keys.create(name, "admin")
    clock.advance(5)
    async with Namespace.connect(f"{scheme}://{host}", key=token) as remote:
        for number, steps in enumerate(rounds):
            assert await _outcomes(remote.get(name), steps, number) == await _outcomes(near, steps, number), steps
    await objects.pool.sleep(name, f"{name}-near")
