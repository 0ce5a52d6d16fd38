"""The directory of an object: the directory's name, and its manifest, which describes its contents."""

from __future__ import annotations

import os
import re
from pathlib import Path

import msgspec

from lakebed.disk import Disk
from lakebed.errors import FormatTooNew, InvalidName, LogCorrupted, WrongObject

__all__ = ["FORMAT", "Manifest", "check_name", "directory_of", "is_name", "names_in"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def is_name(name: object) -> bool:
    """Whether `name` is allowed as the name of an object."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def check_name(name: object) -> None:
    """Raise InvalidName if `name` is not allowed as the name of an object."""
    if not is_name(name):
        raise InvalidName(
            f"{str(name)[:80]!r} cannot be an object's name",
            hint="Use 1 to 63 of a-z, 0-9, '_' and '-', starting with a letter or a digit: names become directories",
            name=name,
        )


def directory_of(root: Path, name: str) -> Path:
    """The path of object `name`'s directory under `root`. It need not exist.

    Raises:
        InvalidName: the name is not allowed, or a symbolic link leads out of the root.
    """
    check_name(name)
    inside = os.path.realpath(root)
    directory = Path(inside) / name
    if os.path.realpath(directory) != str(directory):
        hint = "Use a real directory in the root"
        raise InvalidName(f"the directory {directory} is a link to another place", hint=hint, name=name)
    return directory


FILE_NAME = "object.json"
FORMAT = 1


class _Format(msgspec.Struct):
    format: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename={"kind": "class"}):
    """The content of `object.json`, the manifest of a directory.

    Attributes:
        format: the layout of the directory; a number above `FORMAT` belongs to a newer Lakebed.
        kind: name of the most specific class that the object was opened as; `class` in the file.
        bases: names of the DurableObject classes from which that class inherits, nearest first.
    """

    format: int = FORMAT
    kind: str
    bases: tuple[str, ...] = ()

    @classmethod
    def read(cls, directory: Path) -> Manifest | None:
        """Read the manifest of `directory`; None if there is no manifest: then no object was ever opened there.

        Raises:
            FormatTooNew: a newer Lakebed wrote the manifest.
            LogCorrupted: the manifest cannot be decoded.
        """
        path = directory / FILE_NAME
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            version = msgspec.json.decode(content, type=_Format).format
            if version > FORMAT:
                message = f"{directory} has format {version}, this Lakebed reads up to {FORMAT}"
                raise FormatTooNew(message, hint="Upgrade Lakebed", path=path, format=version)
            return msgspec.json.decode(content, type=cls)
        except msgspec.DecodeError as error:
            raise LogCorrupted(f"the manifest cannot be decoded: {error}", path=path, offset=0) from error

    def agree(self, new: Manifest, directory: Path) -> Manifest:
        """The manifest that `directory` must have after an object of `new`'s class is opened in it.

        An object may be opened as the class it was made with, as one of that class's bases (a notebook opens a `Shop`
        as plain `Analytics`), as a subclass, or as a sibling (the class was renamed).

        Raises:
            WrongObject: the classes have no base in common.
        """
        if new.kind == self.kind or new.kind in self.bases:
            return new if new.kind == self.kind else self
        if {self.kind, *self.bases}.isdisjoint({new.kind, *new.bases}):
            raise WrongObject(
                f"{directory} holds an object of class {self.kind}, not of {new.kind}",
                hint=f"Open it as {self.kind}, or use another name",
                path=directory,
                found=self.kind,
            )
        return new

    def write(self, directory: Path, disk: Disk) -> None:
        """Write this manifest durably: after a crash either the old or the new manifest exists, complete. Blocks."""
        path, draft = directory / FILE_NAME, directory / (FILE_NAME + ".new")
        if draft.exists():  # left by a crash: this process owns the directory
            disk.remove(draft)
        descriptor = disk.create(draft)
        try:
            disk.write(descriptor, [msgspec.json.encode(self)], 0)
            disk.sync(descriptor)
        finally:
            disk.close(descriptor)
        disk.replace(draft, path)
        disk.sync_directory(directory)
        disk.sync_directory(directory.parent)


def names_in(root: Path) -> list[str]:
    """The names of the objects under `root`, sorted: the directories with a manifest. Blocks."""
    try:
        with os.scandir(root) as entries:
            return sorted(
                entry.name for entry in entries if is_name(entry.name) and (Path(entry.path) / FILE_NAME).exists()
            )
    except FileNotFoundError:
        return []
