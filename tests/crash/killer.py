"""Kill the process at a chosen operation of the disk or of SQLite."""

import os
import signal
import sqlite3
from pathlib import Path

from lakebed import Disk


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Killer:
    """Counts the operations whose label contains `match`, and dies at the n-th: before it, halfway or after it."""

    def __init__(self, kill):
        self.match, self.at, self.when = kill.get("match"), kill.get("at", 0), kill.get("when", "before")
        self.seen = 0
        self.labels = [] if kill.get("later") else None  # the list grows with each operation
        self.armed = not kill.get("later")  # else the job "arm" does it

    def asks(self, label):
        """Whether the process dies at this operation. Kills at once if it must die before the operation."""
        if not self.armed:
            return False
        if self.labels is not None:
            self.labels.append(label)
        if self.match is None or self.match not in label:
            return False
        self.seen += 1
        if self.seen != self.at:
            return False
        if self.when == "before":
            die()
        return True

    def over(self, chosen):
        if chosen:
            die()


def label_of(path):
    """The tier and the kind of a file, such as `log/.parquet`."""
    path = Path(path)
    kinds = (".metadata.json", "-m0.avro", ".avro", ".parquet.tmp", ".log.tmp", ".parquet", ".log", ".ids")
    suffix = next((kind for kind in kinds if path.name.endswith(kind)), path.name)
    if suffix.endswith(".avro"):
        suffix = "snapshot-list" if path.name.startswith("snap-") else "manifest"
    return f"{'archive' if 'archive' in path.parts else 'log'}/{suffix}"


class KillDisk(Disk):
    """The real disk, on which the process dies at a chosen operation."""

    def __init__(self, killer):
        self.killer = killer
        self.paths = {}

    def create(self, path):
        chosen = self.killer.asks(f"create {label_of(path)}")
        descriptor = super().create(path)
        self.paths[descriptor] = path
        self.killer.over(chosen)
        return descriptor

    def open(self, path):
        chosen = self.killer.asks(f"open {label_of(path)}")
        descriptor = super().open(path)
        self.paths[descriptor] = path
        self.killer.over(chosen)
        return descriptor

    def write(self, descriptor, buffers, offset):
        what = label_of(self.paths[descriptor])
        label = f"mark {what}" if what == "log/.log" and offset == 64 else f"write {what}"
        chosen = self.killer.asks(label)
        if chosen and self.killer.when == "half":
            data = b"".join(map(bytes, buffers))
            super().write(descriptor, [data[: len(data) // 2]], offset)
            die()
        super().write(descriptor, buffers, offset)
        self.killer.over(chosen)

    def sync(self, descriptor):
        chosen = self.killer.asks(f"sync {label_of(self.paths[descriptor])}")
        super().sync(descriptor)
        self.killer.over(chosen)

    def truncate(self, descriptor, size):
        chosen = self.killer.asks(f"truncate {label_of(self.paths[descriptor])}")
        super().truncate(descriptor, size)
        self.killer.over(chosen)

    def sync_file(self, path):
        chosen = self.killer.asks(f"sync_file {label_of(path)}")
        super().sync_file(path)
        self.killer.over(chosen)

    def sync_directory(self, path):
        chosen = self.killer.asks(f"sync_directory {'archive' if 'archive' in Path(path).parts else 'log'}")
        super().sync_directory(path)
        self.killer.over(chosen)

    def replace(self, source, target):
        chosen = self.killer.asks(f"replace {label_of(target)}")
        super().replace(source, target)
        self.paths = {descriptor: target if path == source else path for descriptor, path in self.paths.items()}
        self.killer.over(chosen)

    def remove(self, path):
        chosen = self.killer.asks(f"remove {label_of(path)}")
        super().remove(path)
        self.killer.over(chosen)


def trace_sqlite(killer):
    """Make each statement of every later SQLite connection an operation: those of storage.db and of the catalog."""
    connect = sqlite3.connect

    def traced(path, *args, **kwargs):
        connection = connect(path, *args, **kwargs)
        place = "catalog" if "catalog" in str(path) else "storage"

        def seen(statement):
            killer.over(killer.asks(f"sql {place} {' '.join(statement.split()[:2])}"))

        connection.set_trace_callback(seen)
        return connection

    sqlite3.connect = sqlite3.dbapi2.connect = traced
