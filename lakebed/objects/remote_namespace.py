"""RemoteNamespace: gives access to an object on a server, by the same stubs as for local objects.

async with Namespace.connect("https://host", key="…") as ns:
    await ns.Analytics("shop").dau(7)[0].dau    # one trip
"""

from __future__ import annotations

import asyncio
import typing
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import msgspec

from lakebed.errors import InvalidSettings, ObjectClosed
from lakebed.objects.manifest import check_name
from lakebed.objects.registry import class_named, classes
from lakebed.objects.remote_transports import FAITHFUL, HttpTransport, WebSocketTransport
from lakebed.rpc.capnweb.codec import Limits
from lakebed.rpc.capnweb.results import Outcome, PendingResult, Reference, replaced
from lakebed.rpc.capnweb.session import Peer
from lakebed.rpc.capnweb.values import Named, Pointer
from lakebed.rpc.codec import LakebedCodec
from lakebed.rpc.members import members
from lakebed.rpc.stub import Batch, Call, Session, Stub

__all__ = ["RemoteNamespace"]

_MAX_FAILURES = 100
# Answers come from a server that the caller chose: they are bounded only so that they fit in memory.
_LIMITS = Limits(message_bytes=1 << 30, depth=200, digits=4000, entries=1_000_000)


class RemoteNamespace:
    """The object of an API key on a server. Use it as an async context manager, or directly and `close` it later.

    Stubs work as in `Namespace`: calls of one turn of the loop go in one trip, calls can use promises that are not
    resolved, errors have the classes and facts that the server raised. Answers are the same values, except that a
    `Result` has rows, table and tiers, but not the paths of its files. Calling a verb that the server does not list
    for RPC raises `NotReachable`.

    Args:
        url: address of the server, or of its app's mount. `https://` makes one request a trip; `wss://` opens one
            connection, over which the server can also call functions that were passed to it.
        key: API key, which decides the object. It is sent in a header, never in the URL.
        on_error: called with each error that no caller awaited.
        timeout_s: seconds for a trip, and for opening a connection.

    Raises:
        InvalidSettings: the URL has another scheme, no host, or a user, a query or a fragment in it.
        ImportError: the extra `client` is not installed.

    A call whose answer was lost may have been carried out; a `track` with a `message_id` may then simply be repeated.
    A RemoteNamespace belongs to the event loop that first used it.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        on_error: Callable[[BaseException], None] | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        self.url = _rpc_url(url)
        headers = {FAITHFUL: "1"} | ({"Authorization": f"Bearer {key}"} if key is not None else {})
        self._structs: dict[str, type[Any]] = {}
        kind = HttpTransport if urlsplit(self.url).scheme in ("http", "https") else WebSocketTransport
        self.connection: HttpTransport | WebSocketTransport = kind(self.url, headers, timeout_s, self._peer)
        self._on_error = on_error
        self._sessions: dict[tuple[type[Any], str | None], Session] = {}  # few: a key opens one object
        self._busy: set[Session] = set()
        self._failures: deque[BaseException] = deque(maxlen=_MAX_FAILURES)
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<RemoteNamespace {self.url}>"

    def get(self, name: str | None = None) -> Stub:
        """A stub of object `name`, as `Analytics`. Without a name, the stub is of the key's object.

        If `name` is not that of the key's object, calls raise `AccessDenied`.

        Raises:
            InvalidName: the name is not allowed.
        """
        return self.stub(class_named("Analytics"), name)

    def __getattr__(self, name: str) -> Callable[[str], Stub]:
        if name.startswith("_"):
            raise AttributeError(name)
        object_class = classes[name] if name in classes else class_named(name)
        return lambda object_name: self.stub(object_class, object_name)

    def stub(self, object_class: type[Any], name: str | None) -> Stub:
        """A stub of object `name`. The class decides what `dir()` shows and which struct classes answers have.

        Args:
            object_class: the class of the object.
            name: the object's name; None for the object of the key.

        Raises:
            InvalidName: the name is not allowed.
        """
        session = self._sessions.get((object_class, name))
        if session is None:
            if name is not None:
                check_name(name)
            self._structs |= _structs_of(object_class)
            label = f"{object_class.__name__}({'' if name is None else repr(name)})"
            session = Session(_RemoteTransport(self, name), self._failed, self._busy, label, members(object_class))
            self._sessions[object_class, name] = session
        return Stub(session)

    async def flush(self) -> None:
        """Wait until every call that was made is resolved."""
        while self._busy:
            await asyncio.gather(*(session.settle() for session in list(self._busy)))

    async def close(self) -> None:
        """Finish all calls and close the connections. Idempotent. Calls made later raise ObjectClosed."""
        await self.flush()
        self._closed = True
        await self.connection.close()

    def check(self) -> list[str]:
        """The errors that no caller received, as texts."""
        return [f"{type(failure).__name__}: {failure}" for failure in self._failures]

    def _failed(self, error: BaseException) -> None:
        self._failures.append(error)
        if self._on_error is not None:
            self._on_error(error)

    def _peer(self, send: Callable[[str], bool], ended: Callable[[], None] | None = None) -> Peer:
        codec = LakebedCodec(trusting=True, structs=self._structs)
        return Peer(send, codec=codec, limits=_LIMITS, faithful=True, ended=ended)

    def check_open(self) -> None:
        """Raise ObjectClosed if `close` was called."""
        if self._closed:
            raise ObjectClosed(f"{self!r} is closed", hint="Connect again", url=self.url)


class _RemoteTransport:
    """Carries calls to an object on a server.

    Args:
        namespace: the namespace with the connection.
        name: name of the object; None for the object of the key.
    """

    def __init__(self, namespace: RemoteNamespace, name: str | None) -> None:
        self._namespace = namespace
        self._name = name
        self._root: tuple[Peer, int] | None = None  # the id of the object in the newest session

    def send(self, batch: Batch) -> Iterator[tuple[Batch, Coroutine[Any, Any, list[Outcome]]]]:
        """As `Transport.send`: calls that need only results of this batch form one part, and go in one trip."""
        trip: dict[PendingResult, Call] = {}
        for result, call in batch.items():
            if all(need in trip for need in call.needs):
                trip[result] = call
            else:
                yield {result: call}, self._wait_and_send(result, call)
        if trip:
            yield trip, self._send(trip)

    async def _wait_and_send(self, result: PendingResult, call: Call) -> list[Outcome]:
        """Make a call that needs results of earlier trips or of other objects, as soon as these are resolved."""
        if call.source is not None:
            return [Outcome(await call.perform(None))]  # its source is a value on this side
        await call.ready()
        filled = Call(None, call.path, call.filled(call.args), call.filled(call.kwargs))
        return await self._send({result: filled})

    async def _send(self, batch: Batch) -> list[Outcome]:
        for call in batch.values():
            call.begun = True
        self._namespace.check_open()
        return await self._namespace.connection.carry(lambda peer: self._push(peer, batch), list(batch))

    def _push(self, peer: Peer, batch: Batch) -> list[PendingResult]:
        """Push the calls of `batch`. Returns the pending results of their answers."""
        if self._root is None or self._root[0] is not peer:
            self._root = peer, peer.imports.push(0, ("object",), [self._name])
        root = self._root[1]
        numbers: dict[PendingResult, int] = {}
        answers: dict[PendingResult, PendingResult] = {}

        def pointer(value: Any) -> Any:
            return Pointer(numbers[value.result], value.path) if isinstance(value, Reference) else value

        for result, call in batch.items():
            try:
                for need in call.needs:
                    if (outcome := answers[need].outcome) is not None:  # that call could not be pushed
                        outcome.unwrap()
                arguments = None
                if call.args is not None:
                    arguments = list(replaced(call.args, pointer))
                    if call.kwargs:
                        arguments.append(Named(replaced(call.kwargs, pointer)))
                source = root if call.source is None else numbers[call.source]
                numbers[result] = peer.imports.push(source, call.path, arguments)
            except Exception as error:  # noqa: BLE001 - it is the outcome of this call, and of those that build on it
                answers[result] = PendingResult.failed(error)
            else:
                answers[result] = peer.imports.pull(numbers[result])
        return list(answers.values())


def _rpc_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
        raise InvalidSettings(f"{url!r} cannot be a server's address", hint="Use https://host or wss://host", url=url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidSettings(
            "the address of a server must not have a user, query or fragment",
            hint="Pass the key as key=",
            host=parts.hostname,
        )
    path = parts.path.rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path if path.endswith("/rpc") else f"{path}/rpc", "", ""))


def _structs_of(object_class: type[Any]) -> dict[str, type[Any]]:
    """The struct classes that methods of `object_class` return, with the structs inside them, by name."""
    structs: dict[str, type[Any]] = {}
    for name in members(object_class):
        method = getattr(object_class, name, None)
        _collect(_hints(getattr(method, "fget", method)).get("return"), structs)
    return structs


def _collect(annotation: Any, structs: dict[str, type[Any]]) -> None:
    for argument in typing.get_args(annotation):
        _collect(argument, structs)
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct) and annotation.__name__ not in structs:
        structs[annotation.__name__] = annotation
        for inner in _hints(annotation).values():
            _collect(inner, structs)


def _hints(value: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(value)
    except (NameError, TypeError):
        return {}  # not annotated, or with names that exist for type checkers only
