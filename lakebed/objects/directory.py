"""The directory of an object: its name, its one owner, its manifest, and whether a schedule of it is due."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import weakref
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import msgspec

from lakebed.disk import Disk
from lakebed.errors import (
    FormatTooNew,
    InvalidName,
    LakebedError,
    LogCorrupted,
    NotReachable,
    ObjectLocked,
    ObjectUnavailable,
    WrongObject,
)
from lakebed.scheduling.schedule import schedules_of

__all__ = [
    "FORMAT",
    "LOCK_NAME",
    "DirectoryLock",
    "Manifest",
    "SleepingObject",
    "class_named",
    "classes",
    "directory_of",
    "is_due",
    "is_name",
    "names_in",
    "next_due",
    "sleepers",
]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def is_name(name: object) -> bool:
    """Whether an object may have that name."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def directory_of(root: Path, name: str) -> Path:
    """The directory of object `name` under `root`, which need not exist.

    Raises:
        InvalidName: the name is not allowed, or a symbolic link leads out of the root.
    """
    if not is_name(name):
        raise InvalidName(
            f"{str(name)[:80]!r} cannot be an object's name",
            hint="Use 1 to 63 of a-z, 0-9, '_' and '-', starting with a letter or a digit: names become directories",
            name=name,
        )
    inside = os.path.realpath(root)
    directory = Path(inside) / name
    if os.path.realpath(directory) != str(directory):
        hint = "The directory of an object must lie in its root, not behind a link"
        raise InvalidName(f"{directory} leads elsewhere", hint=hint, name=name)
    return directory


# Filled as subclasses of DurableObject are defined. Of two classes with one name the later counts: a notebook cell that
# is run again replaces its class.
classes: dict[str, type[Any]] = {}


def class_named(name: str) -> type[Any]:
    """The class of that name. Raises NotReachable: it is not defined, or its module was not imported."""
    if name not in classes:
        known = ", ".join(sorted(classes)) or "none"
        message = f"no class of objects is named {name!r}"
        raise NotReachable(message, hint=f"Known are: {known}. Import its module first", kind=name)
    return classes[name]


LOCK_NAME = "lock"


class DirectoryLock:
    """An exclusive lock on a directory, between processes and within one. Not held until `acquire`.

    The kernel releases it when the process ends, in any way: a lock file that a dead process left is no obstacle.
    The file is never deleted: a process that had it open would then lock a file that no other process sees. Operators
    do delete it, so the directory itself is locked too, where the file system can do that. Programs that the process
    starts do not inherit the descriptors, and a forked child closes its copies at once: it owns nothing.

    The lock file's modification time is when the lock was last acquired or released, by the owner's clock.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / LOCK_NAME
        self._descriptors: list[int] = []  # of the lock file, then of the directory
        _all.add(self)

    @property
    def held(self) -> bool:
        """Whether this object holds the lock now."""
        return bool(self._descriptors)

    def acquire(self, now_us: int) -> None:
        """Become the owner. The directory must exist. Does not wait.

        Raises:
            ObjectLocked: it has an owner; `pid` is the owner's process, None if that could not be read.
        """
        descriptors = [os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)]
        try:
            fcntl.flock(descriptors[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
            descriptors.append(os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            _lock_directory(descriptors[1])
            os.pwrite(descriptors[0], b"%-20d\n" % os.getpid(), 0)  # one width: never truncated
            os.utime(descriptors[0], ns=(now_us * 1000, now_us * 1000))
        except BlockingIOError:
            pid = _read_pid(descriptors[0])
            _close(descriptors)
            raise self._locked(pid) from None
        except BaseException:
            _close(descriptors)
            raise
        self._descriptors = descriptors

    def release(self, now_us: int) -> None:
        """Release the lock. Does nothing when it is not held."""
        descriptors, self._descriptors = self._descriptors, []
        if not descriptors:
            return
        try:
            with contextlib.suppress(FileNotFoundError):  # the directory may be gone …
                self._path.touch()  # … or only the file
                os.utime(self._path, ns=(now_us * 1000, now_us * 1000))
        finally:
            # Unlocked explicitly: a child forked in this moment may hold copies of the descriptors.
            for descriptor in descriptors:
                with contextlib.suppress(OSError):  # on NFS for the directory
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
            _close(descriptors)

    def _locked(self, pid: int | None) -> ObjectLocked:
        owner = "another process" if pid is None else f"process {pid}"
        if pid == os.getpid():
            owner = f"this process ({pid})"
        return ObjectLocked(
            f"object {self._directory.name!r} is open in {owner}",
            hint="Use it through its owner (its stub or its server), or close it there first",
            pid=pid,
            path=self._directory,
        )

    def _forget(self) -> None:
        descriptors, self._descriptors = self._descriptors, []
        _close(descriptors)  # no LOCK_UN: that would unlock the parent's


def _lock_directory(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if isinstance(error, BlockingIOError):
            raise
        # NFS locks files only: there the lock file must be enough.


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


_all: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for lock in list(_all):
        lock._forget()  # noqa: SLF001 - this module's own


os.register_at_fork(after_in_child=_after_fork_in_child)


def _read_pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else None


FILE_NAME = "object.json"
FORMAT = 1


class _Format(msgspec.Struct):
    format: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True, rename={"kind": "class"}):
    """The content of `object.json`.

    Attributes:
        format: the layout of the directory; a number above `FORMAT` belongs to a newer Lakebed.
        kind: name of the most specific class that the object was opened as; `class` in the file.
        bases: names of the DurableObject classes that it inherits from, nearest first.
    """

    format: int = FORMAT
    kind: str
    bases: tuple[str, ...] = ()

    @classmethod
    def read(cls, directory: Path) -> Manifest | None:
        """The manifest of `directory`; None if it has none, which means that no object was ever opened there.

        Raises:
            FormatTooNew: a newer Lakebed wrote it.
            LogCorrupted: it cannot be decoded.
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
        """The manifest that `directory` should have when an object of `new`'s class is opened in it.

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
        """Write this manifest durably: after a crash the old one or the new one is there, whole. Blocks."""
        path, draft = directory / FILE_NAME, directory / (FILE_NAME + ".new")
        if draft.exists():  # a crash left it; this process owns the directory
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


class SleepingObject(msgspec.Struct, frozen=True):
    """An object that is not awake here: its name, the class it was opened as, and the time of its last close."""

    name: str
    kind: str
    since_us: int


def names_in(root: Path) -> list[str]:
    """The names of the objects under `root`, sorted: the directories with a manifest. Blocks."""
    try:
        with os.scandir(root) as entries:
            return sorted(
                entry.name for entry in entries if is_name(entry.name) and (Path(entry.path) / FILE_NAME).exists()
            )
    except FileNotFoundError:
        return []


def sleepers(root: Path, awake: Container[str]) -> tuple[list[SleepingObject], list[LakebedError]]:
    """The objects under `root` that are not `awake`, and an error for each that cannot be read. Blocks."""
    sleeping: list[SleepingObject] = []
    unreadable: list[LakebedError] = []
    for name in names_in(root):
        if name in awake:
            continue
        try:
            manifest = Manifest.read(root / name)
            since_ns = (root / name / LOCK_NAME).stat().st_mtime_ns
        except FileNotFoundError:  # deleted meanwhile, or copied without its lock: its first call makes one
            continue
        except LakebedError as error:
            unreadable.append(error)
            continue
        except OSError as error:
            hint = "Its schedules do not run until it can be read"
            message = f"{root / name} cannot be read: {error}"
            unreadable.append(ObjectUnavailable(message, hint=hint, path=root / name))
            continue
        if manifest is not None:
            sleeping.append(SleepingObject(name, manifest.kind, since_ns // 1000))
    return sleeping, unreadable


def is_due(object_class: type[Any], since_us: int, now_us: int, timezone: str) -> bool:
    """Whether a schedule of the class was due after `since_us`, and not after `now_us`."""
    return any(
        method.schedule.latest_due(since_us, now_us, timezone) is not None for method in schedules_of(object_class)
    )


def next_due(classes: Iterable[type[Any]], after_us: int, timezone: str) -> int | None:
    """The time at which a schedule of one of `classes` is due next, after `after_us`. None if they have no schedule."""
    return min(
        (method.schedule.next_after(after_us, timezone) for each in classes for method in schedules_of(each)),
        default=None,
    )
