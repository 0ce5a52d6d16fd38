"""Segment's HTTP API, for the unmodified clients of Segment and RudderStack."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Raw
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.auth import Auth, Caller
from lakebed.api.body import UNREADABLE, Body, Corrupt, TooLong, decompress, json_object
from lakebed.api.enrichment.enrichment import Enrichment
from lakebed.api.errors import Refusal
from lakebed.api.middleware import header
from lakebed.api.openapi.document import JSON, operation
from lakebed.api.responses import BatchAnswer, json_response, receipts_response
from lakebed.api.routes.events import Batch, EventBody, MicroBatching
from lakebed.errors import InvalidEvent
from lakebed.events.event import Receipt

__all__ = ["MAX_BATCH_BYTES", "SegmentRoutes"]

# In the order of their frequency: a router tries its routes one after the other. The browser's library uses the short
# ones.
_BATCHES = ("batch", "b", "import")
_KINDS = {
    "track": "track",
    "t": "track",
    "page": "page",
    "p": "page",
    "identify": "identify",
    "i": "identify",
    "screen": "screen",
    "s": "screen",
    "group": "group",
    "g": "group",
    "alias": "alias",
    "a": "alias",
}
_TYPES = {kind: b'"type":"%s"}' % kind.encode() for kind in _KINDS.values()}
MAX_CALL_BYTES = 32 << 10
MAX_BATCH_BYTES = 500 << 10
MAX_BATCH_EVENTS = 2_500
# The first letters of the names of libraries that run on a person's device. Others run on a server, whose address and
# user agent say nothing about the person.
_CLIENT_SIDE = (
    b"analytics.js",
    b"analytics-ios",
    b"analytics-android",
    b"analytics-swift",
    b"analytics-kotlin",
    b"analytics-react-native",
    b"@segment/analytics-react-native",
    b"analytics-flutter",
    b"RudderLabs JavaScript SDK",
    b"rudder-ios-library",
    b"com.rudderstack.",
    b"rudder-react-native",
    b"rudder-flutter",
)
_VERSION = rb'"version"[^{}"]{0,8}"[^"]{0,40}",\s{0,8}'
_LIBRARY = re.compile(rb'"library"\s{0,8}:\s{0,8}\{\s{0,8}(?:' + _VERSION + rb')?"name"\s{0,8}:\s{0,8}"')
_LONGEST_NAME = max(map(len, _CLIENT_SIDE))
_MAX_LIBRARIES = 20  # occurrences of "library" that are checked: a property may have that name too
_TOO_LARGE = 413
_GZIP = b"\x1f\x8b"

_AnyBody = {JSON: Batch, "text/plain": Batch}
_OneBody = {JSON: EventBody, "text/plain": EventBody}


class _Keyed(msgspec.Struct, rename="camel"):
    """The write key of a body. Decoding it validates the whole body without building its values."""

    write_key: Any = None


class _Counted(msgspec.Struct):
    batch: list[Raw]


class Settings(msgspec.Struct, rename="camel", kw_only=True):
    """The settings that analytics.js loads before it sends anything: the address, and no other integrations."""

    integrations: dict[str, dict[str, Any]]
    plan: dict[str, Any]
    metrics: dict[str, Any]
    remote_plugins: list[Any] = []
    edge_function: dict[str, Any] = {}
    middleware_settings: dict[str, Any] = {}
    enabled_middleware: dict[str, Any] = {}
    analytics_next_enabled: bool = True
    legacy_video_plugins_enabled: bool = False


class Ignored(msgspec.Struct):
    """Response to a request that is accepted and ignored."""

    success: bool = True


_keyed = msgspec.json.Decoder(_Keyed)
_counted = msgspec.json.Decoder(_Counted)
_items = msgspec.json.Decoder(list[Raw])
_KEY = re.compile(rb'"writeKey"\s{0,8}:\s{0,8}"([!#-\[\]-~]{1,200})"')


class SegmentRoutes:
    """`POST /v1/{track,identify,page,screen,group,alias,batch,import}` and the browser's `/v1/{t,i,p,s,g,a,b,m}`.

    As Segment does, it answers 200 except to a body that is invalid or too large (400), and to a request that may be
    sent again later (408, 429, 5xx): Segment's clients drop or repeat a request with another status. The outcome of
    each event is in the body. analytics.js loads `GET /v1/projects/{writeKey}/settings` before it sends anything.

    Args:
        micro_batching: stores single events.
        enrichment: adds fields to the context of events that browsers and phones send.
        max_batch_bytes: limit of a decompressed batch: Segment's own limit, which its clients keep.
    """

    def __init__(
        self,
        auth: Auth,
        body: Body,
        micro_batching: MicroBatching,
        enrichment: Enrichment,
        *,
        max_batch_bytes: int = MAX_BATCH_BYTES,
    ) -> None:
        self._auth = auth
        self._body = body
        self._enrichment = enrichment
        self._max_batch_bytes = max_batch_bytes
        self._micro_batching = micro_batching

    def routes(self) -> list[BaseRoute]:
        """The routes of this group."""
        return [
            *(Route(f"/v1/{path}", self.batch, methods=["POST"]) for path in _BATCHES),
            *(Route(f"/v1/{path}", self.call, methods=["POST"]) for path in _KINDS),
            Route("/v1/m", self.metrics, methods=["POST"]),
            Route("/v1/projects/{write_key}/settings", self.settings, methods=["GET"]),
        ]

    @operation(scope="write", body=_OneBody, answer=BatchAnswer, refusals=[507])
    async def call(self, request: Request) -> Response:
        """One event as Segment's clients send it. The path names the type of the event."""
        caller, body = await self._read(request, MAX_CALL_BYTES)
        body = body.strip()
        try:
            _check_object(body)
        except Refusal as refusal:
            await self._auth.keep(request, caller, body, refusal.message)
            raise
        path = _last(request)
        comma = b"," if body[1:-1].strip() else b""
        event = b"%s%s%s" % (body[:-1], comma, _TYPES[_KINDS[path]])  # of two fields `type`, the last counts
        if _is_client_side(request, event):
            event = self._enrichment.client_request(request).event(event)
        receipt = await self._micro_batching.store(caller, event)
        self._auth.charge(caller, 1)
        if receipt.status == "rejected":
            json_object(body)  # 400 if the reason is a number that JSON cannot hold
        return receipts_response([receipt])

    @operation(scope="write", body=_AnyBody, answer=BatchAnswer, refusals=[507])
    async def batch(self, request: Request) -> Response:
        """Many events as Segment's clients send them. The valid ones are stored."""
        caller, body = await self._read(request, self._max_batch_bytes)
        _count(body)
        is_client_side = _is_client_side(request, body)
        events = self._enrichment.client_request(request).batch(body) if is_client_side else body
        try:
            receipts: list[Receipt] = await self._auth.object(caller).batch(
                events, source="http", keep_refused=True, key=caller.key
            )
        except InvalidEvent as error:
            raise Refusal(400, "INVALID_JSON", error.reason) from None
        self._auth.charge(caller, len(receipts))
        if all(receipt.status == "rejected" for receipt in receipts):
            _check(body)
        return receipts_response(receipts)

    @operation(body={JSON: dict[str, Any], "text/plain": dict[str, Any]}, answer=Ignored, any_origin=True)
    async def metrics(self, request: Request) -> Response:
        """Metrics that analytics.js sends about itself: accepted and ignored, so that it does not send them again."""
        await self._body.read(request)
        return json_response(Ignored())

    @operation(scope="write", answer=Settings)
    async def settings(self, request: Request) -> Response:
        """The settings that analytics.js loads before it sends anything: they name this server."""
        key = request.path_params["write_key"]
        self._auth.admit(request, "write", write_key=key)
        base = request.base_url
        server = {"apiKey": key, "apiHost": f"{base.netloc}{base.path.rstrip('/')}/v1", "protocol": base.scheme}
        everything = {"enabled": True, "integrations": {}}
        settings = Settings(
            integrations={"Segment.io": server},
            plan={name: {"__default": everything} for name in ("track", "identify", "group")},
            metrics={"sampleRate": 0},
        )
        return json_response(settings)

    async def _read(self, request: Request, maximum: int) -> tuple[Caller, bytes]:
        """Read the sender and the body. If a header has the key, the body is read only if the key is valid.

        Raises:
            Refusal: as in other routes, but 400 instead of 413, as Segment answers.
        """
        try:
            has_key = header(request.scope, b"authorization") or header(request.scope, b"x-api-key")
            caller = self._auth.admit(request, "write") if has_key else None
            body = await self._body.read(request)
            if body[:2] == _GZIP:  # RudderStack's client for Node may omit the header, and no JSON begins like this
                body = _decompressed(body, maximum)
            if len(body) > maximum:
                raise _too_large(maximum)
            if caller is None:
                caller = self._auth.admit(request, "write", write_key=None if self._auth.keyless else _key_in(body))
            self._auth.weigh(caller, len(body))
        except Refusal as refusal:
            if refusal.status != _TOO_LARGE:
                raise
            raise Refusal(400, refusal.code, refusal.message, headers=refusal.headers, **refusal.details) from None
        return caller, body


def _last(request: Request) -> str:
    path: str = request.scope["path"]
    return path.rpartition("/")[2]


def _is_client_side(request: Request, body: bytes) -> bool:
    """Whether a browser or phone sent `body`, as a short path, an Origin header or the library shows."""
    if len(_last(request)) == 1 or header(request.scope, b"origin"):
        return True
    start = -1
    for _ in range(_MAX_LIBRARIES):
        start = body.find(b'"library"', start + 1)
        match = _LIBRARY.match(body, start) if start != -1 else None
        if match is not None:
            return body[match.end() : match.end() + _LONGEST_NAME].startswith(_CLIENT_SIDE)
    return False


def _key_in(body: bytes) -> str | None:
    """The write key in a body, even if the body is not valid as a whole; None if there is no key."""
    try:
        key = _keyed.decode(body).write_key
    except UNREADABLE:
        match = _KEY.search(body)
        return None if match is None else match[1].decode("ascii")
    return key if isinstance(key, str) else None


def _check_object(body: bytes) -> None:
    """Refuse a body that is not a JSON object with 400. The range of its numbers is not checked."""
    try:
        if not body.isascii():
            body.decode()
        _keyed.decode(body)
    except UNREADABLE as error:
        raise _invalid(error) from None


def _count(body: bytes) -> None:
    """Refuse a batch of too many events. Counting the commas is nearly always enough."""
    if body.count(b",") < MAX_BATCH_EVENTS:
        return
    try:
        count = len(_items.decode(body) if body[:1] == b"[" else _counted.decode(body).batch)
    except UNREADABLE:  # an estimate: the item-by-item decoder reports the error, and takes the body as one event
        count = body.count(b'"type"')
    if count > MAX_BATCH_EVENTS:
        message = f"The batch has {count} events, the limit is {MAX_BATCH_EVENTS}"
        raise Refusal(400, "BATCH_TOO_LARGE", message, limit=MAX_BATCH_EVENTS)


def _check(body: bytes) -> None:
    """Refuse a body that is not JSON with 400. Called if no event of the body was stored."""
    try:
        body.decode()
        msgspec.json.decode(body)
    except UNREADABLE as error:
        raise _invalid(error) from None


def _decompressed(body: bytes, maximum: int) -> bytes:
    try:
        return decompress(body, "gzip", maximum)
    except TooLong:
        raise _too_large(maximum) from None
    except Corrupt as error:
        raise Refusal(400, "INVALID_ENCODING", f"The body begins as gzip but is not valid gzip: {error}") from None


def _too_large(maximum: int) -> Refusal:
    return Refusal(_TOO_LARGE, "BODY_TOO_LARGE", f"The body has more than {maximum} bytes", limit=maximum)


def _invalid(error: Exception) -> Refusal:
    return Refusal(400, "INVALID_JSON", f"The body is not JSON: {error}")
