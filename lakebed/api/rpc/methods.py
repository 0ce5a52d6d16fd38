"""Surface: what a caller may reach by RPC, by name and by the scope of its key. What is not listed does not exist."""

from __future__ import annotations

import inspect
import operator
import typing
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import HTTPConnection

from lakebed.analytics import Analytics
from lakebed.api.auth import Auth, Caller, Scope
from lakebed.api.errors import Refusal
from lakebed.api.rpc.watches import Watches
from lakebed.errors import AccessDenied, InvalidEvent, Unreachable
from lakebed.events.event import Receipt
from lakebed.interface.signature import Signature
from lakebed.objects.namespace import Namespace
from lakebed.reports.catalog import REPORTS, signature_of
from lakebed.rpc.capnweb.exported_object import Target, camel
from lakebed.rpc.capnweb.imports import Remote

__all__ = ["VERBS", "RpcMethods"]

VERBS: Mapping[str, Scope] = {
    "track": "write",
    "page": "write",
    "screen": "write",
    "identify": "write",
    "group": "write",
    "alias": "write",
    "batch": "write",
    "flush": "write",
    "counters.incr": "write",
    "stats": "read",
    "pulse": "read",
    "tiers": "read",
    "dau": "read",
    "wau": "read",
    "mau": "read",
    "timeseries": "read",
    "query": "read",
    "template": "read",
    "templates": "read",
    **dict.fromkeys(REPORTS, "read"),
    "cohorts": "read",
    "dataset": "read",
    "datasets": "read",
    "cohort": "read",
    "price_books": "read",
    "invoices": "read",
    "quotas": "read",
    "quota": "read",
    "counters.get": "read",
    "counters.count": "read",
    "counters.keys": "read",
    "counters.top": "read",
    "counters.ttl": "read",
    "person": "read",
    "merges": "read",
    "dead_letters": "read",
    "dead_letter": "read",
    "save_cohort": "admin",
    "delete_cohort": "admin",
    "save_dataset": "admin",
    "save_price_book": "admin",
    "invoice": "admin",
    "save_quota": "admin",
    "delete_dataset": "admin",
    "merge": "admin",
    "unmerge": "admin",
    "replay": "admin",
    "purge": "admin",
    "counters.delete": "admin",
    "rollup": "admin",
    "archive": "admin",
    "compact": "admin",
    "expire": "admin",
    "collect_garbage": "admin",
    "snapshots": "admin",
    "tag": "admin",
    "untag": "admin",
    "check": "admin",
}
"""The methods of Analytics that can be called, and what a key needs for each. Beside these there are `live` and
`counters.watch` (read), `authenticate`, and `object` or `Analytics`, which give the object that the key is for."""

_BEHIND = {"query": "query_untrusted"}  # SQL that comes over a network is a stranger's
_SCOPES: tuple[Scope, ...] = ("read", "write", "admin")
_EVENTS = frozenset({"track", "page", "screen", "identify", "group", "alias"})
_HIDDEN = frozenset(
    {"age", "keep_refused", "key", "source", "untrusted"}
)  # by name: what only the process itself may say
_MOST_COUNTERS = 10_000


class RpcMethods:
    """What one connection reaches.

    Args:
        gate: says who the connection is, and gives its object. It is asked for every call: a revoked key is out then.
        connection: the request, or the WebSocket's.
        watches: makes calls back.
        stub_of: a stub of what the gate gave.
        mistaken: called when a wrong key was shown.
    """

    def __init__(
        self,
        gate: Auth,
        connection: HTTPConnection,
        watches: Watches,
        stub_of: Callable[[Any], Any],
        mistaken: Callable[[], None],
    ) -> None:
        self._gate = gate
        self._connection = connection
        self._watches = watches
        self._stub_of = stub_of
        self._mistaken = mistaken
        self.known = False  # whether any key was taken
        self._written: set[str] = set()  # objects that calls of this connection make, if they are not there yet
        self.main = self._target(None)

    def _target(self, key: str | None) -> Target:
        """All that is reachable with `key`, or with what the request's headers say."""
        view = _View(self, key)
        members: dict[str, Any] = {}
        counters: dict[str, Any] = {}
        for verb in VERBS:
            place, name = (
                (counters, verb.removeprefix("counters.")) if verb.startswith("counters.") else (members, verb)
            )
            place[name] = place[camel(name)] = view.verb(verb)
        counters["watch"] = view.watch
        members |= {"live": view.live, "authenticate": self.authenticate, "counters": Target("counters", counters)}
        target = Target("Analytics", members)
        target.add("object", lambda name=None: view.object(name, target))
        target.add("Analytics", target.member("object"))
        return target

    def authenticate(self, key: Any = None) -> Target:
        """The object of `key`, for clients that send no header.

        Raises:
            Refusal: the key is not known.
        """
        if not isinstance(key, str):
            raise TypeError("authenticate(key): the key is text")
        try:
            self.caller(key)
        except Refusal as refusal:
            if refusal.code == "KEY_UNKNOWN":
                self._mistaken()
            raise
        return self._target(key)

    def caller(self, key: str | None) -> Caller:
        """Who calls, whatever it may do. Raises Refusal."""
        for scope in _SCOPES:
            try:
                return self.admit(scope, key)
            except Refusal as refusal:
                if refusal.code != "WRONG_SCOPE":
                    raise
        raise AssertionError(f"a key has one of the scopes {_SCOPES}")

    def admit(self, scope: Scope, key: str | None) -> Caller:
        """Who calls. Raises Refusal."""
        caller = self._gate.admit(self._connection, scope, write_key=key)
        self.known = True
        return caller

    def stub(self, scope: Scope, key: str | None) -> tuple[Any, Caller]:
        """The object to call, and who calls."""
        caller = self.admit(scope, key)
        if scope == "write":
            self._written.add(caller.object)
        found = self._gate.object(caller) if caller.object in self._written else self._gate.existing(caller)
        return self._stub_of(found), caller

    async def stored(self, caller: Caller, receipts: Awaitable[list[Receipt]]) -> list[Receipt]:
        """The receipts of what `caller` sent, counted against its rate."""
        found = await receipts
        self._gate.charge(caller, len(found))
        return found

    def names(self, caller: Caller) -> list[str]:
        """What the object of `caller` may be called."""
        served = self._gate.target
        return [caller.object] if isinstance(served, Namespace) else [caller.object, served.name]

    @property
    def watches(self) -> Watches:
        """Makes calls back."""
        return self._watches


class _View:
    """The functions that a key opens."""

    def __init__(self, surface: RpcMethods, key: str | None) -> None:
        self._surface = surface
        self._key = key

    def verb(self, name: str) -> Callable[..., Any]:
        """The function behind `name`."""
        scope, signature, reached = VERBS[name], _signature(name), operator.attrgetter(_BEHIND.get(name, name))

        def call(*arguments: Any, **named: Any) -> Any:
            given = signature.bind(list(arguments), named)
            stub, caller = self._surface.stub(scope, self._key)
            if name in _EVENTS:
                if name in ("page", "screen") and "name" not in given and "category" in given:
                    given["name"] = given.pop("category")  # as these verbs read one argument
                given = {"items": [{"type": name} | given]}
            if name == "save_cohort":
                given["untrusted"] = True
            if "items" in given:  # begun here and now: calls go in order
                receipts = stub.batch(given["items"], source="rpc", keep_refused=True, key=caller.key)
                stored = self._surface.stored(caller, receipts)
                return stored if name == "batch" else _receipt(stored)
            return stub.report_untrusted(name, given) if name in REPORTS else reached(stub)(**given)

        return call

    def object(self, name: Any, target: Target) -> Target:
        """The object itself, if `name` is its name: a client may say which one it means to reach."""
        caller = self._surface.caller(self._key)
        if name is not None and name not in self._surface.names(caller):
            hint = "A key opens one object: use that object's key"
            raise AccessDenied(f"this key is not for an object {str(name)[:80]!r}", hint=hint)
        return target

    def live(self, callback: Any = None) -> Target:
        """Call `callback` with `stats()` now, and whenever they changed, at most once a second."""
        return self._watch("live", callback, lambda stub: stub.stats())

    def watch(self, glob: Any = "*", callback: Any = None) -> Target:
        """Call `callback` with the values of matching counters: all now, then those that changed, null for gone."""
        if not isinstance(glob, str):
            raise TypeError("watch(glob, callback): the glob is text")
        return self._watch(f"counters {glob}", callback, lambda stub: stub.counters.top(glob, _MOST_COUNTERS))

    def _watch(self, what: str, callback: Any, sample: Callable[[Any], Any]) -> Target:
        if not isinstance(callback, Remote):
            raise TypeError("a watch needs a function to call")
        if not callback.answers:
            raise Unreachable("an HTTP batch cannot call its client back", hint="Watch over a WebSocket")
        stub, caller = self._surface.stub("read", self._key)

        def admitted() -> bool:
            try:
                self._surface.admit("read", self._key)
            except Refusal as refusal:
                return refusal.status not in (401, 403)
            return True

        return self._surface.watches.add((caller.object, what), lambda: sample(stub), callback, admitted)


async def _receipt(receipts: Awaitable[list[Receipt]]) -> Receipt:
    receipt = (await receipts)[0]
    if receipt.status == "rejected":
        raise InvalidEvent(receipt.reason or "")
    return receipt


def _signature(name: str) -> Signature:
    found = _SIGNATURES.get(name)
    if found is None:
        found = _SIGNATURES[name] = _read(name)
    return found


_SIGNATURES: dict[str, Signature] = {}


def _read(name: str) -> Signature:
    if name in REPORTS:
        return signature_of(name)
    owner, _, method = _BEHIND.get(name, name).rpartition(".")
    counters: Any = Analytics.counters  # a property of the class; mypy takes it for the object's
    function = getattr(typing.get_type_hints(counters.fget)["return"] if owner else Analytics, method)
    signature = Signature.of(name, function, without={"self", *_hidden(function)})
    if name in _EVENTS and any(one.kind is one.VAR_KEYWORD for one in inspect.signature(function).parameters.values()):
        shared = {name: kind for name, kind in _read("track").types.items() if name not in ("event", "properties")}
        defaults = dict.fromkeys(shared) | signature.defaults
        signature = msgspec.structs.replace(signature, types=shared | signature.types, defaults=defaults)
    return signature


def _hidden(function: Any) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.name in _HIDDEN}
