"""Surface: what a caller may reach by RPC, by name and by the scope of its key. What is not listed does not exist."""

from __future__ import annotations

import inspect
import operator
import types
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from starlette.requests import HTTPConnection

from lakebed.analytics import Analytics
from lakebed.api.errors import Refusal
from lakebed.api.gate import Caller, Gate, Scope
from lakebed.api.watches import Watches
from lakebed.capnweb.remote import Remote
from lakebed.capnweb.target import Target, camel, snake
from lakebed.errors import AccessDenied, InvalidEvent, Unreachable
from lakebed.events import Receipt
from lakebed.namespace import Namespace

__all__ = ["VERBS", "Surface"]

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
    "counters.get": "read",
    "counters.count": "read",
    "counters.keys": "read",
    "counters.top": "read",
    "counters.ttl": "read",
    "person": "read",
    "merges": "read",
    "dead_letters": "read",
    "dead_letter": "read",
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
_HIDDEN = frozenset({"age", "keep_refused", "key", "source"})  # by name: what only the process itself may say
_OBJECTS = frozenset({"properties", "traits", "context", "params", "items", "edit"})  # parameters that take objects
_MOST = {"days": 36_600, "limit": 10_000, "n": 10_000}


class Surface:
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
        gate: Gate,
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

    def __init__(self, surface: Surface, key: str | None) -> None:
        self._surface = surface
        self._key = key

    def verb(self, name: str) -> Callable[..., Any]:
        """The function behind `name`."""
        scope, parameters, reached = VERBS[name], _parameters(name), operator.attrgetter(_BEHIND.get(name, name))

        def call(*arguments: Any, **named: Any) -> Any:
            given = parameters.bind(list(arguments), named)
            stub, caller = self._surface.stub(scope, self._key)
            if name in _EVENTS:
                if name in ("page", "screen") and "name" not in given and "category" in given:
                    given["name"] = given.pop("category")  # as these verbs read one argument
                given = {"items": [{"type": name} | given]}
            if "items" in given:  # begun here and now: calls go in order
                receipts = stub.batch(given["items"], source="rpc", keep_refused=True, key=caller.key)
                stored = self._surface.stored(caller, receipts)
                return stored if name == "batch" else _receipt(stored)
            return reached(stub)(**given)

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
        return self._watch(f"counters {glob}", callback, lambda stub: stub.counters.top(glob, _MOST["n"]))

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


class _Parameters(msgspec.Struct, frozen=True):
    """What a verb takes: types by name, the first `positional` of them also by position."""

    verb: str
    types: dict[str, Any]
    positional: tuple[str, ...]
    required: frozenset[str]

    def bind(self, arguments: list[Any], named: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments by name. One object after, or instead of, the positional ones names the others.

        Raises:
            TypeError: there are too many or too few, one has no such name or not its type.
        """
        options: Mapping[str, Any] = {}
        if arguments and isinstance(arguments[-1], dict) and self._names_others(len(arguments) - 1):
            options = arguments.pop()
        if len(arguments) > len(self.positional):
            raise TypeError(f"{self!r} takes {len(self.positional)} arguments and an object with the others")
        found = dict(zip(self.positional, arguments, strict=False))
        for name, value in [*options.items(), *named.items()]:
            if snake(name) not in self.types or snake(name) in found:
                raise TypeError(f"{self!r} does not take {name[:80]!r} like this")
            found[snake(name)] = value
        found = {name: value for name, value in found.items() if value is not None}
        if missing := self.required - found.keys():
            raise TypeError(f"{self!r} needs {', '.join(sorted(missing))}")
        for name, value in found.items():
            self._check(name, value)
        return found

    def _names_others(self, position: int) -> bool:
        return position >= len(self.positional) or self.positional[position] not in _OBJECTS

    def _check(self, name: str, value: Any) -> None:
        if not _fits(value, self.types[name]):
            raise TypeError(f"{self!r}: {name} is {_said(self.types[name])}, not {type(value).__name__}")
        if name in _MOST and isinstance(value, int) and not 0 <= value <= _MOST[name]:
            raise ValueError(f"{self!r}: {name} goes from 0 to {_MOST[name]}")

    def __repr__(self) -> str:
        others = [camel(name) for name in self.types if name not in self.positional]
        return f"{self.verb}({', '.join([*self.positional, *(['{' + ', '.join(others) + '}'] if others else [])])})"


def _parameters(name: str) -> _Parameters:
    found = _PARAMETERS.get(name)
    if found is None:
        found = _PARAMETERS[name] = _read(name)
    return found


_PARAMETERS: dict[str, _Parameters] = {}


def _read(name: str) -> _Parameters:
    owner, _, method = _BEHIND.get(name, name).rpartition(".")
    counters: Any = Analytics.counters  # a property of the class; mypy takes it for the object's
    kind = typing.get_type_hints(counters.fget)["return"] if owner else Analytics
    signature = inspect.signature(getattr(kind, method), eval_str=True)
    types_: dict[str, Any] = {}
    positional: list[str] = []
    required: set[str] = set()
    for parameter in signature.parameters.values():
        if parameter.name == "self" or (parameter.kind is parameter.KEYWORD_ONLY and parameter.name in _HIDDEN):
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            shared = _read("track").types
            types_ = {name: kind for name, kind in shared.items() if name not in ("event", "properties")} | types_
            continue
        types_[parameter.name] = parameter.annotation
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            positional.append(parameter.name)
        if parameter.default is parameter.empty:
            required.add(parameter.name)
    return _Parameters(name, types_, tuple(positional), frozenset(required))


def _each(annotation: Any) -> list[Any]:
    """The types that `annotation` is a choice of, without None."""
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return [kind for one in typing.get_args(annotation) for kind in _each(one)]
    return [] if annotation is type(None) else [annotation]


def _fits(value: Any, annotation: Any) -> bool:
    """Whether `value` is of a type that `annotation` allows, and what is in a sequence too."""
    return any(_fits_one(value, kind) for kind in _each(annotation))


def _fits_one(value: Any, kind: Any) -> bool:
    if kind is Any:
        return True
    owner = typing.get_origin(kind) or kind
    if owner is float:
        owner = (int, float)
    if not isinstance(value, owner) or (isinstance(value, bool) and owner is not bool):
        return False
    if owner is Sequence:
        return isinstance(value, list) and all(_fits(item, typing.get_args(kind)[0]) for item in value)
    return True


def _said(annotation: Any) -> str:
    return " or ".join(str(getattr(kind, "__name__", kind)) for kind in _each(annotation))
