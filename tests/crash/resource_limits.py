"""The resources of a process, the disk space of an object, and the limits that torture sets for them."""

import os
from pathlib import Path

import pyarrow as pa

_MB = 1 << 20

# Limits of every session, however it ended. RSS includes the pages shared with its parent: Arrow, DuckDB, pyiceberg.
# A query keeps the files open that it reads, and small settings make many files.
MOST = {"rss": 400 * _MB, "descriptors": 300, "threads": 40}
# Limits of an object's directory: bytes, and bytes for each event. "disk" is for any moment, "settled" for the end,
# when all is archived, compacted, expired and collected. Files have at most 250 events, and few fill a block.
DISK = {"disk": (4 * _MB, 800), "settled": (_MB, 600)}
# The growth allowed to a long life from its second third to its last: noise only. Arrow starts threads of its I/O
# pool when all are busy at once, up to eight, and keeps them: torture allows it two, so that a leak shows.
MOST_GROWTH = {"rss": 24 * _MB, "descriptors": 4, "threads": 2}
pa.set_io_thread_count(2)


def held(pid="self"):
    """RSS in bytes, open descriptors and threads of a process, now."""
    process = Path(f"/proc/{pid}")
    pages = int((process / "statm").read_text().split()[1])
    return {
        "rss": pages * os.sysconf("SC_PAGE_SIZE"),
        "descriptors": len(os.listdir(process / "fd")),  # noqa: PTH208 - names are all that is needed
        "threads": len(os.listdir(process / "task")),  # noqa: PTH208 - the same
    }


def disk_bytes(directory):
    """The bytes on disk of the files in a directory, without files that are deleted meanwhile."""
    total = 0
    for path, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.stat(os.path.join(path, name)).st_blocks * 512  # noqa: PTH116, PTH118 - it is walked often
            except FileNotFoundError:
                continue
    return total


class Peak:
    """The largest amount of each resource so far."""

    def __init__(self):
        self.most = {}

    def see(self, **amounts):
        for name, value in amounts.items():
            self.most[name] = max(value, self.most.get(name, 0))

    def check(self):
        for name, bound in MOST.items():
            assert self.most.get(name, 0) <= bound, f"{name}: {self.most[name]} is more than {bound}"


def check_growth(samples):
    """Compare the last third of a long life's samples with the second. The first third is warm-up."""
    third = len(samples) // 3
    for name, bound in MOST_GROWTH.items():
        before = max(sample[name] for sample in samples[third : 2 * third])
        after = max(sample[name] for sample in samples[2 * third :])
        assert after - before <= bound, f"{name} grew from {before} to {after}: {[sample[name] for sample in samples]}"


def check_disk(name, directory, events):
    """The bytes of a directory with this many events, and their percentage of the limit."""
    size = disk_bytes(directory)
    base, each = DISK[name]
    assert size <= base + each * events, f"{name}: {size} bytes for {events} events"
    return {name: size, f"{name}_share": round(100 * size / (base + each * events))}
