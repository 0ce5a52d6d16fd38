"""One owner a directory: a `flock` on its lock file, which holds the owner's pid."""

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
    """The exclusive right to a directory, between processes and within one. Not held until `take`.

    The kernel drops it when the process ends, however it ends: a lock file that a dead process left is no obstacle, and
    the file is never deleted (whoever had it open would then lock a file that nobody else sees). Operators do delete
    it, so the directory itself is locked too, where the file system can do that. The descriptors are not inherited by
    programs that the process starts, and a forked child gives its copies up at once: it owns nothing.

    The lock file's modification time is when the directory was last taken or released, by the owner's clock.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._path = directory / LOCK_NAME
        self._descriptors: list[int] = []  # of the lock file, then of the directory
        _all.add(self)

    @property
    def held(self) -> bool:
        """Whether this object holds the right now."""
        return bool(self._descriptors)

    def take(self, now_us: int) -> None:
        """Become the owner. The directory must exist. Does not wait.

        Raises:
            ObjectLocked: it has an owner; `pid` says which process, None if that could not be read.
        """
        taken = [os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)]
        try:
            fcntl.flock(taken[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
            taken.append(os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            _lock_directory(taken[1])
            os.pwrite(taken[0], b"%-20d\n" % os.getpid(), 0)  # one width: no truncation, and no space once it exists
            os.utime(taken[0], ns=(now_us * 1000, now_us * 1000))
        except BlockingIOError:
            pid = _read_pid(taken[0])
            _close(taken)
            raise self._locked(pid) from None
        except BaseException:
            _close(taken)
            raise
        self._descriptors = taken

    def release(self, now_us: int) -> None:
        """Give the right up. Does nothing when it is not held."""
        taken, self._descriptors = self._descriptors, []
        if not taken:
            return
        try:
            with contextlib.suppress(FileNotFoundError):  # the directory may be gone …
                self._path.touch()  # … or only the file
                os.utime(self._path, ns=(now_us * 1000, now_us * 1000))
        finally:
            # Unlocked explicitly: a child forked in this moment may hold copies of the descriptors.
            for descriptor in taken:
                with contextlib.suppress(OSError):  # on NFS for the directory
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
            _close(taken)

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
        taken, self._descriptors = self._descriptors, []
        _close(taken)  # no LOCK_UN: that would unlock the parent's


def _lock_directory(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if isinstance(error, BlockingIOError):
            raise
        # NFS locks files only: there the lock file has to do.


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


_all: weakref.WeakSet[DirectoryLock] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for ownership in list(_all):
        ownership._forget()  # noqa: SLF001 - this module's own


os.register_at_fork(after_in_child=_after_fork_in_child)


def _read_pid(descriptor: int) -> int | None:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else None
