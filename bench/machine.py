"""What a run was made on."""

from __future__ import annotations

import os
import platform
import sqlite3
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

_PACKAGES = ("lakebed", "duckdb", "pyarrow", "pyiceberg", "msgspec", "chdb", "redis")


class Machine(msgspec.Struct, frozen=True):
    """Facts that a figure means nothing without."""

    processor: str
    cores: int
    memory_gb: float
    system: str
    filesystem: str
    python: str
    load: float
    versions: dict[str, str]

    @classmethod
    def read(cls, directory: Path) -> Machine:
        """This machine, and the file system of `directory`."""
        return cls(
            processor=_processor(),
            cores=len(os.sched_getaffinity(0)),
            memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
            system=f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
            filesystem=_filesystem(directory),
            python=platform.python_version(),
            load=round(os.getloadavg()[0], 1),
            versions={name: installed for name in _PACKAGES if (installed := _version(name))}
            | {"sqlite": sqlite3.sqlite_version},
        )

    def __str__(self) -> str:
        packages = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return (
            f"{self.processor}, {self.cores} cores, {self.memory_gb:g} GB, {self.filesystem}, {self.system}, "
            f"Python {self.python}, load {self.load:g} at the start; {packages}"
        )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _filesystem(directory: Path) -> str:
    """The type of the deepest mount that holds `directory`."""
    real, mount = str(directory.resolve()), ("", "unknown")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if (real + "/").startswith(place.rstrip("/") + "/") and len(place) >= len(mount[0]):
            mount = (place, kind)
    return mount[1]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
