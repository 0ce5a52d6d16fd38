"""Enrichment: what a server can add to the context of events that come straight from a person's device."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec
from msgspec import Raw, UnsetType
from starlette.requests import HTTPConnection

from lakebed.api.body import UNREADABLE
from lakebed.api.enrichment.client_ip import Address, TrustedProxies, address_of, kept
from lakebed.api.enrichment.geoip import GeoIp
from lakebed.api.enrichment.user_agent import can_parse_user_agents, parse_user_agent
from lakebed.api.middleware import header
from lakebed.events.event import EMPTY, MAX_EVENT_BYTES

__all__ = ["ClientRequest", "Enrichment"]

# The libraries that run on a person's device, by how their names begin. All others run on somebody's server, whose
# address and agent say nothing of the person.
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
_MAX_LIBRARIES = 20  # that are looked at: properties may be called so, too
_LOCALE = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8}){0,3}(?=[,;\s]|$)")
_MAX_AGENT = 512
_MAX_URL = 4_096
_MAX_VALUE = 256
_MAX_PARAMETERS = 100
_UTM = "utm_"


class _Body(msgspec.Struct, rename="camel"):
    """A batch. All that is kept is in it."""

    batch: list[Raw]
    sent_at: Raw | UnsetType = msgspec.UNSET
    context: Raw = EMPTY


class _Item(msgspec.Struct):
    context: Raw = EMPTY


_log = logging.getLogger("lakebed.api")
_body = msgspec.json.Decoder(_Body)
_items = msgspec.json.Decoder(list[Raw])
_item = msgspec.json.Decoder(_Item)
_any = msgspec.json.Decoder()


class Enrichment:
    """Adds to the context of client-side events what their senders could not know or did not say; never to others.

    Client-side is what comes by the browser's short paths, or with an `Origin` header, or whose first event names a
    library of browsers or phones. What the client said stays as it is, byte for byte: a field is added only where it
    said nothing of it. An event that would become too large is left alone. Nothing here fails, whatever is sent.

    Args:
        ip: what is stored of the sender's address: "whole", "truncated" (a.b.c.0, or the /48 of IPv6) or "none". What a
            client says in `context.ip` stays.
        trusted_proxies: whose `X-Forwarded-For` is believed: addresses and networks.
        places: a MaxMind file. The whole address is looked up, whatever is stored of it.

    Raises:
        InvalidSettings: the file or an address cannot be read.
    """

    def __init__(
        self,
        *,
        ip: Literal["whole", "truncated", "none"] = "whole",
        trusted_proxies: Sequence[str] = (),
        places: Path | None = None,
    ) -> None:
        self._ip = ip
        self._proxies = TrustedProxies(trusted_proxies)
        self._places = None if places is None else GeoIp(places)
        if not can_parse_user_agents():
            _log.warning("browser, os and device are not added to events: pip install 'lakebed[enrichment]'")

    def visit(self, request: HTTPConnection, body: bytes, *, short: bool) -> ClientRequest | None:
        """Who sent `body`, if it is client-side.

        Args:
            short: it came by a path that only browsers' libraries use.
        """
        if not (short or header(request.scope, b"origin") or _is_client_side(body)):
            return None
        address = self._proxies.origin(request)
        said: dict[str, Any] = {}
        if address is not None and (ip := kept(address, self._ip)):
            said["ip"] = ip
        if agent := request.headers.get("user-agent", "")[:_MAX_AGENT]:
            said["userAgent"] = agent
        if locale := _LOCALE.match(request.headers.get("accept-language", "")):
            said["locale"] = locale[0]
        return ClientRequest(said, address, self._places)


class ClientRequest:
    """One request of a person's device.

    Args:
        said: the fields of the context that the connection tells.
        address: where it came from.
    """

    def __init__(self, said: dict[str, Any], address: Address | None, places: GeoIp | None) -> None:
        self._said = said
        self._address = address
        self._places = places
        self._contexts: dict[bytes, bytes] = {}  # those of one batch are often the same

    def event(self, event: bytes, shared: dict[str, Any] | None = None) -> bytes:
        """`event`, a JSON object, with more in its context; as it is where it cannot be read or would be too large."""
        try:
            raw = bytes(_item.decode(event).context)
        except UNREADABLE:
            return event
        context = self._contexts.get(raw)
        if context is None:
            context = self._contexts[raw] = self._context(raw, shared or {})
        if not context or len(event) + len(context) > MAX_EVENT_BYTES:
            return event
        # The last of two keys counts.
        comma = b"," if event[1:-1].strip() else b""
        return b'%s%s"context":%s}' % (event[:-1], comma, context)

    def batch(self, body: bytes) -> bytes:
        """`body`, an envelope or an array, with more in the context of each of its events."""
        try:
            text = body.strip()
            envelope = _Body(_items.decode(text)) if text[:1] == b"[" else _body.decode(text)
            shared = _any.decode(envelope.context)
        except UNREADABLE:
            return body
        shared = shared if isinstance(shared, dict) else {}
        envelope.batch = [Raw(self.event(bytes(event), shared)) for event in envelope.batch]
        return msgspec.json.encode(envelope)

    def _context(self, raw: bytes, shared: dict[str, Any]) -> bytes:
        """The context `raw` and what can be added to it; empty if nothing can."""
        try:
            said = _any.decode(raw) if raw != b"null" else {}
        except UNREADABLE:
            return b""
        if not isinstance(said, dict):
            return b""
        added = self._added(shared | said)
        if not added:
            return b""
        more = msgspec.json.encode(added)
        return raw[:-1] + b"," + more[1:] if said else more

    def _added(self, said: dict[str, Any]) -> dict[str, Any]:
        added = {name: value for name, value in self._said.items() if name not in said}
        agent = said.get("userAgent", self._said.get("userAgent"))
        if isinstance(agent, str) and agent and can_parse_user_agents():
            added |= {name: value for name, value in parse_user_agent(agent).items() if name not in said}
        page = said.get("page")
        if isinstance(page, dict):
            url, referrer = _url(page.get("url")), _url(page.get("referrer"))
            if "campaign" not in said and (campaign := _campaign(url or _url(page.get("search")))):
                added["campaign"] = campaign
            if "referrer" not in said and referrer and (host := _host(referrer)) and host != _host(url):
                added["referrer"] = {"name": host, "url": referrer}
        if "location" not in said and (place := self._place(said.get("ip"))):
            added["location"] = place
        return added

    def _place(self, ip: Any) -> dict[str, Any] | None:
        address = address_of(ip) if isinstance(ip, str) else self._address
        return None if address is None or self._places is None else self._places.of(address)


def _is_client_side(body: bytes) -> bool:
    at = -1
    for _ in range(_MAX_LIBRARIES):
        at = body.find(b'"library"', at + 1)
        found = _LIBRARY.match(body, at) if at != -1 else None
        if found is not None:
            return body[found.end() : found.end() + _LONGEST_NAME].startswith(_CLIENT_SIDE)
    return False


def _url(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= _MAX_URL else ""


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").removeprefix("www.")
    except ValueError:
        return ""


def _campaign(url: str) -> dict[str, str]:
    """Segment's names: `utm_campaign` is the name, all other utm parameters keep theirs."""
    query = url.partition("#")[0].partition("?")[2]
    if _UTM not in query:
        return {}
    try:
        found = parse_qsl(query, max_num_fields=_MAX_PARAMETERS)
    except ValueError:  # more fields than that
        return {}
    said = {key.removeprefix(_UTM): value[:_MAX_VALUE] for key, value in found if key.startswith(_UTM)}
    return {"name" if key == "campaign" else key[:_MAX_VALUE]: value for key, value in said.items() if key}
