"""Finds the sleeping objects that have a schedule that is due."""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import msgspec

from lakebed.errors import LakebedError, ObjectUnavailable
from lakebed.objects.lock import LOCK_NAME
from lakebed.objects.manifest import Manifest, names_in
from lakebed.scheduling.schedule import schedules_of

__all__ = ["SleepingObject", "is_due", "next_due", "sleepers"]


class SleepingObject(msgspec.Struct, frozen=True):
    """An object that is not open in this namespace: its name, its class's name, and the time of its last close."""

    name: str
    kind: str
    since_us: int


def sleepers(root: Path, awake: Container[str]) -> tuple[list[SleepingObject], list[LakebedError]]:
    """The objects under `root` that are not in `awake`, and an error for each that cannot be read. Blocks."""
    sleeping: list[SleepingObject] = []
    unreadable: list[LakebedError] = []
    for name in names_in(root):
        if name in awake:
            continue
        try:
            manifest = Manifest.read(root / name)
            since_ns = (root / name / LOCK_NAME).stat().st_mtime_ns
        except FileNotFoundError:  # deleted meanwhile, or copied without its lock: its first call makes one
            continue
        except LakebedError as error:
            unreadable.append(error)
            continue
        except OSError as error:
            hint = "Its schedules do not run until it can be read"
            message = f"{root / name} cannot be read: {error}"
            unreadable.append(ObjectUnavailable(message, hint=hint, path=root / name))
            continue
        if manifest is not None:
            sleeping.append(SleepingObject(name, manifest.kind, since_ns // 1000))
    return sleeping, unreadable


def is_due(object_class: type[Any], since_us: int, now_us: int, timezone: str) -> bool:
    """Whether a schedule of the class was due after `since_us`, up to and including `now_us`."""
    return any(
        method.schedule.latest_due(since_us, now_us, timezone) is not None for method in schedules_of(object_class)
    )


def next_due(classes: Iterable[type[Any]], after_us: int, timezone: str) -> int | None:
    """The earliest time after `after_us` at which a schedule of `classes` is due. None if they have no schedule."""
    return min(
        (method.schedule.next_after(after_us, timezone) for each in classes for method in schedules_of(each)),
        default=None,
    )
