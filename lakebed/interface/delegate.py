"""delegate: a method of one class as a method of another that has an instance of it."""

from __future__ import annotations

import functools
import inspect
import operator
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

__all__ = ["delegate"]

_Arguments = ParamSpec("_Arguments")
_Returned = TypeVar("_Returned")


def delegate(
    method: Callable[Concatenate[Any, _Arguments], _Returned], path: str
) -> Callable[Concatenate[Any, _Arguments], _Returned]:
    """A method with the name, signature and docstring of `method`, called on the attribute at `path`.

    A coroutine function stays one, so an error of the attribute (ObjectClosed) is raised when the call is awaited.

    Args:
        method: a function of the class that does the work.
        path: where its instance is, from `self`: "_components.ingest".
    """
    instance = operator.attrgetter(path)
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def call_later(self: Any, /, *args: Any, **kwargs: Any) -> Any:
            return await method(instance(self), *args, **kwargs)

        return call_later  # type: ignore[return-value]  # a coroutine function, as `method` is

    @functools.wraps(method)
    def call(self: Any, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> _Returned:
        return method(instance(self), *args, **kwargs)

    return call
