"""Events, archives and disks for the tests of the archive."""

import shutil
from pathlib import Path

import pyarrow as pa

from lakebed.clock import ManualClock
from lakebed.disk import Disk
from lakebed.events.event import SCHEMA
from lakebed.events.promotions import BUILT_IN, as_promotions
from lakebed.settings import Settings
from lakebed.tiers.archive.archive import Archive

TIME = pa.timestamp("us", tz="UTC")
DAY = 86_400_000_000
START = ManualClock().now_us()
PROMOTIONS = as_promotions({"revenue": float})


def events(start, end, *, at=None, user=lambda seq: f"u{seq % 7}"):
    """The events [start, end), in seq order. `at` gives an event's microseconds; by default six hours apart."""
    at = at or (lambda seq: START + seq * DAY // 4)
    seqs = list(range(start, end))
    count = len(seqs)
    columns = {
        "seq": pa.array(seqs, pa.int64()),
        "message_id": pa.array([f"m{seq}" for seq in seqs]),
        "type": pa.array(["track"] * count),
        "event": pa.array([f"e{seq % 3}" for seq in seqs]),
        "user_id": pa.array([user(seq) for seq in seqs]),
        "anonymous_id": pa.nulls(count, pa.string()),
        "group_id": pa.nulls(count, pa.string()),
        "session_id": pa.nulls(count, pa.string()),
        "timestamp": pa.array([at(seq) for seq in seqs], pa.int64()).cast(TIME),
        "received_at": pa.array([START + seq for seq in seqs], pa.int64()).cast(TIME),
        "source": pa.array(["web"] * count),
        "properties": pa.array([f'{{"revenue": {seq}.5, "plan": "p{seq % 2}"}}' for seq in seqs]),
        "context": pa.array(["{}"] * count),
    }
    return pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def open_archive(root: Path, *, promotions=PROMOTIONS, clock=None, disk=None, name="shop", **settings) -> Archive:
    settings = {"garbage_grace_s": 0, "snapshots_keep": 1, "snapshots_age_s": 0} | settings
    return Archive(
        root / name / "archive", name, Settings(**settings), clock or ManualClock(), disk or QuickDisk(), promotions
    )


async def seqs(archive, snapshot=None):
    """Every seq that a snapshot's files hold, sorted, read with PyArrow from the files themselves."""
    async with archive.pin(snapshot) as view:
        return seqs_of(view.files)


def seqs_of(files):
    return sorted(seq for file in files for seq in read(file.path)["seq"].to_pylist())


def read(path):
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).read()


def stored(root: Path):
    """Every file under a directory."""
    return sorted(path for path in root.rglob("*") if path.is_file())


class Died(BaseException):
    """The simulated process has died."""


class QuickDisk(Disk):
    """Skips all syncs: these tests cut no power."""

    def sync(self, descriptor):
        """Takes no time."""
        del descriptor

    def sync_directory(self, path):
        """Takes no time."""
        del path


class MortalDisk(QuickDisk):
    """Dies before its n-th operation, or halfway if it is a write; later operations do nothing."""

    def __init__(self, lives=1 << 60):
        self.lives = lives
        self.done = 0

    def _live(self):
        self.done += 1
        if self.done > self.lives:
            raise Died

    def create(self, path):
        self._live()
        return super().create(path)

    def write(self, descriptor, buffers, offset):
        try:
            self._live()
        except Died:
            if self.done == self.lives + 1:
                data = b"".join(buffers)
                super().write(descriptor, [data[: len(data) // 2]], offset)
            raise
        super().write(descriptor, buffers, offset)

    def sync(self, descriptor):
        self._live()
        super().sync(descriptor)

    def sync_directory(self, path):
        self._live()
        super().sync_directory(path)

    def remove(self, path):
        self._live()
        super().remove(path)


class PowerlessDisk(MortalDisk):
    """Dies like MortalDisk; `lose` then removes bytes and names that were never synced, as a power loss does.

    SQLite syncs the catalog by itself: it stays.
    """

    def __init__(self, root, lives=1 << 60):
        super().__init__(lives)
        self._root = root
        self._durable = set(root.rglob("*"))
        self._unsynced = set()
        self._paths = {}

    def create(self, path):
        descriptor = super().create(path)
        self._paths[descriptor] = path
        self._unsynced.add(path)
        return descriptor

    def write(self, descriptor, buffers, offset):
        self._unsynced.add(self._paths[descriptor])
        super().write(descriptor, buffers, offset)

    def sync(self, descriptor):
        super().sync(descriptor)
        self._unsynced.discard(self._paths[descriptor])

    def sync_directory(self, path):
        super().sync_directory(path)
        self._durable |= set(path.iterdir())

    def lose(self, rng):
        """Cut the power: a name that is not durable is lost with all below it, or stays by chance; so do bytes."""
        for path in sorted(self._root.rglob("*")):
            if not path.exists() or path.name.startswith("catalog.db"):
                continue
            if path not in self._durable and not list(path.glob("catalog.db*")) and rng.random() < 0.7:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            elif path in self._unsynced:
                size = path.stat().st_size
                path.write_bytes(rng.choice([b"", bytes(size), path.read_bytes()[: rng.randint(0, size)]]))


__all__ = [
    "BUILT_IN",
    "DAY",
    "PROMOTIONS",
    "START",
    "Died",
    "MortalDisk",
    "PowerlessDisk",
    "QuickDisk",
    "events",
    "open_archive",
    "read",
    "seqs",
    "seqs_of",
    "stored",
]
