"""Extras: the error of a part of Lakebed whose optional packages are not installed."""

from __future__ import annotations

import importlib.util

__all__ = ["require_extra"]


def require_extra(part: str, extra: str, *packages: str) -> None:
    """Make sure that `packages` can be imported.

    Args:
        part: the subject of the message: "lakebed.api".
        extra: the extra that installs them.

    Raises:
        ImportError: names the missing packages and the command that installs them.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(f"{part} needs {' and '.join(missing)}: pip install 'lakebed[{extra}]'", name=missing[0])
