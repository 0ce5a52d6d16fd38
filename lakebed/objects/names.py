"""Names of objects: which are allowed, and the directories that they become."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lakebed.errors import InvalidName

__all__ = ["directory_of", "is_name"]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def is_name(name: object) -> bool:
    """Whether an object may have that name."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def directory_of(root: Path, name: str) -> Path:
    """The directory of object `name` under `root`, which need not exist.

    Raises:
        InvalidName: the name is not allowed, or a symbolic link leads out of the root.
    """
    if not is_name(name):
        raise InvalidName(
            f"{str(name)[:80]!r} cannot be an object's name",
            hint="Use 1 to 63 of a-z, 0-9, '_' and '-', starting with a letter or a digit: names become directories",
            name=name,
        )
    inside = os.path.realpath(root)
    directory = Path(inside) / name
    if os.path.realpath(directory) != str(directory):
        hint = "The directory of an object must lie in its root, not behind a link"
        raise InvalidName(f"{directory} leads elsewhere", hint=hint, name=name)
    return directory
