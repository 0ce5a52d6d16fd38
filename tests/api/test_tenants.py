"""No key reaches another object's data by any route.

The routes are read from the app: one that has neither a case nor a place among the open ones fails. Each case is sent
with each key, in every way that could name another object.
"""

from __future__ import annotations

import asyncio
import json
import re
from urllib.parse import quote

import msgspec
import pytest
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute

from lakebed import Analytics, ManualClock, Namespace
from lakebed.api import create_app
from lakebed.auth.keys import Keys, Limits
from lakebed.interface.verbs import VERBS
from tests.reports.report_samples import SAMPLES

pytestmark = pytest.mark.integration

OWN, OTHER = "tom", "sam"
SECRET = {OWN: b"tom-secret", OTHER: b"sam-secret"}
SCOPES = ("write", "read", "admin")


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A request that makes a route do its work.

    Attributes:
        scope: scope that a key needs. A key without it is 403.
        bodies: bodies to send; the first is an honest client's.
        queries: query strings, likewise.
        path: values of the path's parameters, likewise. KEY is the sender's own token.
        shows: whether the honest answer has data of the object, which would show a leak.
        says_no_inside: whether the status is always 200, and a refusal is in the answer.
    """

    scope: str
    bodies: tuple[bytes, ...] = (b"",)
    queries: tuple[str, ...] = ("",)
    path: tuple[str, ...] = ("",)
    shows: bool = False
    says_no_inside: bool = False


KEY = "<key>"
ROOT = "<root>"
_TAKEN = b'{"event":"tom-more","userId":"u","groupId":"g","previousId":"p","object":"sam","name":"sam"}'
_WRITES = Case(scope="write", bodies=(_TAKEN,))
_BATCHES = Case(
    scope="write", bodies=(b'{"batch":[' + _TAKEN + b'],"object":"sam","name":"sam"}', b"[" + _TAKEN + b"]")
)
_SQL = (
    "SELECT event, user_id FROM events",
    "SELECT * FROM read_parquet('<root>/sam/log/*.parquet')",
    "SELECT * FROM '<root>/sam/log/*.parquet'",
    "SELECT content FROM read_blob('<root>/sam/log/*')",
    "SELECT content FROM read_text('<root>/sam/object.json')",
    "SELECT * FROM glob('<root>/**')",
    "SELECT * FROM read_csv('<root>/keys.db', delim='\\0')",
    "SELECT * FROM sqlite_scan('<root>/sam/storage.db', 'dead_letters')",
    "SELECT * FROM iceberg_scan('<root>/sam/archive/warehouse')",
    "ATTACH '<root>/sam/storage.db' AS sam (TYPE sqlite)",
    "SELECT * FROM sam.events",
    "SELECT * FROM duckdb_databases()",
    "SELECT * FROM duckdb_settings()",
    "SELECT getenv('HOME')",
    "COPY events TO '<root>/sam/log/x.parquet'",
    "SELECT event FROM events UNION ALL SELECT content FROM read_text('<root>/sam/log/*')",
)
_ENGINE = (
    "SELECT blob1 FROM points",
    "SELECT * FROM read_text('<root>/sam/log/*')",
    "SELECT * FROM '<root>/sam/log/*.parquet'",
    "SELECT * FROM sam.points",
    "SELECT blob1 FROM points WHERE blob1 IN (SELECT content FROM read_text('<root>/sam/log/*'))",
)
_SERIES = "start=2020-01-01&end=2040-01-01&grain=month"
_INJECTED = quote("event) FROM read_text('<root>/sam/log/*') --", safe="<>")
_RPC = b'["push",["pipeline",0,["stats"],[]]]\n["pull",1]\n'
_RPC_OTHERS = tuple(
    b'["push",["pipeline",0,%s,%s]]\n["pull",1]\n' % (path, arguments)
    for path, arguments in (
        (b'["query"]', b"[\"SELECT * FROM read_text('<root>/sam/log/*')\"]"),
        (b'["get"]', b'["sam"]'),
        (b'["stub"]', b'["sam"]'),
        (b'["Analytics"]', b'["sam"]'),
        (b'["root"]', b"[]"),
        (b'["directory"]', b"[]"),
        (b'["namespace","get"]', b'["sam"]'),
        (b'["__class__"]', b"[]"),
    )
)
_PEOPLE = ("tom-secret-user", "sam-secret-user", "../../sam/people/sam-secret-user")
# A case may have no route yet; every route must have a case.
CASES = {
    **{("POST", f"/v1/{kind}"): _WRITES for kind in ("track", "page", "identify", "screen", "group", "alias")},
    **{("POST", f"/v1/{kind}"): _WRITES for kind in "tpisga"},
    **{("POST", f"/v1/{kind}"): _BATCHES for kind in ("batch", "b", "import")},
    ("GET", "/v1/projects/{write_key}/settings"): Case(scope="write", path=(KEY,)),
    ("POST", "/track"): _WRITES,
    ("POST", "/track/batch"): _BATCHES,
    ("GET", "/stats"): Case(scope="read", shows=True),
    ("GET", "/tiers"): Case(scope="read"),
    ("GET", "/dau"): Case(scope="read", queries=("", "days=sam")),
    ("GET", "/wau"): Case(scope="read"),
    ("GET", "/mau"): Case(scope="read"),
    ("GET", "/timeseries"): Case(
        scope="read",
        queries=(
            f"{_SERIES}&by=event",
            f"{_SERIES}&by={_INJECTED}",
            f"{_SERIES}&by=event&measure=distinct({_INJECTED})",
            f"{_SERIES}&by=event&event=sam-secret-event",
            f"{_SERIES}&by=event&where={quote('1=1) UNION ALL SELECT 1 --')}",
        ),
        shows=True,
    ),
    ("GET", "/live"): Case(scope="read"),
    ("GET", "/metrics"): Case(scope="read"),
    ("POST", "/query"): Case(scope="read", bodies=tuple(json.dumps({"sql": sql}).encode() for sql in _SQL), shows=True),
    **{
        ("POST", f"/reports/{name}"): Case(scope="read", bodies=(json.dumps(arguments).encode(),))
        for name, arguments in SAMPLES.items()
    },
    ("POST", "/events"): _WRITES,
    ("POST", "/events/batch"): Case(
        scope="write", bodies=(b'{"events":[' + _TAKEN + b'],"object":"sam"}', b"[" + _TAKEN + b"]")
    ),
    ("POST", "/metrics/performance"): Case(
        scope="read",
        bodies=(
            b'{"start":"2020-01-01","end":"2040-01-01"}',
            b"""{"start":"2020-01-01","end":"2040-01-01","path":"' OR event IN (FROM read_text('<root>/sam/*')) --"}""",
        ),
    ),
    ("GET", "/templates"): Case(scope="read"),
    ("GET", "/templates/{name}"): Case(
        scope="read", path=("events-by-name", "../sam/events-by-name"), queries=("", "limit=5"), shows=True
    ),
    ("POST", "/templates/{name}"): Case(
        scope="read", path=("top-users",), bodies=(b"{}", b'{"limit":"1) FROM read_text(*)"}'), shows=True
    ),
    ("POST", "/reports/funnel"): Case(
        scope="read",
        bodies=(
            b'{"steps":["tom-secret-event"]}',
            b"""{"steps":["tom-secret-event"],"where":"event IN (FROM read_text('<root>/sam/log/*'))"}""",
            b"""{"steps":[{"where":"1=1) UNION SELECT content FROM read_text('<root>/sam/log/*') --"}]}""",
        ),
    ),
    ("POST", "/billing/usage"): Case(
        scope="read",
        bodies=(
            b'{"organizationId":"tom-secret","start":"2020-01-01","end":"2040-01-01"}',
            b'{"organizationId":"tom","sku":"sam","start":"2020-01-01","end":"2040-01-01"}',
        ),
    ),
    ("GET", "/billing/price-books"): Case(scope="read", shows=True),
    ("PUT", "/billing/price-books/{name:path}"): Case(
        scope="admin",
        path=("default", "../../sam"),
        bodies=(b'{"currency":"EUR","prices":{"tom-secret":{"model":"flat","amount":"1"}}}',),
    ),
    ("GET", "/billing/invoices"): Case(scope="read", queries=("", "organizationId=sam-secret")),
    ("POST", "/billing/invoices"): Case(
        scope="admin",
        bodies=(
            b'{"organizationId":"tom-secret","period":"2025-01"}',
            b'{"organizationId":"tom","period":"2025-01"}',
        ),
    ),
    ("GET", "/billing/quotas"): Case(scope="read", queries=("", "organizationId=sam-secret"), shows=True),
    ("PUT", "/billing/quotas"): Case(
        scope="admin", bodies=(b'{"organizationId":"tom-secret","sku":"tom-secret","limit":5}',)
    ),
    ("GET", "/client/v4/accounts/{id}/analytics_engine/sql"): Case(
        scope="read", path=("tom", "sam"), queries=tuple(f"query={quote(sql)}" for sql in _ENGINE), shows=True
    ),
    ("POST", "/client/v4/accounts/{id}/analytics_engine/sql"): Case(
        scope="read", path=("tom", "sam"), bodies=tuple(sql.encode() for sql in _ENGINE), shows=True
    ),
    ("GET", "/client/v4/accounts/{id}/analytics_engine/sql/"): Case(
        scope="read", path=("tom", "sam"), queries=tuple(f"query={quote(sql)}" for sql in _ENGINE[:1]), shows=True
    ),
    ("POST", "/client/v4/accounts/{id}/analytics_engine/sql/"): Case(
        scope="read", path=("tom", "sam"), bodies=tuple(sql.encode() for sql in _ENGINE[:1]), shows=True
    ),
    ("GET", "/grafana"): Case(scope="read"),
    ("GET", "/grafana/"): Case(scope="read"),
    ("POST", "/grafana/metrics"): Case(scope="read", bodies=(b"{}",)),
    ("POST", "/grafana/metric-payload-options"): Case(scope="read", bodies=(b'{"metric":"sql","name":"format"}',)),
    ("POST", "/grafana/query"): Case(
        scope="read",
        bodies=tuple(
            json.dumps({"targets": [{"target": "sql", "payload": {"sql": sql}}]}).encode() for sql in _ENGINE[:1]
        ),
        shows=True,
    ),
    ("POST", "/grafana/variable"): Case(
        scope="read",
        bodies=tuple(json.dumps({"payload": {"target": sql}}).encode() for sql in _ENGINE[:1]),
        shows=True,
    ),
    ("POST", "/client/v4/accounts/{id}/analytics_engine/{dataset}"): Case(
        scope="write", path=("tom", "sam"), bodies=(b'{"indexes":["tom"],"blobs":["x"],"doubles":[1]}',)
    ),
    ("GET", "/datasets"): Case(scope="read", shows=True),
    ("GET", "/datasets/{name:path}"): Case(scope="read", path=("points", "../../sam/datasets/points"), shows=True),
    ("DELETE", "/datasets/{name:path}"): Case(scope="admin", path=("points", "../../sam/datasets/points")),
    ("PUT", "/datasets/{name:path}"): Case(
        scope="admin", path=("points", "../../sam"), bodies=(b'{"event":"tom-secret-event","blobs":["x"]}',)
    ),
    ("GET", "/cohorts"): Case(scope="read", shows=True),
    ("GET", "/cohorts/{name:path}"): Case(scope="read", path=("buyers", "../../sam/cohorts/buyers"), shows=True),
    ("GET", "/cohorts/{name:path}/people"): Case(
        scope="read", path=("buyers", "../../sam/cohorts/buyers"), queries=("", "after=sam", "limit=1"), shows=True
    ),
    ("PUT", "/cohorts/{name:path}"): Case(
        scope="admin", path=("tom", "sam", "../../sam"), bodies=(b'{"did":"x"}', b'{"did":{"where":"1=1) UNION --"}}')
    ),
    ("DELETE", "/cohorts/{name:path}"): Case(scope="admin", path=("buyers", "../../sam/cohorts/buyers")),
    ("GET", "/deadletters"): Case(scope="read", queries=("", "reason=sam", "before=9999"), shows=True),
    ("GET", "/deadletters/{id}"): Case(scope="read", path=("1", "2", "3", "../sam/deadletters/1"), shows=True),
    ("POST", "/deadletters/replay"): Case(
        scope="admin", bodies=(b'{"ids":[1]}', b'{"ids":[1,2,3],"patch":{"event":"x"}}', b'{"ids":[1],"object":"sam"}')
    ),
    ("DELETE", "/deadletters"): Case(scope="admin", queries=("id=77", "id=2&id=3", "before=2000-01-01")),
    ("GET", "/people/{id:path}"): Case(scope="read", path=_PEOPLE, shows=True),
    ("GET", "/people/merges"): Case(scope="read"),
    ("POST", "/people/merge"): Case(scope="admin", bodies=(b'{"a":"sam-secret-user","b":"tom-secret-user"}',)),
    ("POST", "/people/unmerge"): Case(scope="admin", bodies=(b'{"merge_id":"1"}',)),
    ("POST", "/rpc"): Case(scope="read", bodies=(_RPC, *_RPC_OTHERS), shows=True, says_no_inside=True),
    ("WEBSOCKET", "/rpc"): Case(scope="read", bodies=(_RPC, *_RPC_OTHERS), shows=True, says_no_inside=True),
}
# These answer nothing about any object, so they need no key.
OPEN = {
    *(("GET", path) for path in ("/", "/docs", "/openapi.json", "/health", "/health/live", "/health/ready")),
    ("GET", "/static/{version}/{name:path}"),
    ("POST", "/v1/m"),
}
HEADERS = (
    {},
    {"X-Lakebed-Object": OTHER},
    {"X-Object": OTHER},
    {"X-Tenant": OTHER},
    {"X-Forwarded-Host": OTHER},
    {"X-Original-URL": f"/{OTHER}/stats"},
    {"Cookie": f"object={OTHER}"},
)
# Each of these answers starts a process, so each is requested with all headers together. `/query`, which is answered in
# the same way, and `/reports/top` get them one by one.
SANDBOXED = (
    *(f"/reports/{name}" for name in SAMPLES if name != "top"),
    *("/templates/", "/cohorts/", "/client/", "/grafana/", "/metrics/performance"),
)
QUERIES = (f"object={OTHER}", f"name={OTHER}", f"namespace={OTHER}&tenant={OTHER}&root=..")
ASIDE = (
    *("/sam/stats", "/objects/sam/stats", "/../sam/stats", "//sam/stats", "/stats/sam", "/sam", "/sam/object.json"),
    *("/static/x/../../../sam/object.json", "/static/x/%2e%2e/%2e%2e/sam/object.json", "/deadletters/../sam"),
)


def keyed(routes: list[BaseRoute], under: str = "") -> dict[tuple[str, str], BaseRoute]:
    """All routes of an app by method and path, also those of apps that are mounted in it."""
    keyed_routes: dict[tuple[str, str], BaseRoute] = {}
    for route in routes:
        if isinstance(route, Mount):
            keyed_routes |= keyed(list(route.routes), under + route.path)
        elif isinstance(route, WebSocketRoute):
            keyed_routes["WEBSOCKET", under + route.path] = route
        elif isinstance(route, Route):
            for method in (route.methods or {"GET"}) - {"HEAD", "OPTIONS"}:
                keyed_routes[method, under + route.path] = route
        else:
            raise TypeError(f"what is {route!r}?")
    return keyed_routes


async def ask(app, method, path, query="", body=b"", **headers):
    """Send one request straight to the app; return its status, headers and body. A stream ends at its first data."""
    chunks, ended, sent = [], asyncio.Event(), asyncio.Event()
    status = [0]

    async def receive():
        if not sent.is_set():
            sent.set()
            return {"type": "http.request", "body": body, "more_body": False}
        await ended.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == "http.response.start":
            status[0] = message["status"]
            chunks.extend(b"%s: %s\n" % pair for pair in message["headers"])
        else:
            chunks.append(message.get("body", b""))
            if b"data:" in message.get("body", b"") or not message.get("more_body"):
                ended.set()

    scope = _scope("http", path, query, headers) | {"method": method}
    await asyncio.wait_for(app(scope, receive, send), 20)
    return status[0], b"".join(chunks)


async def converse(app, path, query="", body=b"", **headers):
    """Open one WebSocket and send each line of `body`; return all messages until the first answer, or the end."""
    incoming, messages = asyncio.Queue(), []
    for message in (
        {"type": "websocket.connect"},
        *({"type": "websocket.receive", "text": line} for line in body.decode().split("\n") if line),
    ):
        incoming.put_nowait(message)

    async def send(message):
        messages.append(json.dumps(message, default=str).encode())
        if message["type"] != "websocket.accept":
            incoming.put_nowait({"type": "websocket.disconnect", "code": 1000})

    await asyncio.wait_for(app(_scope("websocket", path, query, headers), incoming.get, send), 20)
    return 200, b"".join(messages)


def _scope(kind, path, query, headers):
    return {
        "type": kind,
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "http" if kind == "http" else "ws",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(b"host", b"127.0.0.1")] + [(k.lower().encode(), v.encode()) for k, v in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "subprotocols": [],
        "state": {},
    }


class House:
    """Two objects with secrets, each with a key of each scope, behind one app."""

    def __init__(self, root, namespace):
        self.root = root
        self.namespace = namespace
        self.keys = Keys(root, ManualClock())
        self.tokens = {(name, scope): self.keys.create(name, scope)[1] for name in SECRET for scope in SCOPES}
        limits = Limits(requests_per_s=1e6, events_per_s=1e6)
        self.app = create_app(namespace, limits=limits)
        self.routes = keyed(self.app.routes)

    async def furnish(self):
        for name, secret in SECRET.items():
            text = secret.decode()
            shop = self.namespace.get(name)
            await shop.track(f"{text}-event", {"x": f"{text}-value"}, user_id=f"{text}-user")
            await shop.batch(
                [{"event": "", "userId": f"{text}-letter{number}"} for number in range(3)], keep_refused=True
            )
            await shop.save_dataset("points", {"event": f"{text}-event", "blobs": ["x"]})
            await shop.save_cohort("buyers", {"did": f"{text}-event"})
            await shop.track_usage(text, text, 1, "unit", timestamp="2025-01-02")
            await shop.save_price_book("default", {"currency": "EUR", "prices": {text: {"model": "flat", "amount": 1}}})
            await shop.save_quota(text, text, 10)

    async def state(self, name):
        """The part of an object's state that a request with another object's key must not change."""
        shop = self.namespace.get(name)
        letters = [(letter.id, letter.raw, letter.tries) for letter in await shop.dead_letters()]
        return (await shop.stats()).next_seq, letters

    async def ask(self, route, token, *, body=b"", query="", part="", **headers):
        """The answer of a route; the placeholders for the key and the root are replaced."""
        method, path = route
        begin, brace, rest = path.partition("{")
        path = begin + part.replace(KEY, token or "none") + (rest.partition("}")[2] if brace else "")
        body = body.replace(ROOT.encode(), str(self.root).encode())
        query = query.replace(ROOT, quote(str(self.root)))
        authorization = {"Authorization": f"Bearer {token}"} if token else {}
        if method == "WEBSOCKET":
            return await converse(self.app, path, query, body, **authorization, **headers)
        return await ask(self.app, method, path, query, body, **authorization, **headers)


@pytest.fixture
async def house(tmp_path):
    async with Namespace(tmp_path, Analytics, headroom_bytes=0) as namespace:
        house = House(tmp_path, namespace)
        async with house.app.router.lifespan_context(house.app):
            await house.furnish()
            yield house
        assert namespace.check() == []


def cases(house):
    return {route: case for route, case in CASES.items() if route in house.routes}


async def test_every_route_has_a_case(house):
    """A new route needs a request here, or a place among the open ones."""
    assert not house.routes.keys() - CASES.keys() - OPEN
    assert not CASES.keys() & OPEN


def _assert_honest(route, case, name, status, answer):
    """The route did its work, and showed the secret of its key's object."""
    assert status < 400 or route == ("POST", "/people/unmerge"), f"{route}: {status} {answer[:500]!r}"
    assert not case.shows or SECRET[name] in answer, f"{route} shows nothing: {answer[:500]!r}"


async def test_each_case_shows_the_others_secret(house):
    """Otherwise the next test could not fail: with the other object's key each route works, and shows its secret."""
    for route, case in cases(house).items():
        body, part = case.bodies[0], case.path[0].replace(OWN, OTHER)
        token = house.tokens[OTHER, case.scope]
        status, answer = await house.ask(route, token, body=body, query=case.queries[0], part=part)
        _assert_honest(route, case, OTHER, status, answer)


@pytest.mark.parametrize("in_every_scope", [False, pytest.param(True, marks=pytest.mark.slow)])
async def test_no_key_reaches_another_object(house, in_every_scope):
    """With any key of one object, sent in any way, nothing of the other is returned or changed.

    In each run, the key of the route's own scope is sent in every way, keys of other scopes by each path; in the slow
    tier every key is sent in every way. A key of the route's own scope gets the answer of an honest request first.
    """
    before = await house.state(OTHER)
    await house.namespace.get(OWN).track("tom-secret-event")  # so that the two objects differ in their positions
    _, answer = await house.ask(("POST", "/query"), house.tokens[OTHER, "read"], body=b'{"sql":"SELECT * FROM events"}')
    others = _positions(answer)
    assert others
    for route, case in cases(house).items():
        honest = (case.bodies[0], case.queries[0], case.path[0], ())
        sandboxed = route[1].startswith(SANDBOXED)
        for scope in SCOPES:
            every_way = in_every_scope or scope == case.scope
            status, answer = await _sent(house, route, scope, honest, others)
            if scope == case.scope:
                _assert_honest(route, case, OWN, status, answer)
            headers = ({name: value for header in HEADERS for name, value in header.items()},) if sandboxed else HEADERS
            requests = _requests(case, headers, every_way=every_way)
            # Two at once: so many processes answer an object's queries.
            for first in range(0, len(requests), 2):
                await asyncio.gather(
                    *(_sent(house, route, scope, each, others) for each in requests[first : first + 2])
                )
    for path in ASIDE:
        for scope in SCOPES:
            status, answer = await ask(house.app, "GET", path, Authorization=f"Bearer {house.tokens[OWN, scope]}")
            assert SECRET[OTHER] not in answer
            assert status in (400, 404, 405), f"{path}: {status}"
    assert await house.state(OTHER) == before


async def _sent(house, route, scope, request, others):
    """The answer to a request with a key of `OWN`, which has nothing of the other object."""
    body, query, part, headers = request
    status, answer = await house.ask(
        route, house.tokens[OWN, scope], body=body, query=query, part=part, **dict(headers)
    )
    _assert_own(route, scope, request, status, answer)
    assert _positions(answer) != others, f"{route} {scope} {request} was answered by the other object"
    return status, answer


def _positions(answer):
    """The positions in the log of the events that an answer is computed from: even numbers alone show their object."""
    match = re.search(rb"lakebed-seq: (\S+)", answer)
    return None if match is None else match[1]


def _requests(case, headers, *, every_way):
    """Requests that try to reach the other object: by path; in every way, also by body, query and header."""
    body, query, part = case.bodies[0], case.queries[0], case.path[0]
    requests = [(body, query, other, ()) for other in case.path[1:]]
    if every_way:
        requests += [(other, query, part, ()) for other in case.bodies[1:]]
        requests += [(body, other, part, ()) for other in case.queries[1:]]
        requests += [(body, query, part, tuple(header.items())) for header in headers if header]
        requests += [(body, f"{query}&{extra}", part, ()) for extra in QUERIES]
    return requests


def _assert_own(route, scope, request, status, answer):
    """The answer has nothing of the other object. A route may repeat a part of its own request."""
    body, query, part, _ = request
    leaked = answer.replace(b"sam-secret-user", b"") if b"sam-secret-user" in body + part.encode() else answer
    leaked = leaked.replace(b"sam-secret-event", b"") if "sam-secret-event" in query else leaked
    assert SECRET[OTHER] not in leaked, f"{route} {scope} {request}: {answer!r}"
    assert status < 500, f"{route} {scope} {request}: {answer!r}"
    assert status != 429, f"{route} was not answered"


def _wrapped(value):
    """A value in the form of a Cap'n Web message: lists are wrapped once more."""
    if isinstance(value, list):
        return [[_wrapped(element) for element in value]]
    return {name: _wrapped(item) for name, item in value.items()} if isinstance(value, dict) else value


_ARGUMENTS = {
    **dict.fromkeys(("track", "page", "screen", "identify", "group"), '["x"]'),
    "alias": '["a","b"]',
    "batch": '[[[{"event":"x"}]]]',
    "timeseries": '[null,{"start":"2020-01-01","end":"2040-01-01","by":"event"}]',
    "query": '["SELECT * FROM events"]',
    "template": '["user-timeline",{"person":"tom-secret-user"}]',
    "dead_letter": "[2]",
    "purge": "[[[77]]]",
    "tag": '["x"]',
    "untag": '["x"]',
    "save_dataset": '["tom",{"event":"x"}]',
    "person": '["tom-secret-user"]',
    "merge": '["tom-secret-user","sam-secret-user"]',
    "unmerge": '["x"]',
    **{f"counters.{name}": '["events:*"]' for name in ("incr", "get", "count", "keys", "ttl", "delete")},
    "counters.top": '["events:*",5]',
    "save_cohort": '["buyers",{"did":"tom-secret-event"}]',
    "delete_cohort": '["x"]',
    "cohort": '["buyers"]',
    "dataset": '["points"]',
    "delete_dataset": '["x"]',
    "save_price_book": '["default",{"currency":"EUR","prices":{"tom-secret":{"model":"flat","amount":"2"}}}]',
    "invoice": '["tom-secret","2025-01",{"issue":true}]',
    "save_quota": '["tom-secret","tom-secret","20"]',
    "quota": '["tom-secret","tom-secret"]',
    **{name: json.dumps([_wrapped(arguments)]) for name, arguments in SAMPLES.items()},
}


async def test_each_method_over_rpc_is_for_its_keys_object(house):
    """Every method that can be called over RPC, with each key: by its scope, and never with the other's data."""
    before = await house.state(OTHER)
    for verb, row in VERBS.items():
        needs = row.scope
        path = json.dumps(verb.split("."))
        body = f'["push",["pipeline",0,{path},{_ARGUMENTS.get(verb, "[]")}]]\n["pull",1]\n'.encode()
        answers = await asyncio.gather(
            *(house.ask(("POST", "/rpc"), house.tokens[OWN, scope], body=body) for scope in SCOPES)
        )
        for scope, (_, answer) in zip(SCOPES, answers, strict=True):
            assert b"QUERY_BUSY" not in answer
            assert SECRET[OTHER] not in answer.replace(b"sam-secret-user", b""), f"{verb}: {answer!r}"
            assert (b"AccessDenied" in answer) == (scope not in (needs, "admin")), f"{verb} with {scope}: {answer!r}"
    assert await house.state(OTHER) == before


async def test_a_key_in_a_url_is_ignored(house):
    """Keys come from headers and bodies of events; one route has it in its path, as Segment's clients require."""
    token = house.tokens[OWN, "admin"]
    for route, case in cases(house).items():
        for name in ("key", "api_key", "apiKey", "token", "access_token", "writeKey", "write_key"):
            query = f"{case.queries[0]}&{name}={token}"
            status, answer = await house.ask(route, None, body=case.bodies[0], query=query, part=case.path[0])
            _assert_refused(route, case, (401,), status, answer)


async def test_the_key_in_a_header_takes_precedence(house):
    """A request with keys of two objects is for the object of the first, never a mixture."""
    token = house.tokens[OWN, "read"]
    body = b'{"writeKey":"%s","batch":[{"event":"x"}]}' % house.tokens[OTHER, "write"].encode()
    before = await house.state(OTHER)
    for route in (("POST", "/v1/batch"), ("POST", "/v1/track")):
        status, _ = await house.ask(route, token, body=body)
        assert status == 403
        status, _ = await house.ask(route, token, body=body, **{"X-API-Key": house.tokens[OTHER, "write"]})
        assert status == 403
    assert await house.state(OTHER) == before


async def test_wrong_scopes_are_403(house):
    """Keys of both objects that lack a route's scope; the answer has nothing of the object."""
    for route, case in cases(house).items():
        for (name, scope), token in house.tokens.items():
            if scope in (case.scope, "admin"):
                continue
            part = case.path[0]
            status, answer = await house.ask(route, token, body=case.bodies[0], query=case.queries[0], part=part)
            _assert_refused(route, case, (403,), status, answer)
            assert SECRET[name] not in answer


async def test_unknown_and_revoked_keys_are_401(house):
    """No key, an invented one, the id of a known one with another secret, a revoked one."""
    token = house.tokens[OTHER, "admin"]
    made_up = [
        None,
        "anything",
        token[:-1] + ("0" if token[-1] != "0" else "1"),
        "lba" + house.tokens[OTHER, "read"][3:],
    ]
    gone, revoked = house.keys.create(OTHER, "admin")
    house.keys.revoke(gone.id)
    app = create_app(house.namespace)  # it reads the keys anew
    house.app, house.routes = app, keyed(app.routes)
    async with app.router.lifespan_context(app):
        for route, case in cases(house).items():
            for bad in (*made_up, revoked):
                part = case.path[0]
                status, answer = await house.ask(route, bad, body=case.bodies[0], query=case.queries[0], part=part)
                _assert_refused(route, case, (401,), status, answer)


async def test_open_routes_show_nothing_of_objects(house):
    """With any key or none, the answer has no name and nothing of an object."""
    for method, path in OPEN & house.routes.keys():
        status, answer = await ask(house.app, method, path.partition("{")[0], body=b'{"series":[]}')
        assert status < 500
        for word in (*SECRET.values(), str(house.root).encode()):
            assert word not in answer


def _assert_refused(route, case, statuses, status, answer):
    if case.says_no_inside:
        assert b"AccessDenied" in answer, f"{route}: {answer!r}"
        assert not any(secret in answer for secret in SECRET.values())
    else:
        assert status in statuses, f"{route}: {status} {answer!r}"
