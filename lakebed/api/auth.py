"""Auth: the object that a request is for, whether its key allows it, and how much the key may send."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Collection
from typing import Any, Literal

import msgspec
from starlette.requests import HTTPConnection

from lakebed.api.errors import Refusal
from lakebed.auth.keys import Key, KeyCache, Keys, Limits, Scope
from lakebed.clock import Clock, SystemClock
from lakebed.objects.namespace import Namespace

__all__ = ["DEFAULT_LIMITS", "Auth", "Caller", "RateLimits", "Scope"]

DEFAULT_OBJECT = "default"
# Not Basic: on any page that has a tracking snippet, a browser would then ask its user for a password.
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="lakebed"'}
_HOW_TO_SEND = "Send it as `Authorization: Bearer KEY`, as the user name of Basic, or as X-API-Key"
# Far above what a busy site sends, and far below what one core stores: one runaway key leaves capacity for the others.
DEFAULT_LIMITS = Limits(requests_per_s=1_000, events_per_s=20_000, burst_s=5)

_Unit = Literal["requests", "events"]
_SLACK = 1_000  # buckets of deleted keys that may remain


class Caller(msgspec.Struct, frozen=True):
    """The sender of a request, as the key in the request describes it.

    Attributes:
        object: the name of the one object that the request may reach. A request cannot name another object.
        key: the id of the key; None while the server has no keys.
        scope: "read", "write" or "admin".
    """

    object: str
    key: str | None = None
    scope: Scope = "admin"


class _Bucket(msgspec.Struct):
    level: float
    filled_at: float


class RateLimits:
    """The remaining capacity of each key.

    A key has a bucket for requests and one for events; each fills at its rate up to `burst_s` seconds' worth. A request
    is admitted while the buckets it needs are above zero. Its cost is subtracted when known, even below zero: then the
    key waits until the bucket is above zero again. So the average holds for any batch size, no batch is too large
    forever, and the excess is at most the requests that were under way at once.

    Args:
        clock: its monotonic time fills the buckets.
        defaults: the limits of keys that have none of their own; None in a field means `DEFAULT_LIMITS`.
    """

    def __init__(self, clock: Clock, defaults: Limits = DEFAULT_LIMITS) -> None:
        set_fields = {name: value for name, value in msgspec.structs.asdict(defaults).items() if value is not None}
        self._defaults = msgspec.structs.replace(DEFAULT_LIMITS, **set_fields)
        self._clock = clock
        self._buckets: dict[tuple[str, _Unit], _Bucket] = {}

    def admit(self, key: Key, live: Collection[str], *, writes: bool) -> None:
        """Count one request of `key`.

        Args:
            live: the ids of existing keys; buckets of other keys are dropped when there are many of them.
            writes: whether the request stores events; if so, the bucket of events must be above zero too.

        Raises:
            Refusal: 429, a bucket of the key is empty.
        """
        if len(self._buckets) > 2 * len(live) + _SLACK:
            self._buckets = {name: bucket for name, bucket in self._buckets.items() if name[0] in live}
        if writes:
            self._check(key, "events")
        self._check(key, "requests")
        self._bucket(key, "requests").level -= 1

    def charge(self, key: Key, events: int) -> None:
        """Subtract `events` from the event bucket of `key`."""
        self._bucket(key, "events").level -= events

    def max_body_bytes(self, key: Key) -> int | None:
        """The largest body of `key` in bytes; None if only the server's own limit applies."""
        return key.limits.max_body_bytes or self._defaults.max_body_bytes

    def _check(self, key: Key, unit: _Unit) -> None:
        bucket, (rate, capacity) = self._bucket(key, unit), self._rate(key, unit)
        if bucket.level > 0:
            return
        # Wait for one whole unit, or for a full bucket: just above zero, the next request would be refused.
        wait_s = max(1, math.ceil((min(1.0, capacity) - bucket.level) / rate))
        raise Refusal(
            429,
            "RATE_LIMITED",
            f"This key's rate limit is reached ({rate:g} {unit} a second, {capacity:g} at once): retry in {wait_s} s",
            limit=rate,
            headers={
                "Retry-After": str(wait_s),
                "X-RateLimit-Limit": f"{capacity:.0f}",
                "X-RateLimit-Remaining": "0",
                "X-RateLimit-Reset": str(wait_s),
            },
        )

    def _bucket(self, key: Key, unit: _Unit) -> _Bucket:
        """The bucket of `key` for `unit`, filled for the time since the last call."""
        now, (rate, capacity) = self._clock.monotonic(), self._rate(key, unit)
        bucket = self._buckets.get((key.id, unit))
        if bucket is None:
            bucket = self._buckets[key.id, unit] = _Bucket(capacity, now)
        bucket.level = min(capacity, bucket.level + (now - bucket.filled_at) * rate)
        bucket.filled_at = now
        return bucket

    def _rate(self, key: Key, unit: _Unit) -> tuple[float, float]:
        own, general = key.limits, self._defaults
        rate = getattr(own, f"{unit}_per_s") or getattr(general, f"{unit}_per_s")
        return rate, rate * (own.burst_s or general.burst_s)


class Auth:
    """Authenticates every request that reaches an object.

    The object comes from the key alone. Until the first key is made there is one object, "default" or the served one;
    any request may do everything with it, and any write key is accepted.

    Args:
        target: a `Namespace`, or the one object that is served. Its keys are stored in its root.
        clock: fills the buckets of the rates, and decides when to check for changed keys.
        limits: the limits of a key that has none of its own.
    """

    def __init__(self, target: Any, clock: Clock | None = None, limits: Limits = DEFAULT_LIMITS) -> None:
        self.target = target
        clock = clock if clock is not None else SystemClock()
        self._keys = KeyCache(Keys(target.root, clock), clock)
        self._rates = RateLimits(clock, limits)

    @property
    def keyless(self) -> bool:
        """Whether every request is admitted, because no key was ever made. Such a server must listen on loopback only.

        Raises:
            KeysUnavailable, FormatTooNew: the keys cannot be read.
        """
        return not self._keys.required

    def admit(self, request: HTTPConnection, scope: Scope, *, write_key: str | None = None) -> Caller:
        """Return the sender of `request`, if its key allows `scope`, and count the request.

        Args:
            write_key: the key in the body, from clients that send no header. A header takes precedence.

        Raises:
            Refusal: 401 no key or an unknown one, 403 a key without this scope, 413 a body over the key's limit,
                429 too many requests or events.
            KeysUnavailable, FormatTooNew: the keys cannot be read.
        """
        if self.keyless:
            name = DEFAULT_OBJECT if isinstance(self.target, Namespace) else self.target.name
            return _remembered(request, Caller(name))
        token = _sent_key(request) or write_key
        if not token:
            raise Refusal(401, "KEY_MISSING", f"This request needs a key. {_HOW_TO_SEND}", headers=_CHALLENGE)
        key = self._keys.find(token)
        if key is None:
            message = f"This key is unknown, revoked or replaced: `lakebed keys create` makes a new one. {_HOW_TO_SEND}"
            raise Refusal(401, "KEY_UNKNOWN", message, headers=_CHALLENGE)
        self._check(key, scope)
        self._rates.admit(key, self._keys.ids, writes=scope == "write")
        caller = Caller(key.object, key.id, key.scope)
        length = request.headers.get("content-length", "")
        self.weigh(caller, int(length) if length.isascii() and length.isdecimal() else 0)
        return _remembered(request, caller)

    def _check(self, key: Key, scope: Scope) -> None:
        if key.scope not in (scope, "admin"):
            message = f"This is a {key.scope} key. Use one that may {scope}: `lakebed keys create {scope}` makes it"
            raise Refusal(403, "WRONG_SCOPE", message, scope=key.scope, needs=scope)
        if not isinstance(self.target, Namespace) and key.object != self.target.name:
            message = "This server does not serve the object of this key. Send the request to the server that does"
            raise Refusal(403, "WRONG_OBJECT", message)

    def weigh(self, caller: Caller, size: int) -> None:
        """Check the decompressed size of a body against the limit of its key.

        Raises:
            Refusal: 413, the body is over the limit.
        """
        key = self._keys.get(caller.key)
        limit = None if key is None else self._rates.max_body_bytes(key)
        if limit is not None and size > limit:
            message = f"The body has {size} bytes, this key may send {limit}: send fewer events at once"
            raise Refusal(413, "BODY_TOO_LARGE", message, limit=limit)

    def charge(self, caller: Caller, events: int) -> None:
        """Count events received from `caller`. Above the rate of its key, later requests are refused for a while."""
        key = self._keys.get(caller.key)
        if key is not None:
            self._rates.charge(key, events)

    async def keep(self, request: HTTPConnection, caller: Caller | None, body: bytes, reason: str) -> None:
        """Keep a body that cannot be decoded as a dead letter, if the headers alone identify the sender.

        Args:
            caller: the sender; None if the headers have not been checked yet.
        """
        try:
            caller = caller if caller is not None else self.admit(request, "write")
        except Refusal:
            return
        await self.object(caller).refuse(body, reason, source="http", key=caller.key)
        self.charge(caller, 1)

    def object(self, caller: Caller) -> Any:
        """The object of `caller`, for writing: created if it does not exist. In a namespace, a handle of it."""
        return self.target.handle(caller.object) if isinstance(self.target, Namespace) else self.target

    def existing(self, caller: Caller) -> Any:
        """The object of `caller`, for reading.

        Raises:
            Refusal: 404, the object does not exist.
        """
        if isinstance(self.target, Namespace) and not self.target.exists(caller.object):
            raise Refusal(404, "NOT_FOUND", f"There is no object {caller.object!r}", object=caller.object)
        return self.object(caller)


def _remembered(request: HTTPConnection, caller: Caller) -> Caller:
    """Store `caller` in the request's scope, for the access log, and return it."""
    request.scope["lakebed.caller"] = caller
    return caller


def _sent_key(request: HTTPConnection) -> str | None:
    """The key in a request's headers. `Authorization` takes precedence, also with an invalid key."""
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
