"""Stub and Promise: calls that start at once, and build on one another before any is answered.

rows = stub.dau(7)          # under way; nothing was awaited
latest = await rows[0].dau  # one trip for both
stub.track("Seen")          # fire and forget
"""

# ruff: noqa: SLF001 - public names on stubs and promises are the object's, so ours among themselves are private

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, NoReturn

from lakebed.errors import NotReachable
from lakebed.rpc.calls import Call, Outcome, Ref, Step, copied
from lakebed.rpc.dispatch import reach
from lakebed.rpc.session import PendingResult, Session, call_value

__all__ = ["Promise", "Stub", "trips"]


class Stub:
    """Stands for an object that may be asleep, or elsewhere. Cheap; any number may stand for one object.

    `stub.method(…)` gives a `Promise` and starts the call; the calls made in one turn of the event loop go to the
    object together, in one trip. Calls on the object begin in the order in which they were made, through whichever
    stub. Lists, dicts and tuples in arguments are copied when the call is made; other values are passed as they are.

    Only the public methods and attributes of the object's class can be reached, not those that open or close it. One
    that does not exist is `NotReachable` when the promise is awaited.
    """

    __slots__ = ("__weakref__", "_session")

    def __init__(self, session: Session) -> None:
        self._session = session

    def __getattr__(self, name: str) -> Promise:
        step = _public(name)  # first: copy and pickle ask an empty instance for private names
        return Promise(self._session, None, (step,))

    def __dir__(self) -> list[str]:
        return list(self._session.names)

    def __repr__(self) -> str:
        return f"<Stub of {self._session.label}>"

    def __copy__(self) -> Stub:
        return self

    def __deepcopy__(self, _memo: object) -> Stub:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} stays in its process: send the object's name instead")


class Promise:
    """A value that is on its way. `await` it, read attributes and elements of it, call methods on it, pass it to calls.

    None of that waits, but `await`: it gives the value, or raises what the call raised; awaiting again gives the same.
    Giving up waiting does not stop the call. A promise of this turn of the loop is built on within the same trip; one
    that left earlier is waited for first.

    A promise that is never awaited is still carried out. Its failure is then told to the object's `on_error` and kept
    for `check()`.
    """

    __slots__ = ("__weakref__", "_answer", "_path", "_session", "_source")

    def __init__(self, session: Session, source: PendingResult | None, path: tuple[Step, ...]) -> None:
        self._session = session
        self._source = source  # where the path starts: a call's answer, or None: the object itself
        self._path = path
        self._answer: PendingResult | None = None  # of the value at the path, once it was asked for
        if source is not None:
            source.handles += 1

    def __getattr__(self, name: str) -> Promise:
        step = _public(name)
        return Promise(self._session, self._source, (*self._path, step))

    def __getitem__(self, key: Step) -> Promise:
        if type(key) not in (int, str):
            raise TypeError(f"a promise takes whole numbers and names, not {type(key).__name__}: await it first")
        return Promise(self._session, self._source, (*self._path, key))

    def __call__(self, *args: Any, **kwargs: Any) -> Promise:
        """Call it, when it is there, with values or promises."""
        answer = PendingResult(self._session)
        promise = Promise(self._session, answer, ())
        found: list[Promise] = []
        sent = copied((args, kwargs), lambda value: _collected(value, found))
        source = self._source
        if source is not None:
            source.heard = True  # its failure becomes this call's
        numbers = [value._number_in(self._session) for value in found]
        if None in numbers or not (source is None or self._session.gathers(source)):
            self._session.run(self._later(answer, found, *sent), answer)
            return promise
        if found:
            sent = copied(sent, lambda value: value._ref() if isinstance(value, Promise) else value)
        needs = frozenset(number for number in numbers if number is not None)
        target = source.number if source is not None else 0
        self._session.push(Call(target, self._path, sent[0], sent[1], needs), answer)
        return promise

    def __await__(self) -> Generator[Any, None, Any]:
        return self._value().__await__()

    async def _value(self) -> Any:
        if self._answer is None and self._path and (self._source is None or self._session.gathers(self._source)):
            self._answer = self._read()
        if self._answer is not None:
            return await self._answer.value()
        if self._source is None:
            raise NotReachable(f"{self._session.label} itself is not a value", hint="Call one of its methods")
        return reach(await self._source.value(), self._path)

    def _read(self) -> PendingResult:
        answer, target = PendingResult(self._session), 0
        if self._source is not None:
            target, self._source.heard = self._source.number, True
        self._session.push(Call(target, self._path), answer)
        answer.handles = 1
        return answer

    def _number_in(self, session: Session) -> int | None:
        """The call of the batch that `session` gathers which this value comes from; None if it comes from elsewhere."""
        if self._source is None and self._answer is None and session is self._session and self._path:
            self._answer = self._read()
        start = self._answer or self._source
        if start is None or not session.gathers(start):
            return None
        start.heard = True
        return start.number

    def _ref(self) -> Ref:
        if self._answer is not None:
            return Ref(self._answer.number)
        return Ref(self._source.number if self._source is not None else 0, self._path)

    async def _later(
        self, answer: PendingResult, found: list[Promise], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Make a call that builds on promises of earlier trips, or of other objects, when they have their values."""
        try:
            values = {id(promise): await promise for promise in found}
            args, kwargs = copied((args, kwargs), lambda value: values.get(id(value), value))
            if self._source is not None:
                answer.settle(await call_value(await self._source.value(), self._path, args, kwargs))
            else:
                self._session.push(Call(0, self._path, args, kwargs), answer)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it is the call's outcome
            answer.settle(Outcome(error=error))

    def __del__(self) -> None:
        if self._source is not None:
            self._source.drop()
        if self._answer is not None:
            self._answer.drop()

    def __repr__(self) -> str:
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in self._path)
        return f"<Promise {self._session.label}{'' if self._source is None else '(…)'}{path}: await it for its value>"

    def __copy__(self) -> Promise:
        return self

    def __deepcopy__(self, _memo: object) -> Promise:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{self!r} stays in its process: await it first")

    def _refused(self, *_: object) -> NoReturn:
        raise TypeError(f"{self!r} has no value yet: await it first")

    __iter__ = __len__ = __bool__ = __contains__ = __int__ = __float__ = __index__ = _refused
    __lt__ = __le__ = __gt__ = __ge__ = _refused
    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refused

    def __eq__(self, other: object) -> bool:
        # `promise == 5` would be False for ever, silently.
        return self is other if isinstance(other, Promise) else self._refused()

    __hash__ = object.__hash__


def trips(stub: Stub) -> int:
    """How many batches went to the object of `stub` so far, through whichever stub of its namespace."""
    return stub._session.trips


def _public(name: str) -> str:
    if name.startswith("_"):
        raise NotReachable(f"{name!r} is private", hint="A stub reaches public names only", step=name)
    return name


def _collected(value: Any, found: list[Promise]) -> Any:
    if isinstance(value, Promise):
        found.append(value)
    return bytes(value) if isinstance(value, bytearray) else value
