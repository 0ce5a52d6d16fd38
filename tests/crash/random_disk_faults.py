"""A disk whose operations fail at random: before or after their effect, or halfway through it."""

import errno
import os
import random
import threading
from collections import Counter

from lakebed import Disk
from tests.crash.killer import label_of

_SPELL = 12  # writes in a row for which a full disk stays full, at the most
_AFTER = ("truncate", "sync", "sync_file", "sync_directory", "replace", "remove")  # a failed one may have had effect


class RoughDisk(Disk):
    """Another disk, some of whose operations raise EIO or ENOSPC. `hits` counts them; `on` lets them begin and end.

    A write that fails may leave a part of it, a sync that fails may have synced, a rename that fails may have renamed.

    Args:
        rate: the probability that an operation fails.
        only: a part of the label (`sync log/.parquet`) of the operations that may fail.
    """

    def __init__(self, inner, seed, *, rate, only=""):
        self.inner = inner
        self.on = False
        self.hits = 0
        self._rate, self._only = rate, only
        self._seed = seed
        self._times = Counter()  # calls of each label, so that faults do not depend on the order of the tasks
        self._full = 0  # operations that still find the disk full
        self._paths = {}
        self._lock = threading.Lock()

    def _draw(self, operation, path):
        """None, or the error of the operation and the part of its effect that comes first."""
        label = f"{operation} {label_of(path)}"
        with self._lock:
            if not self.on or self._only not in label:
                return None
            self._times[label] += 1
            rng = random.Random(f"{self._seed}/{label}/{self._times[label]}")
            if self._full and operation in ("create", "write"):
                self._full -= 1
                code = errno.ENOSPC
            elif rng.random() < self._rate:
                code = rng.choice([errno.EIO, errno.EIO, errno.ENOSPC])
                self._full = rng.randint(0, _SPELL) if code == errno.ENOSPC else 0
            else:
                return None
            self.hits += 1
            part = rng.choice([0.0, 0.5, 1.0]) if operation == "write" else rng.choice([0.0, operation in _AFTER])
            return OSError(code, f"{os.strerror(code)}, injected at {label}"), part

    def _do(self, operation, path, work):
        drawn = self._draw(operation, path)
        if drawn is None or drawn[1]:
            work()
        if drawn is not None:
            raise drawn[0]

    def create(self, path):
        self._do("create", path, lambda: None)
        return self._remember(self.inner.create(path), path)

    def open(self, path):
        self._do("open", path, lambda: None)
        return self._remember(self.inner.open(path), path)

    def _remember(self, descriptor, path):
        self._paths[descriptor] = path
        return descriptor

    def close(self, descriptor):
        path = self._paths.pop(descriptor)
        self.inner.close(descriptor)
        self._do("close", path, lambda: None)

    def write(self, descriptor, buffers, offset):
        drawn = self._draw("write", self._paths[descriptor])
        if drawn is None:
            self.inner.write(descriptor, buffers, offset)
            return
        data = b"".join(map(bytes, buffers))
        if part := round(len(data) * drawn[1]):
            self.inner.write(descriptor, [data[:part]], offset)
        raise drawn[0]

    def sync(self, descriptor):
        self._do("sync", self._paths[descriptor], lambda: self.inner.sync(descriptor))

    def truncate(self, descriptor, size):
        self._do("truncate", self._paths[descriptor], lambda: self.inner.truncate(descriptor, size))

    def sync_file(self, path):
        self._do("sync_file", path, lambda: self.inner.sync_file(path))

    def sync_directory(self, path):
        self._do("sync_directory", path, lambda: self.inner.sync_directory(path))

    def replace(self, source, target):
        self._do("replace", target, lambda: self.inner.replace(source, target))

    def remove(self, path):
        self._do("remove", path, lambda: self.inner.remove(path))

    def free_bytes(self, path):
        self._do("free_bytes", path, lambda: None)
        return self.inner.free_bytes(path)
