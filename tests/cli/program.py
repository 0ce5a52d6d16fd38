"""The program, run as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-W", "error", "-m", "lakebed"]


def environment(**variables: str) -> dict[str, str]:
    """The environment without the variables of this machine for Lakebed and for terminals."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LAKEBED_", "COLUMNS"))}
    return kept | {"PYTHONPATH": str(ROOT)} | variables


def lakebed(*arguments: str | Path, stdin: str | bytes = b"", **variables: str) -> subprocess.CompletedProcess[str]:
    """One run off a terminal; `variables` are environment variables."""
    sent = stdin.encode() if isinstance(stdin, str) else stdin
    command = [*COMMAND, *map(str, arguments)]
    done = subprocess.run(
        command, input=sent, capture_output=True, env=environment(**variables), timeout=60, check=False
    )
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def started(*arguments: str | Path, stdin: int | None = None, **variables: str) -> subprocess.Popen[bytes]:
    """A run that goes on."""
    command: Sequence[str] = [*COMMAND, *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=stdin, stdout=pipe, stderr=pipe, env=environment(**variables))


def answer(*arguments: str | Path, code: int = 0, **variables: str) -> Any:
    """What a run with --json says; its exit code must be `code`."""
    done = lakebed(*arguments, "--json", **variables)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)
