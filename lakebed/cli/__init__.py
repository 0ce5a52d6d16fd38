"""The command line. Needs the extra: `pip install 'lakebed[cli]'`. Started as `lakebed` or `python -m lakebed`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence

__all__ = ["main"]

_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command with `arguments`, by default those of the process. Returns its exit code, one of `Exit`."""
    missing = [name for name in ("typer", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"lakebed: the commands need {' and '.join(missing)}: pip install 'lakebed[cli]'", file=sys.stderr)
        return _USAGE
    from lakebed.cli.app import run

    return run(arguments)
