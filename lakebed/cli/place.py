"""Place: which object a command is for, as its options name it, and the decorators that add these options."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import msgspec
import typer

from lakebed.cli.exit_codes import Failure, need
from lakebed.cli.options import Class, Key, Name, Root, Url
from lakebed.clients.client import Client, LocalClient

__all__ = ["Place", "for_local_object", "for_object", "imported"]


class Place(msgspec.Struct, frozen=True):
    """The place of one object.

    Attributes:
        root: the directory of the objects.
        name: the object's name.
        class_name: the class to open the object as, `module:Class`; if empty, the class with which it was last opened.
        url: the address of a server; empty to open the object in this process.
        key: the server's key.
    """

    root: Path
    name: str
    class_name: str = ""
    url: str = ""
    key: str = ""

    @contextmanager
    def client(self, *, make: bool = False, trusted: bool = True) -> Iterator[Client]:
        """A client of the object: through the server at `url`, or opened in this process.

        Args:
            make: whether to make the object if it does not exist.
            trusted: whether SQL is the user's own; if not, it runs in the sandbox. A server never trusts it.

        Raises:
            Failure: there is no such object.
            InvalidSettings: the URL has another form.
            ObjectLocked: the object is open in another process.
        """
        if self.url:
            need("--url", ("httpx",), "cli")
            from lakebed.clients.remote import RemoteClient

            with RemoteClient(self.url, self.key) as remote:
                yield remote
            return
        with self.connection(make=make) as connection:
            yield LocalClient(connection, trusted=trusted)

    @contextmanager
    def connection(self, *, make: bool = False) -> Iterator[Any]:
        """The object, opened in this process, as `connect` gives it. Raises the errors of `client`."""
        from lakebed.objects.sync import connect

        with connect(self.root, self.name, self.object_class(make=make)) as connection:
            yield connection

    def object_class(self, *, make: bool = False) -> type[Any]:
        """The class to open the object as: `class_name`, or the class that its manifest names, else Analytics.

        Raises:
            Failure: there is no such object, and `make` is False; or the class cannot be imported.
        """
        from lakebed.analytics import Analytics
        from lakebed.objects.manifest import Manifest, directory_of
        from lakebed.objects.registry import classes

        manifest = Manifest.read(directory_of(self.root, self.name))
        if manifest is None and not make:
            raise Failure(
                f"there is no object {self.name!r} under {self.root}",
                hint="--root and --object say where it is; `lakebed objects` lists what is there",
            )
        if self.class_name:
            return imported(self.class_name)
        return Analytics if manifest is None else classes.get(manifest.kind, Analytics)


def imported(name: str) -> type[Any]:
    """The class that `module:Class` names, from the working directory or an installed package.

    Raises:
        Failure: the class cannot be imported, or the name is not that of a class.
    """
    module_name, _, class_name = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        attribute = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise Failure(f"{name!r} cannot be imported as a class: {error}", hint="Write it as module:Class") from None
    if not isinstance(attribute, type):
        raise Failure(f"{name!r} is not a class", hint="Write it as module:Class")
    return attribute


_LOCAL: Mapping[str, tuple[Any, Any]] = {
    "root": (Root, Path("data")),
    "object_name": (Name, "default"),
    "class_name": (Class, ""),
}
_ANYWHERE = {**_LOCAL, "url": (Url, ""), "key": (Key, "")}


def for_object(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with the options of an object that is here or on a server. Its first parameter is the `Place`.

    The command gets the place and not an open object, so that it can read all its input first: in a pipe of two
    commands, the second must not open the object while the first has it open.
    """
    return _with_options(command, _ANYWHERE)


def for_local_object(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with the options of an object on this machine only. Its first parameter is the `Place`."""
    return _with_options(command, _LOCAL)


def _with_options(command: Callable[..., None], options: Mapping[str, tuple[Any, Any]]) -> Callable[..., None]:
    @functools.wraps(command)
    def run(**values: Any) -> None:
        place = Place(*(values.pop(option) for option in options))
        command(place, **values)

    _, *own = inspect.signature(command, eval_str=True).parameters.values()
    keyword = inspect.Parameter.KEYWORD_ONLY
    added = [
        inspect.Parameter(name, keyword, annotation=annotation, default=default)
        for name, (annotation, default) in options.items()
    ]
    parameters = [parameter.replace(kind=keyword) for parameter in own if _is_argument(parameter)] + added
    parameters += [parameter.replace(kind=keyword) for parameter in own if not _is_argument(parameter)]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads both
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _is_argument(parameter: inspect.Parameter) -> bool:
    return any(isinstance(declared, typer.models.ArgumentInfo) for declared in get_args(parameter.annotation))
