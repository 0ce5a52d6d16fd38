"""`objects`: what is under a root, without opening any of it."""

from __future__ import annotations

from pathlib import Path

import typer

from lakebed.cli.options import AsJson, Root
from lakebed.cli.output import Table, print_table
from lakebed.objects.lock import LOCK_NAME
from lakebed.objects.manifest import Manifest
from lakebed.objects.names import is_name

__all__ = ["object_names", "register"]

_LOCKS = Path("/proc/locks")
_COLUMNS = ("object", "class", "log_bytes", "archive_bytes", "bytes", "owner")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(objects)


def objects(root: Root = Path("data"), as_json: AsJson = False) -> None:
    """The objects: their class, what they take on disk, and the process that has each open."""
    owners = _owners()
    rows = []
    for name in object_names(root):
        directory = root / name
        plate = Manifest.read(directory)
        log, archive, all_of_it = (_size(directory / part) for part in ("log", "archive", "."))
        rows.append((name, plate.kind if plate else None, log, archive, all_of_it, _owner(directory, owners)))
    print_table(Table(_COLUMNS, rows), as_json=as_json)


def object_names(root: Path) -> list[str]:
    """The names of the objects under `root`, sorted."""
    if not root.is_dir():
        return []
    return sorted(one.name for one in root.iterdir() if is_name(one.name) and Manifest.read(one) is not None)


def _size(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.lstat().st_size if path.is_file() else 0
        except FileNotFoundError:  # its owner removes files while we look
            continue
    return total


def _owners() -> dict[tuple[int, int, int], int]:
    """Who holds which lock: a file's major and minor device and inode, to a pid.

    Read from the kernel's list. Trying the lock itself was rejected: an owner that comes in that moment is refused.
    """
    if not _LOCKS.exists():
        return {}
    found = {}
    for line in _LOCKS.read_text("ascii").splitlines():
        fields = line.split()
        if fields[1] == "FLOCK":
            major, minor, inode = fields[5].split(":")
            found[int(major, 16), int(minor, 16), int(inode)] = int(fields[4])
    return found


def _owner(directory: Path, owners: dict[tuple[int, int, int], int]) -> int | None:
    import os

    try:
        facts = (directory / LOCK_NAME).stat()
    except FileNotFoundError:
        return None
    return owners.get((os.major(facts.st_dev), os.minor(facts.st_dev), facts.st_ino))
