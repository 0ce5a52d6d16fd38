"""Evaluation: what an incoming expression means. It makes calls, follows paths and carries out `.map()`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from lakebed.errors import NotReachable
from lakebed.query.result import Result
from lakebed.rpc.calls import Outcome, Step
from lakebed.rpc.capnweb.errors import ProtocolError, TooLarge, Unsupported
from lakebed.rpc.capnweb.exported_object import Target, follow
from lakebed.rpc.capnweb.future import Slot, when_all
from lakebed.rpc.capnweb.limits import Limits
from lakebed.rpc.capnweb.remote_reference import Remote
from lakebed.rpc.capnweb.values import Named, Reader

__all__ = ["Evaluator", "Scope", "Work"]

_IDS = 2**53


class Scope(Protocol):
    """Where the ids in an expression lead."""

    def find(self, number: int) -> Slot:
        """What we hold under `number`. Raises ProtocolError when there is nothing."""
        ...

    def stub(self, number: int) -> Remote:
        """What the peer exports under `number`."""
        ...

    def promise(self, number: int) -> Slot:
        """What the peer will send for its promise `number`."""
        ...


class Work(Protocol):
    """Who carries calls out."""

    def begin(self, call: Callable[[], Any], slot: Slot) -> None:
        """Call `call`, await what it gives if that can be awaited, and fill `slot`."""
        ...


class _Hole(msgspec.Struct, frozen=True):
    """A place in a value that another slot will fill."""

    slot: Slot


class Evaluator:
    """Evaluates the expressions of one session.

    Args:
        reader: reads the tagged values.
        work: makes the calls.
        limits: of the session.
    """

    def __init__(self, reader: Reader, work: Work, limits: Limits) -> None:
        self.reader = reader
        self.work = work
        self.limits = limits

    def evaluate(self, expression: Any, scope: Scope) -> Slot:
        """The slot of what `expression` gives. Calls in it have begun, or begin when what they need is there.

        Raises:
            ProtocolError: it is no expression, names what does not exist, or passes a limit.
        """
        return _Evaluation(self, scope, [self.limits.steps]).slot(expression)


class _Evaluation:
    """One expression in one scope. `steps` is what all maps of a message may still do."""

    def __init__(self, evaluator: Evaluator, scope: Scope, steps: list[int]) -> None:
        self._evaluator = evaluator
        self._limits = evaluator.limits
        self._scope = scope
        self._steps = steps
        self._holes: list[Slot] = []
        self._stubs: list[Remote] = []

    def slot(self, expression: Any) -> Slot:
        """What `expression` gives."""
        try:
            value = self._read(expression, 0)
        except Unsupported as error:
            self._let_go()
            return Slot.failed(error)
        if isinstance(value, _Hole):
            return value.slot
        filled = Slot()
        when_all(self._holes, lambda: filled.settle(self._filled(value)))
        return filled

    def _read(self, expression: Any, depth: int) -> Any:  # noqa: PLR0911 - one return a kind of expression
        if depth > self._limits.depth:
            raise ProtocolError(f"a value has more than {self._limits.depth} levels")
        if isinstance(expression, dict):
            return {name: self._read(value, depth + 1) for name, value in expression.items()}
        if not isinstance(expression, list):
            return expression
        if len(expression) == 1 and isinstance(expression[0], list):
            return [self._read(value, depth + 1) for value in expression[0]]
        match expression:
            case ["import" | "pipeline", int() as number, *rest] if len(rest) <= 2:  # noqa: PLR2004 - path, arguments
                return self._hole(self._reference(number, rest, depth))
            case ["remap", int() as number, list() as path, list() as captures, list() as instructions]:
                return self._hole(self._remap(number, _path(path), captures, instructions))
            case ["export", int() as number]:
                stub = self._scope.stub(_id(number))
                self._stubs.append(stub)
                return stub
            case ["promise", int() as number]:
                return self._hole(self._scope.promise(_id(number)))
        return self._evaluator.reader.tagged(expression, lambda value: self._read(value, depth + 1))

    def _hole(self, slot: Slot) -> _Hole:
        self._holes.append(slot)
        return _Hole(slot)

    def _reference(self, number: int, rest: list[Any], depth: int) -> Slot:
        """A value that we hold, what lies at a path of it, or what calling that gives."""
        source = self._scope.find(_id(number))
        path = _path(rest[0]) if rest else ()
        if len(rest) <= 1:
            return source if not path else _mapped(source, lambda value: follow(value, path))
        if not isinstance(rest[1], list):
            raise ProtocolError("the arguments of a call are no list")
        inner = _Evaluation(self._evaluator, self._scope, self._steps)
        result = Slot()
        try:
            arguments = [inner._read(argument, depth + 1) for argument in rest[1]]
        except Unsupported as error:
            inner._let_go()
            return Slot.failed(error)
        when_all([source, *inner._holes], lambda: inner._call(source, path, arguments, result))
        return result

    def _call(self, source: Slot, path: tuple[Step, ...], arguments: list[Any], result: Slot) -> None:
        given = self._filled(arguments)
        failed = _error_of(source) or given.error
        if failed is not None:
            self._let_go()
            result.settle(Outcome(error=failed))
            return
        assert source.outcome is not None  # noqa: S101 - _error_of looked
        value = source.outcome.value
        result.then(lambda _outcome: self._let_go())  # a callee that keeps a stub has made its own
        self._evaluator.work.begin(lambda: _called(value, path, given.value), result)

    def _filled(self, value: Any) -> Outcome:
        """`value` with its holes filled, or the first error in them."""
        if not self._holes:
            return Outcome(value)
        for slot in self._holes:
            if (error := _error_of(slot)) is not None:
                return Outcome(error=error)
        try:
            whole = _with(value)
            _measure(whole, [self._limits.argument_size], self._limits.depth)
        except TooLarge as error:
            return Outcome(error=error)
        return Outcome(whole)

    def _let_go(self) -> None:
        stubs, self._stubs = self._stubs, []
        for stub in stubs:
            stub.close()

    # Map: instructions that another side recorded, carried out on each element.

    def _remap(self, number: int, path: tuple[Step, ...], captures: list[Any], instructions: list[Any]) -> Slot:
        if not instructions:
            raise ProtocolError("a map without instructions")
        captured = [self._captured(capture) for capture in captures]
        source = self._scope.find(_id(number))
        result = Slot()

        def apply(outcome: Outcome) -> None:
            try:
                value = follow(_value(outcome), path)
                mapped = self._mapped(value, captured, instructions)
            except Exception as error:  # noqa: BLE001 - it is the outcome of the map
                result.settle(Outcome(error=error))
            else:
                mapped.then(result.settle)

        source.then(apply)
        return result

    def _captured(self, capture: Any) -> Slot:
        match capture:
            case ["import", int() as number]:
                return self._scope.find(_id(number))
            case ["export", int() as number]:
                stub = self._scope.stub(_id(number))
                self._stubs.append(stub)
                return Slot.of(stub)
        raise ProtocolError("a map captures what is no stub")

    def _mapped(self, value: Any, captured: list[Slot], instructions: list[Any]) -> Slot:
        if value is None:
            return Slot.of(None)
        if not isinstance(value, (list, tuple, Result)):
            return self._apply(value, captured, instructions)
        slots = [self._apply(element, captured, instructions) for element in value]
        result = Slot()
        when_all(slots, lambda: result.settle(_gathered(slots)))
        return result

    def _apply(self, element: Any, captured: list[Slot], instructions: list[Any]) -> Slot:
        scope = _MapScope(captured, element)
        for instruction in instructions:
            self._steps[0] -= 1
            if self._steps[0] < 0:
                raise TooLarge(f"a map takes more than {self._limits.steps} steps: map over fewer elements")
            scope.results.append(_Evaluation(self._evaluator, scope, self._steps).slot(instruction))
        return scope.results[-1]


class _MapScope:
    """The ids in a map's instructions: captures below zero, the element at zero, then what came before."""

    def __init__(self, captured: list[Slot], element: Any) -> None:
        self._captured = captured
        self.results = [Slot.of(element)]

    def find(self, number: int) -> Slot:
        """As `Scope.find`."""
        known = self._captured if number < 0 else self.results
        at = -number - 1 if number < 0 else number
        if at >= len(known):
            raise ProtocolError(f"a map names {number}, which does not exist there")
        return known[at]

    def stub(self, _number: int) -> Remote:
        """As `Scope.stub`."""
        raise ProtocolError("a map cannot export")

    def promise(self, _number: int) -> Slot:
        """As `Scope.promise`."""
        raise ProtocolError("a map cannot promise")


def _called(value: Any, path: tuple[Step, ...], arguments: list[Any]) -> Any:
    callee = follow(value, path)
    named = arguments.pop() if arguments and isinstance(arguments[-1], Named) else {}
    if isinstance(callee, Target) and callee.function is not None:
        callee = callee.function
    if not callable(callee):
        dotted = ".".join(map(str, path))[:80] or "this value"
        raise NotReachable(f"{dotted} is not a method", hint="Read it without calling it", step=dotted)
    return callee(*arguments, **named)


def _mapped(source: Slot, change: Callable[[Any], Any]) -> Slot:
    result = Slot()

    def settle(outcome: Outcome) -> None:
        try:
            result.settle(Outcome(change(_value(outcome))))
        except Exception as error:  # noqa: BLE001 - it is the outcome
            result.settle(Outcome(error=error))

    source.then(settle)
    return result


def _gathered(slots: list[Slot]) -> Outcome:
    for slot in slots:
        if (error := _error_of(slot)) is not None:
            return Outcome(error=error)
    return Outcome([_value(slot.outcome) for slot in slots])


def _value(outcome: Outcome | None) -> Any:
    assert outcome is not None  # noqa: S101 - asked for when it is there
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


def _error_of(slot: Slot) -> BaseException | None:
    return slot.outcome.error if slot.outcome is not None else None


def _with(value: Any) -> Any:
    kind = type(value)
    if kind is _Hole:
        return _value(value.slot.outcome)
    if kind is list:
        return [_with(item) for item in value]
    if kind is tuple:
        return tuple([_with(item) for item in value])
    if kind is dict or kind is Named:
        return kind((name, _with(item)) for name, item in value.items())
    return value


def _measure(value: Any, left: list[int], depth: int) -> None:
    """Raise TooLarge when `value` counts more than `left` parts and characters, or is deeper than `depth`.

    A value that refers to itself several times is small here and large wherever it is written, so it is counted
    before anybody writes it.
    """
    left[0] -= 1 + (len(value) if isinstance(value, (str, bytes)) else 0)
    if left[0] < 0 or depth < 0:
        raise TooLarge("a value that is passed on has too many parts, characters or levels: pass less")
    if isinstance(value, Mapping):
        for item in value.values():
            _measure(item, left, depth - 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _measure(item, left, depth - 1)


def _id(number: int) -> int:
    if isinstance(number, bool) or abs(number) > _IDS:
        raise ProtocolError("an id that is none")
    return number


def _path(path: Any) -> tuple[Step, ...]:
    if not isinstance(path, list) or not all(
        isinstance(step, (str, int)) and not isinstance(step, bool) for step in path
    ):
        raise ProtocolError("a path is a list of names and numbers")
    return tuple(path)
