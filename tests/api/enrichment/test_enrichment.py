"""Fields that are added to the context of events from browsers and phones; all other events are unchanged."""

from __future__ import annotations

import json
import time

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from lakebed import Analytics
from lakebed.api import create_app
from lakebed.api.enrichment.enrichment import Enrichment, TrustedProxies, parse_user_agent
from lakebed.errors import InvalidSettings
from tests.api.enrichment import mmdb

IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.1 Mobile/15E148 Safari/604.1"
)
VIENNA = {
    "city": {"names": {"en": "Vienna", "de": "Wien"}},
    "subdivisions": [{"names": {"en": "Vienna Province"}}],
    "country": {"iso_code": "AT"},
    "location": {"latitude": 48.2, "longitude": 16.37},
}
PLACE = {"city": "Vienna", "region": "Vienna Province", "country": "AT", "latitude": 48.2, "longitude": 16.37}
BROWSER = {"library": {"name": "analytics.js", "version": "next-1.84.3"}}
SERVER = {"library": {"name": "analytics-python", "version": "2.4.0"}}


class Shop:
    """An app over one object, with the contexts that it stored."""

    def __init__(self, tom, client="203.0.113.77", **options) -> None:
        self.tom = tom
        app = create_app(tom, enrichment=Enrichment(**options))
        transport = httpx.ASGITransport(app=app, client=(client, 1) if client else None)
        self.http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")

    async def contexts(self, path, body, **headers):
        """Send a body; return the stored contexts of its events as texts."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = await self.http.post(path, content=content, headers=headers)
        assert response.status_code == 200, response.text
        answer = response.json()
        assert answer["rejected"] == 0, answer
        seqs = [event["seq"] for event in answer["events"]]
        rows = (await self.tom.query("SELECT context FROM events WHERE seq >= ? ORDER BY seq", [min(seqs)])).rows
        return [row.context for row in rows]

    async def context(self, path, body, **headers):
        """The context of one event."""
        return json.loads((await self.contexts(path, body, **headers))[0])


@pytest.fixture
async def tom(tmp_path):
    async with Analytics("tom", root=tmp_path) as analytics:
        yield analytics
        assert await analytics.check() == []


@pytest.fixture
def shop(tom):
    return Shop(tom)


async def test_fields_from_connection_and_page(shop):
    """Address, user agent with browser, system and device, language, campaign and referrer."""
    page = {
        "url": "https://shop.example/a?utm_source=news&utm_medium=mail&utm_campaign=Spr%C3%BCng&utm_id=7&x=1#utm_term=no",
        "referrer": "https://www.search.example/q?q=shop",
    }
    body = {"event": "a", "context": {"page": page}}
    context = await shop.context("/v1/t", body, **{"User-Agent": IPHONE, "Accept-Language": "de-AT,de;q=0.9"})
    assert context == {
        "page": page,
        "ip": "203.0.113.77",
        "userAgent": IPHONE,
        "locale": "de-AT",
        "browser": {"name": "Mobile Safari", "version": "17.1"},
        "os": {"name": "iOS", "version": "17.1"},
        "device": {"manufacturer": "Apple", "model": "iPhone", "name": "iPhone"},
        "campaign": {"source": "news", "medium": "mail", "name": "Sprüng", "id": "7"},
        "referrer": {"name": "search.example", "url": "https://www.search.example/q?q=shop"},
    }


async def test_fields_of_the_client_are_kept(shop):
    """No field is overwritten, and the stored context begins with the client's bytes."""
    context = (
        '{"ip": "0.0.0.0", "userAgent":"mine", "locale":null,"os":{"name":"Mine"}, "device":{},"browser":7,'
        '"campaign":{"name":"own"},"referrer":{"type":"ad"},"n":1.50,"page":{"url":"http://a.test/?utm_source=x"}}'
    )
    body = b'{"event":"a","context":%s}' % context.encode()
    assert await shop.contexts("/v1/t", body, **{"User-Agent": IPHONE, "Accept-Language": "de"}) == [context]
    contexts = await shop.contexts(
        "/v1/t", b'{"event":"a","context":{"ip":"1.2.3.4","n":1.50}}', **{"User-Agent": IPHONE}
    )
    assert contexts[0].startswith('{"ip":"1.2.3.4","n":1.50,"userAgent":')


async def test_only_client_side_events_are_enriched(shop):
    """The browser's short paths, an Origin, or the library's name; the address of a server is not the person's."""
    for path, context, headers, added in (
        ("/v1/track", SERVER, {}, False),
        ("/v1/track", {}, {}, False),
        ("/v1/track", BROWSER, {}, True),
        ("/v1/track", {"library": {"version": "1.0", "name": "analytics-ios"}}, {}, True),
        ("/v1/track", {"library": {"name": "com.rudderstack.android.sdk.core", "version": "1"}}, {}, True),
        ("/v1/track", {"library": "analytics.js"}, {}, False),
        ("/v1/track", SERVER, {"Origin": "http://localhost:3000"}, True),
        ("/v1/t", SERVER, {}, True),
    ):
        single = await shop.context(path, {"event": "a", "context": context}, **headers)
        batch_path = "/v1/b" if path == "/v1/t" else "/v1/batch"
        many = await shop.contexts(batch_path, {"batch": [{"event": "a", "context": context}] * 3}, **headers)
        for stored in (single, *map(json.loads, many)):
            assert ("ip" in stored) is added, (path, context, headers)
            assert added or stored == context, (path, context, headers)


async def test_events_of_servers_are_stored_byte_for_byte(shop):
    """With their spaces, order and equal names."""
    context = '{ "library" : {"name":"analytics-python"} ,"a":1.0, "a":2e0 }'
    assert await shop.contexts("/v1/batch", b'{"batch":[{"event":"a","context":%s}]}' % context.encode()) == [context]


async def test_a_batch_of_browsers(shop):
    """Every event of a batch, with or without a context; the shared context of the batch counts as the client's."""
    batch = [
        {"event": "a"},
        {"event": "b", "context": None},
        {"event": "c", "context": {"locale": "fr"}},
        {"event": "d"},
    ]
    body = {"batch": batch, "context": {"ip": "9.9.9.9", "app": {"name": "x"}}, "sentAt": "2026-01-01T00:00:00Z"}
    contexts = [json.loads(text) for text in await shop.contexts("/v1/b", body, **{"User-Agent": IPHONE})]
    assert [context["ip"] for context in contexts] == ["9.9.9.9"] * 4
    assert [context["os"]["name"] for context in contexts] == ["iOS"] * 4
    assert [context["app"] for context in contexts] == [{"name": "x"}] * 4
    assert [context.get("locale") for context in contexts] == [None, None, "fr", None]


# Addresses


@pytest.mark.parametrize(
    ("ip", "client", "stored"),
    [
        ("whole", "203.0.113.77", "203.0.113.77"),
        ("truncated", "203.0.113.77", "203.0.113.0"),
        ("truncated", "2001:db8:1:2:3::4", "2001:db8:1::"),
        ("whole", "::ffff:203.0.113.77", "203.0.113.77"),
        ("none", "203.0.113.77", None),
        ("whole", "", None),
    ],
)
async def test_how_much_of_an_address_is_stored(tom, ip, client, stored):
    """All of it, its network, or nothing; on a Unix socket there is none."""
    assert (await Shop(tom, client, ip=ip).context("/v1/t", {"event": "a"})).get("ip") == stored


@pytest.mark.parametrize(
    ("trusted", "client", "forwarded", "origin"),
    [
        ([], "10.0.0.1", "1.1.1.1", "10.0.0.1"),
        (["10.0.0.0/8"], "10.0.0.1", "1.1.1.1", "1.1.1.1"),
        (["10.0.0.0/8"], "10.0.0.1", "6.6.6.6, 1.1.1.1", "1.1.1.1"),
        (["10.0.0.0/8"], "10.0.0.1", "6.6.6.6, 1.1.1.1, 10.0.0.2", "1.1.1.1"),
        (["10.0.0.0/8"], "10.0.0.1", "10.0.0.3, 10.0.0.2", "10.0.0.3"),
        (["10.0.0.0/8"], "10.0.0.1", "6.6.6.6, <script>", "10.0.0.1"),
        (["10.0.0.0/8"], "10.0.0.1", "", "10.0.0.1"),
        (["10.0.0.0/8"], "8.8.8.8", "1.1.1.1", "8.8.8.8"),
        (["::1", "10.0.0.0/8"], "::1", "2001:db8::1", "2001:db8::1"),
        (["10.0.0.0/8"], "10.0.0.1", ",".join(["6.6.6.6"] * 9_000), "6.6.6.6"),
    ],
)
def test_only_trusted_proxies_are_believed(trusted, client, forwarded, origin):
    """The nearest address that is not a trusted proxy's; anything before it may be forged."""
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    request = HTTPConnection({"type": "http", "client": (client, 1), "headers": headers})
    assert str(TrustedProxies(trusted).client_address(request)) == origin


@pytest.mark.parametrize("options", [{"trusted_proxies": ["10.0.0.1/8"]}, {"trusted_proxies": ["proxy.example"]}])
def test_an_invalid_proxy_address_is_refused(options):
    """At the start, not at the first request."""
    with pytest.raises(InvalidSettings, match=r"is not valid: .* Write it as .127\.0\.0\.1. or .10\.0\.0\.0/8."):
        Enrichment(**options)


# Places


async def test_locations_from_a_maxmind_file(tom, tmp_path):
    """By the whole address, whatever part is stored; by the client's own if it sent one; nothing if unknown."""
    file = mmdb.write(tmp_path / "city.mmdb", "203.0.113.0/24", VIENNA)
    for ip in ("whole", "truncated", "none"):
        shop = Shop(tom, places=file, ip=ip)
        assert (await shop.context("/v1/t", {"event": "a"}))["location"] == PLACE
    for client in ("198.51.100.1", "2001:db8::1"):
        shop = Shop(tom, client, places=file)
        assert "location" not in await shop.context("/v1/t", {"event": "a"})
        event = {"event": "a", "context": {"ip": "203.0.113.9"}}
        assert (await shop.context("/v1/t", event))["location"] == PLACE
    assert "location" not in await shop.context("/v1/t", {"event": "a", "context": {"ip": "nowhere"}})
    own = {"event": "a", "context": {"location": {"city": "Graz"}, "ip": "203.0.113.9"}}
    assert (await shop.context("/v1/t", own))["location"] == {"city": "Graz"}


@pytest.mark.parametrize("record", ["text", {}, {"city": "Vienna", "subdivisions": [], "location": []}, [1.5]])
async def test_records_without_a_location(tom, tmp_path, record):
    """Files of networks or companies are readable, and give no location."""
    file = mmdb.write(tmp_path / "other.mmdb", "203.0.113.0/24", record)
    assert "location" not in await Shop(tom, places=file).context("/v1/t", {"event": "a"})


def test_an_invalid_maxmind_file_is_refused(tmp_path):
    """At the start, with its path."""
    (tmp_path / "bad.mmdb").write_bytes(b"no")
    for name in ("bad.mmdb", "absent.mmdb"):
        with pytest.raises(InvalidSettings, match=name):
            Enrichment(places=tmp_path / name)


# Hostile input


async def test_odd_contexts_do_not_fail(shop):
    """Odd addresses, types, lengths and agents: the event is stored with the client's fields."""
    for context in (
        {"page": {"url": "http://[::1", "referrer": "http://[x"}},
        {"page": {"url": 7, "referrer": [], "search": {}}},
        {"page": {"url": "http://a.test/?" + "utm_a=b&" * 5_00}},
        {"page": {"url": "http://a.test/?utm_x=%ff%00&utm_=y&utm_z"}},
        {"page": {"url": "http://a.test/?utm_x=" + "é" * 3_000}},
        {"page": [1]},
        {"userAgent": "Mozilla/5.0 (Linux; Android " + "a " * 8_000},
        {"userAgent": ["x"]},
        {"userAgent": "\u0000"},
    ):
        stored = await shop.context("/v1/t", {"event": "a", "context": context}, **{"Accept-Language": "*;q=," * 50})
        assert {name: stored[name] for name in context} == context
        assert "locale" not in stored, context


async def test_an_event_at_its_size_limit_is_unchanged(shop):
    """Added fields never make an event too large."""
    filler = "x" * (32_768 - 70)
    context = await shop.context("/v1/b", {"batch": [{"event": "a", "context": {"filler": filler}}]})
    assert context == {"filler": filler}


@pytest.mark.integration
@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(), st.lists, max_leaves=5
    ),
    st.data(),
)
def test_any_context_is_kept_and_only_added_to(value, data):
    """Against a plain model: parse the context and add the missing fields."""
    names = ("ip", "userAgent", "locale", "page", "os", "x")
    context = data.draw(st.dictionaries(st.sampled_from(names), st.just(value) | st.text()))
    scope = {"type": "http", "client": ("1.2.3.4", 1), "headers": [(b"user-agent", IPHONE.encode())]}
    client_request = Enrichment().client_request(HTTPConnection(scope))
    event = {"event": "é", "context": context}
    enriched = json.loads(client_request.event(json.dumps(event).encode()))
    assert enriched["event"] == "é"
    assert {name: enriched["context"][name] for name in context} == context
    assert enriched["context"]["ip"] == context.get("ip", "1.2.3.4")
    batch = json.loads(client_request.batch(json.dumps({"batch": [event, event]}).encode()))
    assert batch["batch"] == [enriched, enriched]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[", b"7", b'{"batch":7}', b'{"batch":[{"a":NaN}]}', b"\xff", b'{"batch":[7,[]]}']
)
def test_invalid_bodies_are_unchanged(body):
    """Later validation gives the error."""
    scope = {"type": "http", "client": None, "headers": [(b"user-agent", b"x")]}
    client_request = Enrichment().client_request(HTTPConnection(scope))
    assert client_request.batch(body) in (body, b'{"batch":[7,[]],"context":{}}')
    assert body.startswith(b'{"batch":') or client_request.event(body) == body


def test_the_cache_of_user_agents_is_bounded():
    """However long and however many they are."""
    from lakebed.api.enrichment import enrichment as agents

    for number in range(3_000):
        parse_user_agent(f"{number} " + "x" * 10_000)
    info = agents._parsed.cache_info()
    assert info.currsize == info.maxsize == 2_048


def test_the_slowest_user_agents_do_not_block_the_loop():
    """The longest parsed ones, built to match many expressions, take no longer than an fsync or two."""
    parts = ("Mozilla/5.0 (", "Android ", "a;", "; ", "like Gecko) ", "1.", "Version/", "iPhone OS ", "_", " Build/")
    parse_user_agent("warm")
    slowest = 0.0
    for part in parts:
        for other in parts:
            text = "Mozilla/5.0 (" + (part + other) * 512
            start = time.thread_time()
            parse_user_agent(text)
            slowest = max(slowest, time.thread_time() - start)
    assert slowest < 0.05
