"""The command line's fixtures: importing is tested through `lakebed import`."""

from __future__ import annotations

from tests.cli.conftest import plain_environment, run

__all__ = ["plain_environment", "run"]
