"""Gate: which object a request is for, and whether its sender may do what it asks."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from starlette.requests import HTTPConnection

from lakebed.api.errors import Refusal
from lakebed.namespace import Namespace

__all__ = ["Caller", "Gate", "Scope"]

OBJECT_HEADER = "X-Lakebed-Object"
DEFAULT_OBJECT = "default"

Scope = Literal["write", "read", "admin"]


class Caller(msgspec.Struct, frozen=True):
    """Who sent a request.

    Attributes:
        object: the name of the object that it may reach. There is no other way to name one.
        key: the id of the key that it showed; None where the server has no keys.
    """

    object: str
    key: str | None = None


class Gate:
    """Stands before every route that touches an object.

    Args:
        target: a `Namespace`, or the one object that is served.
    """

    def __init__(self, target: Any) -> None:
        self.target = target

    @property
    def keyless(self) -> bool:
        """Whether everybody is let in, because no key was ever made: then it must be reached from this machine only."""
        return True

    def admit(self, request: HTTPConnection, scope: Scope, *, write_key: str | None = None) -> Caller:
        """Who sent `request`, if they may do what `scope` says.

        Args:
            write_key: what the body says, for clients that send no header.

        Raises:
            Refusal: 401 no key or an unknown one, 403 a key without this scope, 404 no such object.
        """
        del scope, write_key  # there are no keys yet: everybody may do everything
        name = request.headers.get(OBJECT_HEADER) or request.query_params.get("object") or DEFAULT_OBJECT
        if not isinstance(self.target, Namespace) and name not in (self.target.name, DEFAULT_OBJECT):
            raise Refusal(404, "NOT_FOUND", f"This server serves one object, and it is not {name!r}", object=name)
        request.scope["lakebed.caller"] = Caller(name)  # for who watches
        return Caller(name)

    def object(self, caller: Caller) -> Any:
        """The object of `caller`, to write to: made if it does not exist. A stub, or the object itself."""
        return self.target.get(caller.object) if isinstance(self.target, Namespace) else self.target

    def existing(self, caller: Caller) -> Any:
        """The object of `caller`, to read from.

        Raises:
            Refusal: 404, nothing was ever written to it.
        """
        if isinstance(self.target, Namespace) and not self.target.exists(caller.object):
            raise Refusal(404, "NOT_FOUND", f"There is no object {caller.object!r}", object=caller.object)
        return self.object(caller)
