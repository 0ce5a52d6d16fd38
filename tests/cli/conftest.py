"""In-process runs, for all that does not need a process of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lakebed.cli import main


class Output(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.out.count("\n") == 1, f"one document, on one line: {self.out}"
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LAKEBED_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Output]:
    """Runs a command in `tmp_path`; the objects are in its `data`."""
    monkeypatch.chdir(tmp_path)

    def run_it(*arguments: object) -> Output:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Output(code, out, err)

    return run_it
