"""The methods that RPC offers: the verbs of the catalogue, each for keys of its scope. Nothing else can be called."""

from __future__ import annotations

import functools
import inspect
import operator
import typing
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from starlette.requests import HTTPConnection

from lakebed.analytics import Analytics
from lakebed.api.auth import Auth, Caller, Scope
from lakebed.api.errors import Refusal
from lakebed.api.rpc.watches import Watches
from lakebed.errors import AccessDenied, InvalidEvent, Unreachable
from lakebed.events.event import Receipt
from lakebed.interface.signature import Signature, camel
from lakebed.interface.verbs import VERBS
from lakebed.objects.namespace import Namespace
from lakebed.reports.reports import signature_of
from lakebed.rpc.capnweb.codec import Target
from lakebed.rpc.capnweb.results import Remote

__all__ = ["RpcMethods", "verb_signature"]

_SCOPES: tuple[Scope, ...] = ("read", "write", "admin")
_EVENTS = frozenset({"track", "page", "screen", "identify", "group", "alias"})
_COUNTERS = "counters."
_MAX_COUNTERS = 10_000


class RpcMethods:
    """The methods that one connection can call.

    Beside the verbs there are `live` and `counters.watch` (scope "read"), `authenticate`, and `object` or `Analytics`,
    which give the object of the key.

    Args:
        auth: checks the key at every call, so that a key stops working as soon as it is revoked.
        connection: the request of a batch, or the WebSocket.
        watches: call functions of the client.
        stub_of: makes a stub of the object that `auth` gives.
        mistaken: called when a wrong key was shown.

    Attributes:
        main: the methods for the key in the request's headers.
        known: whether the connection has shown a valid key.
    """

    def __init__(
        self,
        auth: Auth,
        connection: HTTPConnection,
        watches: Watches,
        stub_of: Callable[[Any], Any],
        mistaken: Callable[[], None],
    ) -> None:
        self._auth = auth
        self._connection = connection
        self._watches = watches
        self._stub_of = stub_of
        self._mistaken = mistaken
        self.known = False
        self._written: set[str] = set()  # objects that this connection writes to: created if they do not exist
        self.main = self._target(None)

    def _target(self, key: str | None) -> Target:
        """The methods for `key`, or for the key in the request's headers."""
        methods = _Methods(self, key)
        members: dict[str, Any] = {}
        counters: dict[str, Any] = {}
        for verb in VERBS:
            owner, name = (counters, verb.removeprefix(_COUNTERS)) if verb.startswith(_COUNTERS) else (members, verb)
            owner[name] = owner[camel(name)] = methods.verb(verb)
        counters["watch"] = methods.watch
        members |= {"live": methods.live, "authenticate": self.authenticate, "counters": Target("counters", counters)}
        target = Target("Analytics", members)
        target.add("object", lambda name=None: methods.object(name, target))
        target.add("Analytics", target.member("object"))
        return target

    def authenticate(self, key: Any = None) -> Target:
        """The object of `key`, for clients that send no header. Raises Refusal: the key is unknown."""
        if not isinstance(key, str):
            raise TypeError("authenticate(key): key must be text")
        try:
            self.caller(key)
        except Refusal as refusal:
            if refusal.code == "KEY_UNKNOWN":
                self._mistaken()
            raise
        return self._target(key)

    def caller(self, key: str | None) -> Caller:
        """The caller, whatever the scope of its key. Raises Refusal."""
        for scope in _SCOPES:
            try:
                return self.admit(scope, key)
            except Refusal as refusal:
                if refusal.code != "WRONG_SCOPE":
                    raise
        raise AssertionError(f"the key's scope is none of {_SCOPES}")

    def admit(self, scope: Scope, key: str | None) -> Caller:
        """The caller, if its key allows `scope`. Raises Refusal."""
        caller = self._auth.admit(self._connection, scope, write_key=key)
        self.known = True
        return caller

    def stub(self, scope: Scope, key: str | None) -> tuple[Any, Caller]:
        """A stub of the object of `key`, and the caller."""
        caller = self.admit(scope, key)
        if scope == "write":
            self._written.add(caller.object)
        written = caller.object in self._written
        return self._stub_of(self._auth.object(caller) if written else self._auth.existing(caller)), caller

    async def stored(self, caller: Caller, receipts: Awaitable[list[Receipt]]) -> list[Receipt]:
        """Wait for the receipts of `caller`'s events, and count the events against the rate of its key."""
        done = await receipts
        self._auth.charge(caller, len(done))
        return done

    def names(self, caller: Caller) -> list[str]:
        """The names by which `caller` may call its object."""
        served = self._auth.target
        return [caller.object] if isinstance(served, Namespace) else [caller.object, served.name]

    @property
    def watches(self) -> Watches:
        """The watches of the server, which call functions of clients."""
        return self._watches


class _Methods:
    """The methods for one key."""

    def __init__(self, rpc: RpcMethods, key: str | None) -> None:
        self._rpc = rpc
        self._key = key

    def verb(self, name: str) -> Callable[..., Any]:
        """The method that carries out the verb `name`."""
        verb, signature = VERBS[name], verb_signature(name)
        method_of = operator.attrgetter(name if verb.is_report else verb.untrusted or name)

        def call(*positional: Any, **named: Any) -> Any:
            arguments = signature.bind(list(positional), named)
            stub, caller = self._rpc.stub(verb.scope, self._key)
            if name in _EVENTS:
                if name in ("page", "screen") and "name" not in arguments and "category" in arguments:
                    arguments["name"] = arguments.pop("category")  # these verbs take a single argument as the name
                arguments = {"items": [{"type": name} | arguments]}
            if "items" in arguments:  # the call begins now, before it is awaited, so that calls keep their order
                receipts = stub.batch(arguments["items"], source="rpc", keep_refused=True, key=caller.key)
                stored = self._rpc.stored(caller, receipts)
                return stored if name == "batch" else _receipt(stored)
            if verb.is_report:
                return stub.report_untrusted(name, arguments)
            return method_of(stub)(**arguments, **verb.forced)

        return call

    def object(self, name: Any, target: Target) -> Target:
        """Return `target` if its object has the name `name`: a client may name the object that it expects."""
        caller = self._rpc.caller(self._key)
        if name is not None and name not in self._rpc.names(caller):
            hint = "A key opens one object: use that object's key"
            raise AccessDenied(f"this key does not open the object {str(name)[:80]!r}", hint=hint)
        return target

    def live(self, callback: Any = None) -> Target:
        """Call `callback` with `stats()` now and after each change, at most once a second."""
        return self._watch("live", callback, lambda stub: stub.stats())

    def watch(self, glob: Any = "*", callback: Any = None) -> Target:
        """Call `callback` with the matching counters: all now, then those that changed; None for a deleted one."""
        if not isinstance(glob, str):
            raise TypeError("watch(glob, callback): glob must be text")
        return self._watch(f"counters {glob}", callback, lambda stub: stub.counters.top(glob, _MAX_COUNTERS))

    def _watch(self, subject: str, callback: Any, sample: Callable[[Any], Any]) -> Target:
        if not isinstance(callback, Remote):
            raise TypeError("callback must be a function")
        if not callback.answers:
            raise Unreachable("an HTTP batch cannot call its client back", hint="Watch over a WebSocket")
        stub, caller = self._rpc.stub("read", self._key)

        def admitted() -> bool:
            try:
                self._rpc.admit("read", self._key)
            except Refusal as refusal:
                return refusal.status not in (401, 403)
            return True

        return self._rpc.watches.add((caller.object, subject), lambda: sample(stub), callback, admitted)


async def _receipt(receipts: Awaitable[list[Receipt]]) -> Receipt:
    receipt = (await receipts)[0]
    if receipt.status == "rejected":
        raise InvalidEvent(receipt.reason or "")
    return receipt


@functools.cache
def verb_signature(name: str) -> Signature:
    """The arguments that a network caller may set for a verb. Raises KeyError: the catalogue has no such verb."""
    verb = VERBS[name]
    if verb.is_report:
        return signature_of(name)
    owner, _, method = (verb.untrusted or name).rpartition(".")
    counters: Any = Analytics.counters  # a property, as the class is asked; mypy takes it for the value of an instance
    function = getattr(typing.get_type_hints(counters.fget)["return"] if owner else Analytics, method)
    signature = Signature.of(name, function, only=verb.arguments)
    if name in _EVENTS and any(
        each.kind is each.VAR_KEYWORD for each in inspect.signature(function).parameters.values()
    ):
        # The other events take the fields that `track` names as `**ids`.
        track = verb_signature("track").types
        shared = {field: kind for field, kind in track.items() if field not in ("event", "properties")}
        defaults = dict.fromkeys(shared) | signature.defaults
        signature = msgspec.structs.replace(signature, types=shared | signature.types, defaults=defaults)
    return signature
