"""delegate: makes a method of one class available on another class, which holds an instance of the first."""

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
    """Make a method with the name, signature and docstring of `method` that calls it on the object at `path`.

    A coroutine function stays a coroutine function: an error of reading `path` (ObjectClosed) is raised on await.

    Args:
        method: a function of the class that does the work.
        path: attributes from `self` to the instance of that class, such as "_components.ingest".
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
