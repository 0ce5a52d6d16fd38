"""The file operations on which durability depends, in one place.

Log, sealed segments and archive are written through a `Disk`. `Disk` is a public extension point: a test gives an
object a disk that fails, fills up or crashes at a chosen operation.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

__all__ = ["Disk"]


class Disk:
    """The local file system. Every method blocks, and raises OSError if the system reports an error."""

    def create(self, path: Path) -> int:
        """Create a file; returns a descriptor for reading and writing. Raises FileExistsError if the path exists."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def open(self, path: Path) -> int:
        """Open an existing file; returns a descriptor for reading and writing."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        os.close(descriptor)

    def write(self, descriptor: int, buffers: Sequence[bytes | memoryview], offset: int) -> None:
        """Write all of `buffers` at `offset`, also after short writes and EINTR. The bytes are durable after `sync`."""
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
        """Make a finished file durable. Another library may have written the file."""
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
        """Rename a file atomically; replaces an existing `target`. The rename is durable after `sync_directory`."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Delete a file. The deletion is durable after `sync_directory`."""
        path.unlink()

    def free_bytes(self, path: Path) -> int:
        """The bytes that are free for ordinary users on the file system of `path`."""
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize
