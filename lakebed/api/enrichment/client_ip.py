"""Origin: the address that a request really comes from, and how much of it is kept."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Literal

from starlette.requests import HTTPConnection

from lakebed.errors import InvalidSettings

__all__ = ["Address", "TrustedProxies", "address_of", "kept"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_MAX_HOPS = 20
_KEPT_BITS = {4: 24, 6: 48}


class TrustedProxies:
    """The proxies whose word counts.

    Args:
        trusted: addresses and networks ("10.0.0.0/8"). What others say in `X-Forwarded-For` anybody can say.

    Raises:
        InvalidSettings: one of them is neither.
    """

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        try:
            self._networks = [ipaddress.ip_network(one) for one in trusted]
        except ValueError as error:
            raise InvalidSettings(
                f"a trusted proxy is an address or a network: {error}", hint='Such as "127.0.0.1" or "10.0.0.0/8"'
            ) from None

    def origin(self, request: HTTPConnection) -> Address | None:
        """The nearest address that is not a trusted proxy's; None where there is none, as on a Unix socket."""
        at = address_of(request.client.host if request.client else "")
        if not self._networks or at is None or not self._trusts(at):
            return at
        hops = ",".join(request.headers.getlist("x-forwarded-for")).rsplit(",", _MAX_HOPS)
        for hop in reversed(hops[-_MAX_HOPS:]):
            found = address_of(hop.strip())
            if found is None:
                break
            at = found
            if not self._trusts(at):
                break
        return at

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def kept(address: Address, how: Literal["whole", "truncated", "none"]) -> str | None:
    """What is stored of an address; truncated, the network of 256 addresses (IPv6: the /48) that it lies in."""
    if how == "none":
        return None
    if how == "whole":
        return str(address)
    return str(ipaddress.ip_network((address, _KEPT_BITS[address.version]), strict=False).network_address)


def address_of(text: str) -> Address | None:
    """The address that `text` is; None if it is none. IPv4 that is written as IPv6 is IPv4."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found
