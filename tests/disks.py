"""Disks that fail, and disks that remember what a crash at any moment would leave."""

import asyncio
import errno
import os
import threading
from pathlib import Path

from lakebed.disk import Disk

SECTOR = 512


class FaultyDisk(Disk):
    """The real disk. It records what it is asked to do, and fails where a test says so."""

    def __init__(self):
        self.calls = []  # (operation, file name)
        self.free = None
        self.open_descriptors = {}  # descriptor -> name
        self._faults = []
        self._lock = threading.Lock()

    def fail(self, operation, code=errno.EIO, *, name="", after=0, times=1, partial=None):
        """Let `operation` on files whose name contains `name` fail, `times` times after `after` good ones.

        `partial` bytes of a failing write are written all the same.
        """
        self._faults.append(
            {"op": operation, "code": code, "name": name, "after": after, "times": times, "cut": partial}
        )

    def heal(self):
        self._faults.clear()

    def count(self, operation, name=""):
        return sum(op == operation and name in file for op, file in self.calls)

    def before(self, operation, name):
        """A hook for subclasses."""

    def _ask(self, operation, name):
        with self._lock:
            self.before(operation, name)
            self.calls.append((operation, name))
            for fault in self._faults:
                if fault["op"] == operation and fault["name"] in name:
                    if fault["after"] > 0:
                        fault["after"] -= 1
                    elif fault["times"] > 0:
                        fault["times"] -= 1
                        return fault
        return None

    def _check(self, operation, name):
        if (fault := self._ask(operation, name)) is not None:
            raise OSError(fault["code"], os.strerror(fault["code"]), name)

    def create(self, path):
        self._check("create", path.name)
        descriptor = super().create(path)
        self.open_descriptors[descriptor] = path.name
        return descriptor

    def open(self, path):
        self._check("open", path.name)
        descriptor = super().open(path)
        self.open_descriptors[descriptor] = path.name
        return descriptor

    def close(self, descriptor):
        name = self.open_descriptors.pop(descriptor)
        super().close(descriptor)
        self._check("close", name)

    def write(self, descriptor, buffers, offset):
        name = self.open_descriptors[descriptor]
        if (fault := self._ask("write" if offset else "write header", name)) is not None:
            if fault["cut"]:
                super().write(descriptor, [b"".join(map(bytes, buffers))[: fault["cut"]]], offset)
            raise OSError(fault["code"], os.strerror(fault["code"]), name)
        super().write(descriptor, buffers, offset)

    def sync(self, descriptor):
        self._check("sync", self.open_descriptors[descriptor])
        super().sync(descriptor)

    def truncate(self, descriptor, size):
        self._check("truncate", self.open_descriptors[descriptor])
        super().truncate(descriptor, size)

    def sync_file(self, path):
        self._check("sync_file", path.name)
        super().sync_file(path)

    def sync_directory(self, path):
        self._check("sync_directory", path.name)
        super().sync_directory(path)

    def replace(self, source, target):
        self._check("replace", target.name)
        super().replace(source, target)

    def remove(self, path):
        self._check("remove", path.name)
        super().remove(path)

    def free_bytes(self, path):
        self._check("free_bytes", path.name)
        return super().free_bytes(path) if self.free is None else self.free


class GatedDisk(FaultyDisk):
    """A disk whose syncs wait until they are let through."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.reached = threading.Event()

    def sync(self, descriptor):
        self.reached.set()
        assert self.gate.wait(20)
        super().sync(descriptor)


async def reach(disk):
    """Return when the disk is in the middle of a sync."""
    await asyncio.to_thread(disk.reached.wait, 20)


class SlowSealing(FaultyDisk):
    """A disk on which sealing waits until it is let through."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.reached = threading.Event()

    def sync_file(self, path):
        self.reached.set()
        assert self.gate.wait(20)
        super().sync_file(path)


class _File:
    """One inode: what is durable of it, and what was written since."""

    def __init__(self):
        self.durable = b""
        self.changes = []  # (offset, bytes), or an int: truncated to that size


class CrashDisk(Disk):
    """The real disk, which keeps for every operation what a crash just before it would leave.

    `images` holds (kind, acknowledged so far, {name: bytes}). Kind "process" is the directory as it is: the kernel
    keeps what was written. Kind "power" has what was synced, any sectors of what was not, and any first part of the
    renames and deletions since the directory was synced.
    """

    def __init__(self, directory, acknowledged, rng):
        self.images = []
        self._directory = directory
        self._acknowledged = acknowledged
        self._rng = rng
        self._lock = threading.RLock()
        self._by_descriptor = {}
        self._names = {}
        self._durable_names = {}
        self._moves = []
        for path in sorted(directory.glob("*")) if directory.exists() else []:
            file = _File()
            file.durable = path.read_bytes()
            self._names[path.name] = self._durable_names[path.name] = file

    def _note(self):
        if not self._directory.exists():
            return
        acknowledged = list(self._acknowledged)
        # A file that goes while we look was never there, or is there under its new name: the lock excludes our own.
        process = {path.name: path.read_bytes() for path in sorted(self._directory.iterdir())}
        self.images.append(("process", acknowledged, process))
        self.images.append(("power", acknowledged, self._after_power_loss()))

    def distinct(self, *kinds):
        """(acknowledged, image) of those kinds, each image once, with the longest list of acknowledged ones."""
        latest = {}
        for kind, acknowledged, image in self.images:
            if kind in kinds:
                latest[tuple(sorted(image.items()))] = (acknowledged, image)
        return list(latest.values())

    def _after_power_loss(self):
        names = dict(self._durable_names)
        for source, target, file in self._moves[: self._rng.randint(0, len(self._moves))]:
            names.pop(source, None)
            if target is not None:
                names[target] = file
        files = {name: self._persisted(file) for name, file in names.items()}
        for path in self._directory.glob("*.ids"):  # never synced: it may hold anything
            files[path.name] = self._rng.choice([b"", b"\0" * 40, path.read_bytes(), path.read_bytes()[:-1]])
        return files

    def _persisted(self, file):
        data = bytearray(file.durable)
        for change in file.changes:
            if isinstance(change, int):
                if self._rng.random() < 0.5:
                    del data[change:]
                continue
            offset, new = change
            mode = self._rng.choice(["all", "none", "some"])
            for start in range(offset - offset % SECTOR, offset + len(new), SECTOR):
                if mode == "all" or (mode == "some" and self._rng.random() < 0.5):
                    first, last = max(start, offset), min(start + SECTOR, offset + len(new))
                    data.extend(b"\0" * (last - len(data)))
                    data[first:last] = new[first - offset : last - offset]
        return bytes(data)

    def create(self, path):
        with self._lock:
            self._note()
            descriptor = super().create(path)
            file = self._by_descriptor[descriptor] = self._names[path.name] = _File()
            self._moves.append((path.name, path.name, file))
            return descriptor

    def open(self, path):
        with self._lock:
            self._note()
            descriptor = super().open(path)
            self._by_descriptor[descriptor] = self._names[path.name]
            return descriptor

    def write(self, descriptor, buffers, offset):
        with self._lock:
            self._note()
            data = b"".join(map(bytes, buffers))
            half = len(data) // 2
            if len(data) > 12:  # the kernel may die in the middle of it; a marker is within one sector
                super().write(descriptor, [data[:half]], offset)
                self._by_descriptor[descriptor].changes.append((offset, data[:half]))
                self._note()
            super().write(descriptor, buffers, offset)
            self._by_descriptor[descriptor].changes.append((offset, data))

    def sync(self, descriptor):
        with self._lock:
            self._note()
            super().sync(descriptor)
            self._made_durable(self._by_descriptor[descriptor], os.pread(descriptor, 1 << 30, 0))

    def _made_durable(self, file, data):
        file.durable = data
        file.changes = []

    def truncate(self, descriptor, size):
        with self._lock:
            self._note()
            super().truncate(descriptor, size)
            self._by_descriptor[descriptor].changes.append(size)

    def sync_file(self, path):
        with self._lock:
            self._note()
            super().sync_file(path)
            file = self._names.setdefault(path.name, _File())
            self._moves.append((path.name, path.name, file))
            self._made_durable(file, path.read_bytes())

    def sync_directory(self, path):
        with self._lock:
            self._note()
            super().sync_directory(path)
            if path == self._directory:
                self._durable_names = dict(self._names)
                self._moves = []

    def replace(self, source, target):
        with self._lock:
            self._note()
            super().replace(source, target)
            file = self._names.pop(source.name)
            self._names[target.name] = file
            self._moves.append((source.name, target.name, file))

    def remove(self, path):
        with self._lock:
            self._note()
            super().remove(path)
            self._names.pop(path.name, None)
            self._moves.append((path.name, None, None))


def put_back(image, directory):
    """Write a directory's image to disk."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in image.items():
        Path(directory / name).write_bytes(data)
