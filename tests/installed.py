"""What tests need beside packages: clients, Node, Chromium, a font. An absent one skips the test with how to get it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from lakebed.charts.chart import pixels
from lakebed.errors import FontMissing

CLIENTS = Path(os.environ.get("LAKEBED_CLIENTS", Path(__file__).parent.parent / ".clients"))


def client_python(environment: str = "py") -> str:
    """The interpreter of the environment "py" or "legacy" that `make clients` fills."""
    return _found(CLIENTS / environment / "bin" / "python")


def node_modules() -> Path:
    """Where `make clients` puts npm's packages."""
    return Path(_found(CLIENTS / "node_modules"))


def node() -> str:
    """The program `node`."""
    return _program("node", "apt-get install nodejs npm")


def chromium() -> str:
    """The program `chromium`."""
    return _program("chromium", "apt-get install chromium")


def font() -> None:
    """A font that images can be written with."""
    try:
        pixels('<svg xmlns="http://www.w3.org/2000/svg" width="10" height="10"/>', 1)
    except FontMissing as error:
        pytest.skip(str(error))


def _found(path: Path) -> str:
    if not path.exists():
        pytest.skip(f"{path} is absent: run `make clients`")
    return str(path)


def _program(name: str, hint: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is absent: {hint}")
    return path
