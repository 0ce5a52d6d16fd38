"""Segment's HTTP API, as its own and RudderStack's unmodified clients speak it."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Raw
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.auth import Auth, Caller
from lakebed.api.body import UNREADABLE, Body, json_object
from lakebed.api.compression import Corrupt, TooLong, decompress
from lakebed.api.enrichment.enrichment import Enrichment
from lakebed.api.errors import Refusal
from lakebed.api.middleware import header
from lakebed.api.openapi.operation import JSON, operation
from lakebed.api.responses import BatchAnswer, json_response, receipts_response
from lakebed.api.routes.micro_batching import MicroBatching
from lakebed.api.routes.track import Batch, EventBody
from lakebed.errors import InvalidEvent
from lakebed.events.event import Receipt

__all__ = ["MAX_BATCH_BYTES", "SegmentRoutes"]

# In the order of how often they are asked for: a router tries its routes one after the other. The short ones are those
# of the browser's library.
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
_TOO_LARGE = 413
_GZIP = b"\x1f\x8b"

_AnyBody = {JSON: Batch, "text/plain": Batch}
_OneBody = {JSON: EventBody, "text/plain": EventBody}


class _Keyed(msgspec.Struct, rename="camel"):
    """What a body says for all that is in it. Decoding it checks, without making anything of it, the whole body."""

    write_key: Any = None


class _Counted(msgspec.Struct):
    batch: list[Raw]


class Settings(msgspec.Struct, rename="camel", kw_only=True):
    """What analytics.js asks for before it sends anything: where to send it, and that there is nothing else to load."""

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
    """Thank you, and nothing was stored."""

    success: bool = True


_keyed = msgspec.json.Decoder(_Keyed)
_counted = msgspec.json.Decoder(_Counted)
_items = msgspec.json.Decoder(list[Raw])
_KEY = re.compile(rb'"writeKey"\s{0,8}:\s{0,8}"([!#-\[\]-~]{1,200})"')


class SegmentRoutes:
    """`POST /v1/{track,identify,page,screen,group,alias,batch,import}` and the browser's `/v1/{t,i,p,s,g,a,b,m}`.

    As SegmentRoutes does, it answers 200 to all but what is unreadable or too large, which is 400, and what may be sent
    again later (408, 429, 5xx): its clients drop or repeat what is answered otherwise. What became of each event is in
    the body. `GET /v1/projects/{writeKey}/settings` is what analytics.js asks before it sends anything.

    Args:
        gathering: stores single events.
        enrichment: what is added to the context of events that browsers and phones send.
        max_batch_bytes: of a batch, inflated: Segment's limit, which its clients keep.
    """

    def __init__(
        self,
        auth: Auth,
        body: Body,
        gathering: MicroBatching,
        enrichment: Enrichment,
        *,
        max_batch_bytes: int = MAX_BATCH_BYTES,
    ) -> None:
        self._auth = auth
        self._body = body
        self._enrichment = enrichment
        self._max_batch_bytes = max_batch_bytes
        self._gathering = gathering

    def routes(self) -> list[BaseRoute]:
        """What this room answers."""
        return [
            *(Route(f"/v1/{path}", self.batch, methods=["POST"]) for path in _BATCHES),
            *(Route(f"/v1/{path}", self.call, methods=["POST"]) for path in _KINDS),
            Route("/v1/m", self.metrics, methods=["POST"]),
            Route("/v1/projects/{write_key}/settings", self.settings, methods=["GET"]),
        ]

    @operation(scope="write", body=_OneBody, answer=BatchAnswer, refusals=[507])
    async def call(self, request: Request) -> Response:
        """One event, whose type the path says, as Segment's clients send it."""
        caller, body = await self._taken(request, MAX_CALL_BYTES)
        body = body.strip()
        try:
            _check_object(body)
        except Refusal as refusal:
            await self._auth.keep(request, caller, body, refusal.message)
            raise
        path = _last(request)
        comma = b"," if body[1:-1].strip() else b""
        event = b"%s%s%s" % (body[:-1], comma, _TYPES[_KINDS[path]])  # of two that say its type the last counts
        visit = self._enrichment.visit(request, event, short=len(path) == 1)
        receipt = await self._gathering.store(caller, event if visit is None else visit.event(event))
        self._auth.charge(caller, 1)
        if receipt.status == "rejected":
            json_object(body)  # 400 where that is because of numbers that do not exist
        return receipts_response([receipt])

    @operation(scope="write", body=_AnyBody, answer=BatchAnswer, refusals=[507])
    async def batch(self, request: Request) -> Response:
        """Many events, as Segment's clients send them. The good ones are stored."""
        caller, body = await self._taken(request, self._max_batch_bytes)
        _count(body)
        visit = self._enrichment.visit(request, body, short=len(_last(request)) == 1)
        sent = body if visit is None else visit.batch(body)
        try:
            receipts: list[Receipt] = await self._auth.object(caller).batch(
                sent, source="http", keep_refused=True, key=caller.key
            )
        except InvalidEvent as error:
            raise Refusal(400, "INVALID_JSON", error.reason) from None
        self._auth.charge(caller, len(receipts))
        if all(receipt.status == "rejected" for receipt in receipts):
            _check(body)
        return receipts_response(receipts)

    @operation(body={JSON: dict[str, Any], "text/plain": dict[str, Any]}, answer=Ignored, any_origin=True)
    async def metrics(self, request: Request) -> Response:
        """What analytics.js measures of itself: taken and thrown away, so that it does not send it again."""
        await self._body.read(request)
        return json_response(Ignored())

    @operation(scope="write", answer=Settings)
    async def settings(self, request: Request) -> Response:
        """What analytics.js asks for before it sends anything: to send it here."""
        key = request.path_params["write_key"]
        self._auth.admit(request, "write", write_key=key)
        here = request.base_url
        us = {"apiKey": key, "apiHost": f"{here.netloc}{here.path.rstrip('/')}/v1", "protocol": here.scheme}
        everything = {"enabled": True, "integrations": {}}
        found = Settings(
            integrations={"Segment.io": us},
            plan={name: {"__default": everything} for name in ("track", "identify", "group")},
            metrics={"sampleRate": 0},
        )
        return json_response(found)

    async def _taken(self, request: Request, most: int) -> tuple[Caller, bytes]:
        """Who sent it, and the body. Where a header says who, nothing of a stranger's is read.

        Raises:
            Refusal: 400 also where others say 413: SegmentRoutes does.
        """
        try:
            caller = self._auth.admit(request, "write") if _shows_key(request) else None
            body = await self._body.read(request)
            if body[:2] == _GZIP:  # RudderStack's client for Node may not say so, and no JSON begins like this
                body = _inflated(body, most)
            if len(body) > most:
                raise _too_large(most)
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


def _shows_key(request: Request) -> bool:
    return bool(header(request.scope, b"authorization") or header(request.scope, b"x-api-key"))


def _key_in(body: bytes) -> str | None:
    """The write key in a body, also in one of which not all can be read."""
    try:
        key = _keyed.decode(body).write_key
    except UNREADABLE:
        found = _KEY.search(body)
        return None if found is None else found[1].decode("ascii")
    return key if isinstance(key, str) else None


def _check_object(body: bytes) -> None:
    """400 for a body that is not a JSON object. That its numbers exist is not checked."""
    try:
        if not body.isascii():
            body.decode()
        _keyed.decode(body)
    except UNREADABLE as error:
        raise _invalid(error) from None


def _count(body: bytes) -> None:
    """Refuse a batch of too many. Nearly always a look at the commas is enough."""
    if body.count(b",") < MAX_BATCH_EVENTS:
        return
    try:
        found = len(_items.decode(body) if body[:1] == b"[" else _counted.decode(body).batch)
    except UNREADABLE:  # said better by those who take it apart; what cannot be read there is one event
        found = body.count(b'"type"')
    if found > MAX_BATCH_EVENTS:
        message = f"The batch has {found} events, the limit is {MAX_BATCH_EVENTS}"
        raise Refusal(400, "BATCH_TOO_LARGE", message, limit=MAX_BATCH_EVENTS)


def _check(body: bytes) -> None:
    """400 for a body of which nothing was taken because it is no JSON."""
    try:
        body.decode()
        msgspec.json.decode(body)
    except UNREADABLE as error:
        raise _invalid(error) from None


def _inflated(body: bytes, most: int) -> bytes:
    try:
        return decompress(body, "gzip", most)
    except TooLong:
        raise _too_large(most) from None
    except Corrupt as error:
        raise Refusal(400, "INVALID_ENCODING", f"The body is not the gzip that it begins as: {error}") from None


def _too_large(most: int) -> Refusal:
    return Refusal(_TOO_LARGE, "BODY_TOO_LARGE", f"The body has more than {most} bytes", limit=most)


def _invalid(error: Exception) -> Refusal:
    return Refusal(400, "INVALID_JSON", f"The body is not JSON: {error}")
