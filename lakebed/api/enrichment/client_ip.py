"""Client addresses: the address behind trusted proxies, and the part of it that is stored."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Literal

from starlette.requests import HTTPConnection

from lakebed.errors import InvalidSettings

__all__ = ["Address", "TrustedProxies", "address_of", "stored_address"]

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
                f"a trusted proxy is an address or a network: {error}", hint='Such as "127.0.0.1" or "10.0.0.0/8"'
            ) from None

    def client_address(self, request: HTTPConnection) -> Address | None:
        """The nearest address that is not a trusted proxy's; None if the connection has none, as on a Unix socket."""
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
    """The address in `text`; None if it has another form. IPv4 that is written as IPv6 becomes IPv4."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
