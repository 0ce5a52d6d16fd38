"""`objects`: the objects under a root, without opening any of them."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from lakebed.cli.options import AsJson, Root
from lakebed.cli.output import print_table
from lakebed.clients.client import Table
from lakebed.objects.lock import LOCK_NAME
from lakebed.objects.manifest import Manifest, is_name

__all__ = ["object_names", "register"]

_LOCKS = Path("/proc/locks")
_COLUMNS = ("object", "class", "log_bytes", "archive_bytes", "bytes", "owner")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(objects)


def objects(root: Root = Path("data"), as_json: AsJson = False) -> None:
    """The objects: their class, their size on disk, and the process that has each open."""
    owners = _owners()
    rows = []
    for name in object_names(root):
        directory = root / name
        manifest = Manifest.read(directory)
        log, archive, total = (_size(directory / part) for part in ("log", "archive", "."))
        rows.append((name, manifest.kind if manifest else None, log, archive, total, _owner(directory, owners)))
    print_table(Table(_COLUMNS, rows), as_json=as_json)


def object_names(root: Path) -> list[str]:
    """The names of the objects under `root`, sorted."""
    if not root.is_dir():
        return []
    return sorted(path.name for path in root.iterdir() if is_name(path.name) and Manifest.read(path) is not None)


def _size(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.lstat().st_size if path.is_file() else 0
        except FileNotFoundError:  # the process that has the object open may delete files at this moment
            continue
    return total


def _owners() -> dict[tuple[int, int, int], int]:
    """The pid that holds each lock, by the lock file's major and minor device and inode.

    The pids are read from the kernel's list of locks. Trying each lock was rejected: a process that opens the object at
    that moment would be refused.
    """
    if not _LOCKS.exists():
        return {}
    owners = {}
    for line in _LOCKS.read_text("ascii").splitlines():
        fields = line.split()
        if fields[1] == "FLOCK":
            major, minor, inode = fields[5].split(":")
            owners[int(major, 16), int(minor, 16), int(inode)] = int(fields[4])
    return owners


def _owner(directory: Path, owners: dict[tuple[int, int, int], int]) -> int | None:
    try:
        facts = (directory / LOCK_NAME).stat()
    except FileNotFoundError:
        return None
    return owners.get((os.major(facts.st_dev), os.minor(facts.st_dev), facts.st_ino))
