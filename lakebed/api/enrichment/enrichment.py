"""Enrichment: fields that the server adds to the context of browsers' events: address, place, browser and system."""

from __future__ import annotations

import importlib.util
import ipaddress
import logging
import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

import msgspec
from msgspec import Raw, UnsetType
from starlette.requests import HTTPConnection

from lakebed.api.body import UNREADABLE
from lakebed.errors import InvalidSettings
from lakebed.events.event import EMPTY, MAX_EVENT_BYTES

__all__ = ["Enrichment", "TrustedProxies", "parse_user_agent"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_MAX_HOPS = 20
_NETWORK_BITS = {4: 24, 6: 48}


class TrustedProxies:
    """The proxies whose `X-Forwarded-For` is used. From any other address the header may be forged.

    Args:
        trusted: addresses and networks ("10.0.0.0/8").

    Raises:
        InvalidSettings: an entry is neither an address nor a network.
    """

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        try:
            self._networks = [ipaddress.ip_network(text) for text in trusted]
        except ValueError as error:
            raise InvalidSettings(
                f"a trusted proxy is not valid: {error}", hint='Write it as "127.0.0.1" or "10.0.0.0/8"'
            ) from None

    def client_address(self, request: HTTPConnection) -> Address | None:
        """The nearest address that is no trusted proxy's; None if the connection has no address (a Unix socket)."""
        nearest = address_of(request.client.host if request.client else "")
        if not self._networks or nearest is None or not self._trusts(nearest):
            return nearest
        hops = ",".join(request.headers.getlist("x-forwarded-for")).rsplit(",", _MAX_HOPS)
        for hop in reversed(hops[-_MAX_HOPS:]):
            address = address_of(hop.strip())
            if address is None:
                break
            nearest = address
            if not self._trusts(nearest):
                break
        return nearest

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def stored_address(address: Address, part: Literal["whole", "truncated", "none"]) -> str | None:
    """The stored part of an address; truncated, it is the network of 256 addresses (IPv6: the /48) around it."""
    if part == "none":
        return None
    if part == "whole":
        return str(address)
    return str(ipaddress.ip_network((address, _NETWORK_BITS[address.version]), strict=False).network_address)


def address_of(text: str) -> Address | None:
    """The address in `text`; None if `text` has another form. IPv4 that is written as IPv6 becomes IPv4."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


_MAX_TEXT = 512  # characters that are parsed; real user agents have up to 300
_CACHED = 2_048


@cache
def can_parse_user_agents() -> bool:
    """Whether the parser of user agents is installed.

    The parser is imported for the first event of a browser, not when the server starts: the import takes an eighth of a
    second and 25 MB, which a server without browsers never needs.
    """
    return importlib.util.find_spec("ua_parser") is not None


@lru_cache(1)
def _resolver() -> Callable[[str], Any]:
    from ua_parser import Domain
    from ua_parser.loaders import load_lazy_builtins
    from ua_parser.regex import Resolver

    resolver = Resolver(load_lazy_builtins())
    return lambda text: resolver(text, Domain.ALL)


def parse_user_agent(text: str) -> dict[str, Any]:
    """The fields `browser`, `os` and `device` of Segment's context, as far as `text` has them.

    A call takes 0.1 to 0.5 ms, linear in the length of `text` (the expressions have no backtracking). The newest few
    thousand results are cached. The caller must not change the result.

    Raises:
        ImportError: the extra `enrichment` is not installed.
    """
    return _parsed(text[:_MAX_TEXT])


@lru_cache(_CACHED)
def _parsed(text: str) -> dict[str, Any]:
    parsed = _resolver()(text)
    fields: dict[str, Any] = {}
    if parsed.user_agent is not None:
        fields["browser"] = _name_and_version(parsed.user_agent)
    if parsed.os is not None:
        fields["os"] = _name_and_version(parsed.os)
    device = parsed.device
    if device is not None:
        names = {"manufacturer": device.brand, "model": device.model, "name": device.family}
        fields["device"] = {name: value for name, value in names.items() if value}
    return fields


def _name_and_version(part: Any) -> dict[str, str]:
    version = ".".join(number for number in (part.major, part.minor, part.patch) if number)
    return {"name": part.family, "version": version} if version else {"name": part.family}


class GeoIp:
    """A `.mmdb` file of cities or countries (GeoLite2, GeoIP2, DB-IP).

    Raises:
        InvalidSettings: the file is missing or is not a MaxMind file, or the extra is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import maxminddb
        except ImportError:
            hint = "pip install 'lakebed[enrichment]'"
            raise InvalidSettings("locations of addresses need the package maxminddb", hint=hint, path=path) from None
        self._invalid = maxminddb.InvalidDatabaseError
        try:
            self._reader = maxminddb.open_database(path, maxminddb.MODE_AUTO)
        except (OSError, maxminddb.InvalidDatabaseError) as error:
            raise InvalidSettings(f"{path} cannot be read as a MaxMind file: {error}", path=path) from None

    def of(self, address: Address) -> dict[str, Any] | None:
        """Segment's `location`: city, region, country (its ISO code), latitude and longitude, as far as known."""
        try:
            record: Any = self._reader.get(address)
        except (ValueError, self._invalid):  # an IPv6 address in a file of IPv4, or a damaged record
            return None
        if not isinstance(record, dict):
            return None
        regions = record.get("subdivisions")
        country = record.get("country")
        place = record.get("location")
        place = place if isinstance(place, dict) else {}
        location = {
            "city": _english(record.get("city")),
            "region": _english(regions[0]) if isinstance(regions, list) and regions else None,
            "country": country.get("iso_code") if isinstance(country, dict) else None,
            "latitude": place.get("latitude"),
            "longitude": place.get("longitude"),
        }
        return {name: value for name, value in location.items() if isinstance(value, (str, float, int))} or None

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def _english(record: Any) -> Any:
    names = record.get("names") if isinstance(record, dict) else None
    return names.get("en") if isinstance(names, dict) else None


_LOCALE = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8}){0,3}(?=[,;\s]|$)")
_MAX_AGENT = 512
_MAX_URL = 4_096
_MAX_VALUE = 256
_MAX_PARAMETERS = 100
_UTM = "utm_"


class _Body(msgspec.Struct, rename="camel"):
    """The envelope of a batch, with every field that the log stores."""

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

    Only client-side events are enriched: `SegmentRoutes` decides which these are. A field that the client sent stays as
    it is, byte for byte. An event that would become too large is not changed. No input raises an error.

    Args:
        ip: stored part of the sender's address: "whole", "truncated" (a.b.c.0, or the /48 of IPv6) or "none". A
            `context.ip` that the client sent stays.
        trusted_proxies: addresses and networks of proxies whose `X-Forwarded-For` is used.
        places: path of a MaxMind file. The whole address is looked up, even if only a part is stored.

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
        self._contexts: dict[bytes, bytes] = {}  # by the context as sent: events of a batch often share one

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
        # The added `context` replaces the one that was sent: of two equal keys, JSON readers use the last.
        comma = b"," if event[1:-1].strip() else b""
        return b'%s%s"context":%s}' % (event[:-1], comma, context)

    def batch(self, body: bytes) -> bytes:
        """`body`, an envelope or an array, with more fields in each event's context; unchanged if it is invalid."""
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
