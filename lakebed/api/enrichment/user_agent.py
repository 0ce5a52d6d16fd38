"""User agents: what a browser says of itself, as fields."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from ua_parser import Domain
from ua_parser.loaders import load_lazy_builtins
from ua_parser.regex import Resolver

__all__ = ["parse_agent"]

_MAX_TEXT = 512  # characters that are looked at; real ones have up to 300
_KEPT = 2_048


@lru_cache(1)
def _resolver() -> Resolver:
    """An eighth of a second and 25 MB: only a server that browsers talk to pays it, with the first of them."""
    return Resolver(load_lazy_builtins())


def parse_agent(text: str) -> dict[str, Any]:
    """The fields `browser`, `os` and `device` of Segment's context, of those that `text` tells.

    Costs 0.1 to 0.5 ms, growing with its length and no faster (the expressions have no backtracking); the newest few
    thousand are remembered. The caller must not change what it gets.
    """
    return _parsed(text[:_MAX_TEXT])


@lru_cache(_KEPT)
def _parsed(text: str) -> dict[str, Any]:
    found = _resolver()(text, Domain.ALL)
    fields: dict[str, Any] = {}
    if found.user_agent is not None:
        fields["browser"] = _named(found.user_agent)
    if found.os is not None:
        fields["os"] = _named(found.os)
    device = found.device
    if device is not None:
        said = {"manufacturer": device.brand, "model": device.model, "name": device.family}
        fields["device"] = {name: value for name, value in said.items() if value}
    return fields


def _named(found: Any) -> dict[str, str]:
    version = ".".join(part for part in (found.major, found.minor, found.patch) if part)
    return {"name": found.family, "version": version} if version else {"name": found.family}
