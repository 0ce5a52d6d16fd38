"""DirectoryLock: gives a directory one owner, among all processes and within each."""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from pathlib import Path

from lakebed.errors import ObjectLocked

__all__ = ["LOCK_NAME", "DirectoryLock"]

LOCK_NAME = "lock"


class DirectoryLock:
    """An exclusive lock on a directory, among all processes and within each. `acquire` takes the lock.

    The kernel releases the lock when the process ends in any way: the lock file of a dead process is no obstacle.
    The file is never deleted: a process that had it open would then lock a file that no other process sees. Operators
    may delete it, so the directory itself is locked too, if the file system allows that. Programs that the process
    starts do not inherit the descriptors, and a forked child closes its copies at once: the child owns no lock.

    The modification time of the lock file is the time of the last acquire or release, by the owner's clock.
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
        """Take the lock, without waiting. The directory must exist.

        Raises:
            ObjectLocked: the directory has an owner; `pid` is the owner's process, or None if it could not be read.
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
        """Release the lock. Does nothing if it is not held."""
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
