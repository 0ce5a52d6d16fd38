"""Evaluates incoming expressions: makes calls, follows paths and carries out `.map()`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from lakebed.rpc.capnweb.codec import Codec, Limits, Step, Target, follow
from lakebed.rpc.capnweb.errors import ProtocolError, TooLarge, Unsupported
from lakebed.rpc.capnweb.results import Outcome, PendingResult, Reference, Remote, gather, replaced
from lakebed.rpc.capnweb.values import Named, Reader

__all__ = ["Begin", "Evaluator", "Scope"]

_MAX_ID = 2**53


class Scope(Protocol):
    """Finds the values for the ids in an expression."""

    def find(self, number: int) -> PendingResult:
        """The result that this side holds under `number`. Raises ProtocolError if there is none."""
        ...

    def stub(self, number: int) -> Remote:
        """A reference to the peer's export `number`."""
        ...

    def promise(self, number: int) -> PendingResult:
        """The result that the peer will send for its promise `number`."""
        ...


Begin = Callable[[Callable[[], Any], PendingResult], None]
"""Makes a call, awaits its value if that can be awaited, and resolves the result."""


class Evaluator:
    """Evaluates the expressions of one session.

    Args:
        codec: reads tagged values, and decides which members a path may reach.
        begin: makes the calls.
        limits: the session's.
    """

    def __init__(self, codec: Codec, begin: Begin, limits: Limits) -> None:
        self.codec = codec
        self.reader = Reader(codec, limits)
        self.begin = begin
        self.limits = limits

    def evaluate(self, expression: Any, scope: Scope) -> PendingResult:
        """Evaluate `expression`. Its calls have begun, or begin when the results that they need are resolved.

        Raises:
            ProtocolError: the expression is invalid, has an id that does not exist, or exceeds a limit.
        """
        return _Evaluation(self, scope, [self.limits.steps]).result(expression)


class _Evaluation:
    """Evaluates an expression in a scope. `steps` is the number of instructions left for the message's maps."""

    def __init__(self, evaluator: Evaluator, scope: Scope, steps: list[int]) -> None:
        self._evaluator = evaluator
        self._limits = evaluator.limits
        self._scope = scope
        self._steps = steps
        self._pending: list[PendingResult] = []
        self._stubs: list[Remote] = []

    def result(self, expression: Any) -> PendingResult:
        """The result of `expression`."""
        try:
            value = self._read(expression, 0)
        except Unsupported as error:
            self._release_stubs()
            return PendingResult.failed(error)
        if isinstance(value, Reference):
            return value.result
        return gather(self._pending).map(lambda _: self._filled(value))

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
                return self._refer(self._reference(number, rest, depth))
            case ["remap", int() as number, list() as path, list() as captures, list() as instructions]:
                return self._refer(self._remap(number, _path(path), captures, instructions))
            case ["export", int() as number]:
                stub = self._scope.stub(_id(number))
                self._stubs.append(stub)
                return stub
            case ["promise", int() as number]:
                return self._refer(self._scope.promise(_id(number)))
        return self._evaluator.reader.tagged(expression, lambda value: self._read(value, depth + 1))

    def _refer(self, result: PendingResult) -> Reference:
        self._pending.append(result)
        return Reference(result)

    def _reference(self, number: int, rest: list[Any], depth: int) -> PendingResult:
        """Evaluate a reference: a held value, the value at a path in it, or the result of calling that value."""
        source = self._scope.find(_id(number))
        path = _path(rest[0]) if rest else ()
        if len(rest) <= 1:
            return source.map(lambda value: self._follow(value, path)) if path else source
        if not isinstance(rest[1], list):
            raise ProtocolError("the arguments of a call must be a list")
        inner = _Evaluation(self._evaluator, self._scope, self._steps)
        result = PendingResult()
        try:
            arguments = [inner._read(argument, depth + 1) for argument in rest[1]]
        except Unsupported as error:
            inner._release_stubs()
            return PendingResult.failed(error)
        gather([source, *inner._pending]).then(lambda needs: inner._call(needs, path, arguments, result))
        return result

    def _call(self, needs: Outcome, path: tuple[Step, ...], arguments: list[Any], result: PendingResult) -> None:
        result.then(lambda _outcome: self._release_stubs())  # a callee that keeps a stub has made its own
        if needs.error is not None:
            result.resolve(needs)
            return
        value = needs.value[0]
        try:
            filled = self._filled(arguments)
        except TooLarge as error:
            result.resolve(Outcome(error=error))
            return
        self._evaluator.begin(lambda: self._called(value, path, filled), result)

    def _called(self, value: Any, path: tuple[Step, ...], arguments: list[Any]) -> Any:
        callee = self._follow(value, path)
        named = arguments.pop() if arguments and isinstance(arguments[-1], Named) else {}
        if isinstance(callee, Target) and callee.function is not None:
            callee = callee.function
        if not callable(callee):
            dotted = ".".join(map(str, path))[:80] or "this value"
            message = f"{dotted} is not a method"
            raise self._evaluator.codec.not_reachable(message, hint="Read it without calling it", step=dotted)
        return callee(*arguments, **named)

    def _follow(self, value: Any, path: tuple[Step, ...]) -> Any:
        return follow(value, path, self._evaluator.codec.member)

    def _filled(self, value: Any) -> Any:
        """Replace the references in `value`, all resolved, by their values. Raises TooLarge."""
        if not self._pending:
            return value
        filled = replaced(value, _dereferenced)
        _measure(filled, [self._limits.argument_size], self._limits.depth)
        return filled

    def _release_stubs(self) -> None:
        stubs, self._stubs = self._stubs, []
        for stub in stubs:
            stub.close()

    # Map: instructions that the peer recorded, carried out on each element.

    def _remap(
        self, number: int, path: tuple[Step, ...], captures: list[Any], instructions: list[Any]
    ) -> PendingResult:
        if not instructions:
            raise ProtocolError("a map must have instructions")
        captured = [self._captured(capture) for capture in captures]
        source = self._scope.find(_id(number))
        result = PendingResult()

        def apply(outcome: Outcome) -> None:
            try:
                value = self._follow(outcome.unwrap(), path)
                mapped = self._mapped(value, captured, instructions)
            except Exception as error:  # noqa: BLE001 - it is the outcome of the map
                result.resolve(Outcome(error=error))
            else:
                mapped.then(result.resolve)

        source.then(apply)
        return result

    def _captured(self, capture: Any) -> PendingResult:
        match capture:
            case ["import", int() as number]:
                return self._scope.find(_id(number))
            case ["export", int() as number]:
                stub = self._scope.stub(_id(number))
                self._stubs.append(stub)
                return PendingResult.of(stub)
        raise ProtocolError("a map can capture stubs only")

    def _mapped(self, value: Any, captured: list[PendingResult], instructions: list[Any]) -> PendingResult:
        if value is None:
            return PendingResult.of(None)
        if not isinstance(value, self._evaluator.codec.sequences):
            return self._apply(value, captured, instructions)
        results = [self._apply(element, captured, instructions) for element in value]
        return gather(results)

    def _apply(self, element: Any, captured: list[PendingResult], instructions: list[Any]) -> PendingResult:
        scope = _MapScope(captured, element)
        for instruction in instructions:
            self._steps[0] -= 1
            if self._steps[0] < 0:
                raise TooLarge(f"a map takes more than {self._limits.steps} steps: map over fewer elements")
            scope.results.append(_Evaluation(self._evaluator, scope, self._steps).result(instruction))
        return scope.results[-1]


class _MapScope:
    """The ids in a map's instructions: captures below zero, the element at zero, earlier results above."""

    def __init__(self, captured: list[PendingResult], element: Any) -> None:
        self._captured = captured
        self.results = [PendingResult.of(element)]

    def find(self, number: int) -> PendingResult:
        """As `Scope.find`."""
        results, index = (self._captured, -number - 1) if number < 0 else (self.results, number)
        if index >= len(results):
            raise ProtocolError(f"a map names {number}, which does not exist there")
        return results[index]

    def stub(self, _number: int) -> Remote:
        """As `Scope.stub`."""
        raise ProtocolError("a map contains an export expression, which is not allowed")

    def promise(self, _number: int) -> PendingResult:
        """As `Scope.promise`."""
        raise ProtocolError("a map contains a promise expression, which is not allowed")


def _dereferenced(value: Any) -> Any:
    if isinstance(value, Reference) and value.result.outcome is not None:
        return value.result.outcome.unwrap()
    return Named(replaced(dict(value), _dereferenced)) if isinstance(value, Named) else value


def _measure(value: Any, left: list[int], depth: int) -> None:
    """Raise TooLarge if `value` has more than `left` parts and characters, or is nested deeper than `depth`.

    A value that occurs in several places takes little memory, but is written at each: so each occurrence is counted.
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
    if isinstance(number, bool) or abs(number) > _MAX_ID:
        raise ProtocolError("an id must be a whole number below 2^53")
    return number


def _path(path: Any) -> tuple[Step, ...]:
    if not isinstance(path, list) or not all(
        isinstance(step, (str, int)) and not isinstance(step, bool) for step in path
    ):
        raise ProtocolError("a path must be a list of names and numbers")
    return tuple(path)
