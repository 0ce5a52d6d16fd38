"""Enrichment: fields that the server adds to the context of events from browsers and phones."""

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
from lakebed.api.enrichment.client_ip import Address, TrustedProxies, address_of, stored_address
from lakebed.api.enrichment.geoip import GeoIp
from lakebed.api.enrichment.user_agent import can_parse_user_agents, parse_user_agent
from lakebed.events.event import EMPTY, MAX_EVENT_BYTES

__all__ = ["ClientRequest", "Enrichment"]

_LOCALE = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8}){0,3}(?=[,;\s]|$)")
_MAX_AGENT = 512
_MAX_URL = 4_096
_MAX_VALUE = 256
_MAX_PARAMETERS = 100
_UTM = "utm_"


class _Body(msgspec.Struct, rename="camel"):
    """A batch. It has every field that the log stores."""

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
    """Adds fields to the context of events that the sender did not set: address, user agent, location and more.

    It is for client-side events only: SegmentRoutes decides which events are. A field that the client sent stays as
    it is, byte for byte. An event that would become too large is not changed. No input makes it fail.

    Args:
        ip: stored part of the sender's address: "whole", "truncated" (a.b.c.0, or the /48 of IPv6) or "none". A
            `context.ip` that the client sent stays.
        trusted_proxies: addresses and networks of proxies whose `X-Forwarded-For` is used.
        places: path of a MaxMind file. The whole address is looked up, also if less of it is stored.

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

    def client_request(self, request: HTTPConnection) -> ClientRequest:
        """The fields that the connection and headers of `request` give."""
        address = self._proxies.client_address(request)
        fields: dict[str, Any] = {}
        if address is not None and (ip := stored_address(address, self._ip)):
            fields["ip"] = ip
        if agent := request.headers.get("user-agent", "")[:_MAX_AGENT]:
            fields["userAgent"] = agent
        if locale := _LOCALE.match(request.headers.get("accept-language", "")):
            fields["locale"] = locale[0]
        return ClientRequest(fields, address, self._places)


class ClientRequest:
    """One request from a browser or phone.

    Args:
        fields: fields of the context, taken from the connection and headers.
        address: address of the client, for its location.
        places: locations of addresses.
    """

    def __init__(self, fields: dict[str, Any], address: Address | None, places: GeoIp | None) -> None:
        self._fields = fields
        self._address = address
        self._places = places
        self._contexts: dict[bytes, bytes] = {}  # events of a batch often have the same context

    def event(self, event: bytes, shared: dict[str, Any] | None = None) -> bytes:
        """`event`, a JSON object, with more fields in its context; unchanged if it is invalid or would be too large."""
        try:
            raw = bytes(_item.decode(event).context)
        except UNREADABLE:
            return event
        context = self._contexts.get(raw)
        if context is None:
            context = self._contexts[raw] = self._context(raw, shared or {})
        if not context or len(event) + len(context) > MAX_EVENT_BYTES:
            return event
        # Of two equal keys the last one counts.
        comma = b"," if event[1:-1].strip() else b""
        return b'%s%s"context":%s}' % (event[:-1], comma, context)

    def batch(self, body: bytes) -> bytes:
        """`body`, an envelope or an array, with more in the context of each event; unchanged if it is invalid."""
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
        """The context `raw` with added fields; empty if there is nothing to add."""
        try:
            context = _any.decode(raw) if raw != b"null" else {}
        except UNREADABLE:
            return b""
        if not isinstance(context, dict):
            return b""
        added = self._added(shared | context)
        if not added:
            return b""
        more = msgspec.json.encode(added)
        return raw[:-1] + b"," + more[1:] if context else more

    def _added(self, context: dict[str, Any]) -> dict[str, Any]:
        added = {name: value for name, value in self._fields.items() if name not in context}
        agent = context.get("userAgent", self._fields.get("userAgent"))
        if isinstance(agent, str) and agent and can_parse_user_agents():
            added |= {name: value for name, value in parse_user_agent(agent).items() if name not in context}
        page = context.get("page")
        if isinstance(page, dict):
            url, referrer = _url(page.get("url")), _url(page.get("referrer"))
            if "campaign" not in context and (campaign := _campaign(url or _url(page.get("search")))):
                added["campaign"] = campaign
            if "referrer" not in context and referrer and (host := _host(referrer)) and host != _host(url):
                added["referrer"] = {"name": host, "url": referrer}
        if "location" not in context and (place := self._place(context.get("ip"))):
            added["location"] = place
        return added

    def _place(self, ip: Any) -> dict[str, Any] | None:
        address = address_of(ip) if isinstance(ip, str) else self._address
        return None if address is None or self._places is None else self._places.of(address)


def _url(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= _MAX_URL else ""


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").removeprefix("www.")
    except ValueError:
        return ""


def _campaign(url: str) -> dict[str, str]:
    """The utm parameters in Segment's names: `utm_campaign` becomes `name`, the others lose their prefix."""
    query = url.partition("#")[0].partition("?")[2]
    if _UTM not in query:
        return {}
    try:
        parameters = parse_qsl(query, max_num_fields=_MAX_PARAMETERS)
    except ValueError:  # more than _MAX_PARAMETERS
        return {}
    campaign = {key.removeprefix(_UTM): value[:_MAX_VALUE] for key, value in parameters if key.startswith(_UTM)}
    return {"name" if key == "campaign" else key[:_MAX_VALUE]: value for key, value in campaign.items() if key}
