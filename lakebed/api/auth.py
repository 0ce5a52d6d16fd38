"""Gate: which object a request is for, and whether its sender may do what it asks."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec
from starlette.requests import HTTPConnection

from lakebed.api.errors import Refusal
from lakebed.api.rate_limits import DEFAULT_LIMITS, RateLimits
from lakebed.auth.key_cache import KeyCache
from lakebed.auth.keys import Key, Keys, Limits, Scope
from lakebed.clock import Clock, SystemClock
from lakebed.objects.namespace import Namespace

__all__ = ["Auth", "Caller", "Scope"]

DEFAULT_OBJECT = "default"
# Not Basic: with that a browser asks its user for a password, on whatever page a tracking snippet is in.
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="lakebed"'}
_HOW = "Send it as `Authorization: Bearer KEY`, as the user name of Basic, or as X-API-Key"


class Caller(msgspec.Struct, frozen=True):
    """Who sent a request.

    Attributes:
        object: the name of the object that it may reach. There is no other way to name one.
        key: the id of the key that it showed; None where the server has no keys.
        scope: what it may do.
    """

    object: str
    key: str | None = None
    scope: Scope = "admin"


class Auth:
    """Stands before every route that touches an object.

    The object comes from the key alone. Where no key was ever made there is one object, "default" or the one that is
    served, everybody may do everything with it, and any write key is taken.

    Args:
        target: a `Namespace`, or the one object that is served. Its keys lie in its root.
        clock: fills the buckets of rates, and says when to look for changed keys.
        limits: what a key may send that has no limits of its own.
    """

    def __init__(self, target: Any, clock: Clock | None = None, limits: Limits = DEFAULT_LIMITS) -> None:
        self.target = target
        clock = clock if clock is not None else SystemClock()
        self._ring = KeyCache(Keys(target.root, clock), clock)
        self._rates = RateLimits(clock, limits)

    @property
    def keyless(self) -> bool:
        """Whether everybody is let in, because no key was ever made: then it must be reached from this machine only.

        Raises:
            KeysUnavailable, FormatTooNew: nobody knows.
        """
        return not self._ring.required

    def admit(self, request: HTTPConnection, scope: Scope, *, write_key: str | None = None) -> Caller:
        """Who sent `request`, if they may do what `scope` says. Counts the request.

        Args:
            write_key: what the body says, for clients that send no header. A header goes before it.

        Raises:
            Refusal: 401 no key or an unknown one, 403 a key without this scope, 413 a body over the key's limit,
                429 too many requests or events.
            KeysUnavailable, FormatTooNew: nobody is let in.
        """
        if self.keyless:
            name = DEFAULT_OBJECT if isinstance(self.target, Namespace) else self.target.name
            return _known(request, Caller(name))
        token = _shown(request) or write_key
        if not token:
            raise Refusal(401, "KEY_MISSING", f"This needs a key. {_HOW}", headers=_CHALLENGE)
        key = self._ring.find(token)
        if key is None:
            message = f"This key is unknown, revoked or replaced: `lakebed keys create` makes a new one. {_HOW}"
            raise Refusal(401, "KEY_UNKNOWN", message, headers=_CHALLENGE)
        self._check(key, scope)
        self._rates.admit(key, self._ring.ids, writes=scope == "write")
        caller = Caller(key.object, key.id, key.scope)
        length = request.headers.get("content-length", "")
        self.weigh(caller, int(length) if length.isascii() and length.isdecimal() else 0)
        return _known(request, caller)

    def _check(self, key: Key, scope: Scope) -> None:
        if key.scope not in (scope, "admin"):
            message = f"This is a {key.scope} key. Use one that may {scope}: `lakebed keys create {scope}` makes it"
            raise Refusal(403, "WRONG_SCOPE", message, scope=key.scope, needs=scope)
        if not isinstance(self.target, Namespace) and key.object != self.target.name:
            message = "This server does not serve the object of this key. Send it to the one that does"
            raise Refusal(403, "WRONG_OBJECT", message)

    def weigh(self, caller: Caller, size: int) -> None:
        """Check a body's size, inflated, against what its sender's key may send.

        Raises:
            Refusal: 413.
        """
        key = self._ring.get(caller.key)
        limit = None if key is None else self._rates.max_body_bytes(key)
        if limit is not None and size > limit:
            message = f"The body has {size} bytes, this key may send {limit}: send fewer events at once"
            raise Refusal(413, "BODY_TOO_LARGE", message, limit=limit)

    def charge(self, caller: Caller, events: int) -> None:
        """Count events that were received from `caller`: if they are more than it may send, its next requests wait."""
        key = self._ring.get(caller.key)
        if key is not None:
            self._rates.charge(key, events)

    async def keep(self, request: HTTPConnection, caller: Caller | None, body: bytes, reason: str) -> None:
        """Keep a body that cannot be read as a dead letter, if it is known without it who sent it.

        Args:
            caller: where that was found out already.
        """
        try:
            caller = caller if caller is not None else self.admit(request, "write")
        except Refusal:
            return
        await self.object(caller).refuse(body, reason, source="http", key=caller.key)
        self.charge(caller, 1)

    def object(self, caller: Caller) -> Any:
        """The object of `caller`, to write to: made if it does not exist. A handle, or the object itself."""
        return self.target.handle(caller.object) if isinstance(self.target, Namespace) else self.target

    def existing(self, caller: Caller) -> Any:
        """The object of `caller`, to read from.

        Raises:
            Refusal: 404, nothing was ever written to it.
        """
        if isinstance(self.target, Namespace) and not self.target.exists(caller.object):
            raise Refusal(404, "NOT_FOUND", f"There is no object {caller.object!r}", object=caller.object)
        return self.object(caller)


def _known(request: HTTPConnection, caller: Caller) -> Caller:
    """`caller`, kept with its request for the line in the log."""
    request.scope["lakebed.caller"] = caller
    return caller


def _shown(request: HTTPConnection) -> str | None:
    """The key that a request's headers show. One that they name first counts, also when it is a bad one."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        return _user_name(value)
    return request.headers.get("x-api-key")


def _user_name(basic: str) -> str:
    try:
        return base64.b64decode(basic.strip(), validate=True).decode().partition(":")[0]
    except (binascii.Error, UnicodeDecodeError):
        return ""
