"""Which sleeping objects have a schedule that is due. Pure questions; the namespace acts on them."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import msgspec

from lakebed.errors import LakebedError, ObjectUnavailable
from lakebed.objects.lock import LOCK_NAME
from lakebed.objects.manifest import FILE_NAME, Manifest, is_name
from lakebed.scheduling.schedule import schedules_of

__all__ = ["SleepingObject", "is_due", "names_in", "next_due", "sleepers"]


class SleepingObject(msgspec.Struct, frozen=True):
    """An object that is not awake here: its name, the class it was opened as, and since when it has slept."""

    name: str
    kind: str
    since_us: int


def names_in(root: Path) -> list[str]:
    """The objects under `root`, sorted: the directories with a nameplate. Blocks."""
    try:
        with os.scandir(root) as entries:
            return sorted(
                entry.name for entry in entries if is_name(entry.name) and (Path(entry.path) / FILE_NAME).exists()
            )
    except FileNotFoundError:
        return []


def sleepers(root: Path, awake: Container[str]) -> tuple[list[SleepingObject], list[LakebedError]]:
    """The objects under `root` that are not `awake`, and what keeps others from being read. Blocks."""
    found: list[SleepingObject] = []
    unreadable: list[LakebedError] = []
    for name in names_in(root):
        if name in awake:
            continue
        try:
            plate = Manifest.read(root / name)
            since_ns = (root / name / LOCK_NAME).stat().st_mtime_ns
        except FileNotFoundError:  # deleted meanwhile, or copied without its lock: its first call makes one
            continue
        except LakebedError as error:
            unreadable.append(error)
            continue
        except OSError as error:
            hint = "Its schedules do not run until the system lets it be read"
            message = f"{root / name} cannot be read: {error}"
            unreadable.append(ObjectUnavailable(message, hint=hint, path=root / name))
            continue
        if plate is not None:
            found.append(SleepingObject(name, plate.kind, since_ns // 1000))
    return found, unreadable


def is_due(kind: type[Any], since_us: int, now_us: int, timezone: str) -> bool:
    """Whether a schedule of `kind` was due after `since_us`, and not after `now_us`."""
    return any(method.schedule.latest_due(since_us, now_us, timezone) is not None for method in schedules_of(kind))


def next_due(kinds: Iterable[type[Any]], after_us: int, timezone: str) -> int | None:
    """When a schedule of one of `kinds` is due next, after `after_us`. None if they have no schedule."""
    return min(
        (method.schedule.next_after(after_us, timezone) for kind in kinds for method in schedules_of(kind)),
        default=None,
    )
