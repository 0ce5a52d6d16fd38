"""Extras: raises an error for a part of Lakebed whose optional packages are not installed."""

from __future__ import annotations

import importlib.util

__all__ = ["require_extra"]


def require_extra(part: str, extra: str, *packages: str) -> None:
    """Check that `packages` can be imported.

    Args:
        part: the part that needs them, as the message names it, such as "lakebed.api".
        extra: name of the extra that installs the packages.

    Raises:
        ImportError: a package is missing. The message has the missing packages and the command that installs them.
    """
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ImportError(f"{part} needs {' and '.join(missing)}: pip install 'lakebed[{extra}]'", name=missing[0])
