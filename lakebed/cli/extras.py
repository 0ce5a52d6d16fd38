"""What a command says when an optional dependency is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from lakebed.cli.exit_codes import Failure

__all__ = ["need"]


def need(feature: str, modules: Sequence[str], extra: str) -> None:
    """Check that all `modules`, which `feature` needs, are installed.

    Raises:
        Failure: names those that are not, and the extra that brings them.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise Failure(f"{feature} needs {' and '.join(missing)}", hint=f"pip install 'lakebed[{extra}]'")
