"""RemoteNamespace: an object of a server, through the same stubs as one of this process.

async with Namespace.connect("https://host", key="…") as ns:
    await ns.Analytics("shop").dau(7)[0].dau    # one trip
"""

from __future__ import annotations

import asyncio
import typing
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import msgspec

from lakebed.errors import InvalidName, InvalidSettings, ObjectClosed, Unreachable
from lakebed.objects.manifest import is_name
from lakebed.objects.registry import kind
from lakebed.objects.remote_transports import FAITHFUL, HttpTransport, WebSocketTransport
from lakebed.rpc.calls import Call, Outcome, Ref, copied
from lakebed.rpc.capnweb.future import Slot
from lakebed.rpc.capnweb.limits import Limits
from lakebed.rpc.capnweb.session import Peer
from lakebed.rpc.capnweb.values import Named, Pointer
from lakebed.rpc.dispatch import members
from lakebed.rpc.session import Session
from lakebed.rpc.stub import Stub

__all__ = ["RemoteNamespace"]

_FAILURES_KEPT = 100
# Answers come from a server that was chosen, not from anybody: what it may send is bounded by what memory is for.
_LIMITS = Limits(message_bytes=1 << 30, depth=200, digits=4000, entries=1_000_000)


class RemoteNamespace:
    """What a key opens on a server. An async context manager; may also be used at once, and closed later.

    Stubs are those of `Namespace`: calls of one turn of the loop go in one trip, promises are built on before they are
    answered, errors come back as the classes that the server raised, with their facts. Answers are the same values: a
    `Result` has its rows, its table and its tiers (not the paths of its files). What the server does not list for RPC
    is `NotReachable`.

    Args:
        url: of the server, or of where its app is mounted. `https://` makes a request a trip; `wss://` keeps one
            connection, over which the server can also call functions that were passed to it.
        key: decides the object. It goes in a header, never in the URL.
        on_error: called with each failure that nobody awaited.
        timeout_s: seconds for a trip, and to open a connection.

    Raises:
        InvalidSettings: the URL has another scheme, no host, or a user, a query or a fragment in it.
        ImportError: the extra `client` is not installed.

    A call whose answer was lost may have been carried out; a `track` with a `message_id` may then simply be repeated.
    It belongs to the event loop that first used it.
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
        self._http: HttpTransport | None = None
        self._socket: WebSocketTransport | None = None
        if urlsplit(self.url).scheme in ("http", "https"):
            self._http = HttpTransport(self.url, headers, timeout_s)
        else:
            self._socket = WebSocketTransport(self.url, headers, timeout_s, self._peer)
        self._timeout_s = timeout_s
        self._on_error = on_error
        self._sessions: weakref.WeakValueDictionary[tuple[str, str | None], Session] = weakref.WeakValueDictionary()
        self._busy: set[Session] = set()
        self._failures: deque[BaseException] = deque(maxlen=_FAILURES_KEPT)
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<RemoteNamespace {self.url}>"

    def get(self, name: str | None = None) -> Stub:
        """A stub of object `name`, as `Analytics`; by default of the key's object, whatever its name.

        Another name than that of the key's object is `AccessDenied` when it is called.

        Raises:
            InvalidName: the name is not allowed.
        """
        return self.stub(kind("Analytics"), name)

    def __getattr__(self, name: str) -> Callable[[str], Stub]:
        if name.startswith("_"):
            raise AttributeError(name)
        found = kind(name)
        return lambda object_name: self.stub(found, object_name)

    def stub(self, object_class: type[Any], name: str | None) -> Stub:
        """A stub of object `name`, None for the key's; the class says what `dir()` shows and what answers become.

        Raises:
            InvalidName: the name is not allowed.
        """
        if name is not None and not is_name(name):
            raise InvalidName(f"{name!r} is no name of an object", name=name)
        self._structs |= _structs_of(object_class)
        session = self._sessions.get((object_class.__name__, name))
        if session is None:
            label = f"{object_class.__name__}({'' if name is None else repr(name)})"
            transport = _Trips(self, name) if self._http is not None else _Connection(self, name)
            session = Session(transport, self._failed, self._busy, label, members(object_class))
            self._sessions[object_class.__name__, name] = session
        return Stub(session)

    async def flush(self) -> None:
        """Return when every call that was made is answered."""
        while self._busy:
            await asyncio.gather(*(session.settle() for session in list(self._busy)))

    async def close(self) -> None:
        """Finish all calls and close the connections. Idempotent; a later call raises ObjectClosed."""
        await self.flush()
        self._closed = True
        if self._http is not None:
            await self._http.close()
        if self._socket is not None:
            await self._socket.close()

    def check(self) -> list[str]:
        """The failures that reached nobody."""
        return [f"{type(failure).__name__}: {failure}" for failure in self._failures]

    def _failed(self, error: BaseException) -> None:
        self._failures.append(error)
        if self._on_error is not None:
            self._on_error(error)

    def _peer(self, send: Callable[[str], bool], ended: Callable[[], None] | None = None) -> Peer:
        return Peer(send, limits=_LIMITS, faithful=True, trusting=True, structs=self._structs, ended=ended)

    def check_open(self) -> None:
        """Raise ObjectClosed after `close`."""
        if self._closed:
            raise ObjectClosed(f"{self!r} is closed", hint="Connect again", url=self.url)


class _Trips:
    """The transport by HTTP: a session a batch."""

    def __init__(self, namespace: RemoteNamespace, name: str | None) -> None:
        self._namespace = namespace
        self._name = name

    async def send(self, batch: Sequence[Call], settle: Callable[[int, Outcome], None]) -> None:
        """As `Transport.send`."""
        self._namespace.check_open()
        carrier = self._namespace._http  # noqa: SLF001 - this module's own
        assert carrier is not None  # noqa: S101 - made for http
        messages: list[str] = []
        peer = self._namespace._peer(lambda text: messages.append(text) is None)  # type: ignore[func-returns-value]  # noqa: SLF001
        slots = _ask(peer, peer.imports.push(0, ("object",), [self._name]), batch)
        try:
            for text in await carrier.exchange(list(messages)):
                peer.receive(text)
        finally:
            peer.close(peer.closed or Unreachable("the server did not answer this call"))
        for number, slot in enumerate(slots):
            settle(number, await slot.wait())


class _Connection:
    """The transport by WebSocket: a session as long as the connection."""

    def __init__(self, namespace: RemoteNamespace, name: str | None) -> None:
        self._namespace = namespace
        self._name = name
        self._root: tuple[Peer, int] | None = None  # the object, in the session that it was asked for in

    async def send(self, batch: Sequence[Call], settle: Callable[[int, Outcome], None]) -> None:
        """As `Transport.send`."""
        self._namespace.check_open()
        carrier = self._namespace._socket  # noqa: SLF001 - this module's own
        assert carrier is not None  # noqa: S101 - made for ws
        peer = await carrier.session()
        if self._root is None or self._root[0] is not peer:
            self._root = peer, peer.imports.push(0, ("object",), [self._name])
        slots = _ask(peer, self._root[1], batch)
        for number, slot in enumerate(slots):
            slot.then(lambda outcome, number=number: settle(number, outcome))  # type: ignore[misc]  # a default binds it
        async with asyncio.timeout(self._namespace._timeout_s):  # noqa: SLF001 - this module's own
            for slot in slots:
                await slot.wait()


def _ask(peer: Peer, root: int, batch: Sequence[Call]) -> list[Slot]:
    """Push the calls of `batch` on what `root` is, and pull them."""
    numbers: list[int | Exception] = []
    slots: list[Slot] = []

    def number_of(call: int) -> int:
        found = numbers[call - 1] if call else root
        if isinstance(found, Exception):
            raise found
        return found

    def pointed(value: Any) -> Any:
        return Pointer(number_of(value.call), value.path) if isinstance(value, Ref) else value

    for call in batch:
        try:
            arguments = None
            if call.args is not None:
                arguments = list(copied(call.args, pointed))
                if call.kwargs:
                    arguments.append(Named(copied(call.kwargs, pointed)))
            number = peer.imports.push(number_of(call.target), call.path, arguments)
        except Exception as error:  # noqa: BLE001 - it is the outcome of this call, and of those that build on it
            numbers.append(error)
            slots.append(Slot.failed(error))
        else:
            numbers.append(number)
            slots.append(peer.imports.pull(number))
    return slots


def _rpc_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", "ws", "wss") or not parts.hostname:
        raise InvalidSettings(f"{url!r} is no address of a server", hint="Such as https://host or wss://host", url=url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InvalidSettings(
            "the address of a server has no user, query or fragment", hint="Give the key as key=", host=parts.hostname
        )
    path = parts.path.rstrip("/")
    return urlunsplit((parts.scheme, parts.netloc, path if path.endswith("/rpc") else f"{path}/rpc", "", ""))


def _structs_of(object_class: type[Any]) -> dict[str, type[Any]]:
    """The structs that the methods of a class say they give, and those in them, by name."""
    found: dict[str, type[Any]] = {}
    for name in members(object_class):
        method = getattr(object_class, name, None)
        hints = _hints(getattr(method, "fget", method))
        _collect(hints.get("return"), found)
    return found


def _collect(annotation: Any, found: dict[str, type[Any]]) -> None:
    for argument in typing.get_args(annotation):
        _collect(argument, found)
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct) and annotation.__name__ not in found:
        found[annotation.__name__] = annotation
        for inner in _hints(annotation).values():
            _collect(inner, found)


def _hints(value: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(value)
    except (NameError, TypeError):
        return {}  # not annotated, or with names that exist for type checkers only
