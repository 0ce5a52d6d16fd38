"""The file operations on which durability depends, in one place.

Log, sealed segments and archive are written through a `Disk`. It is a public extension point: a test passes an object a
disk that fails, fills up or crashes at a chosen operation.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Disk"]


class Disk:
    """The local file system. Every method blocks, and raises the system's OSError."""

    def create(self, path: Path) -> int:
        """A descriptor of a new file, for reading and writing. Raises FileExistsError."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def open(self, path: Path) -> int:
        """A descriptor of an existing file, for reading and writing."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        os.close(descriptor)

    def write(self, descriptor: int, buffers: Sequence[bytes | memoryview], offset: int) -> None:
        """Write all of `buffers` at `offset`, also after short writes and EINTR. Durable after `sync`."""
        total = sum(len(buffer) for buffer in buffers)
        written = os.pwritev(descriptor, buffers, offset)
        if written < total:
            rest = memoryview(b"".join(buffers))
            while written < total:
                written += os.pwrite(descriptor, rest[written:], offset + written)

    def sync(self, descriptor: int) -> None:
        """Make a file's bytes and size durable. After an OSError the bytes must be regarded as lost: never retry."""
        os.fdatasync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file to `size` bytes."""
        os.ftruncate(descriptor, size)

    def sync_file(self, path: Path) -> None:
        """Make a finished file durable, also one that another library wrote."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_directory(self, path: Path) -> None:
        """Make creations, renames and deletions in a directory durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def replace(self, source: Path, target: Path) -> None:
        """Rename atomically, over `target` if it exists. Durable after `sync_directory`."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Delete a file. Durable after `sync_directory`."""
        path.unlink()

    def free_bytes(self, path: Path) -> int:
        """Free bytes for ordinary users on the file system of `path`."""
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize
