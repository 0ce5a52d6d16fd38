"""Faults of the kernel: `engine_under_strace.py` under strace, which makes calls fail, or on its own file system.

If the machine has no strace, or forbids ptrace or user namespaces, the tests that need them are skipped with a reason;
other tests inject the same faults through `Disk`.
"""

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("engine_under_strace.py")
_PATIENCE_S = 120


@functools.cache
def _works(*command):
    """Whether a harmless command runs."""
    if shutil.which(command[0]) is None:
        return f"{command[0]} is not installed"
    done = subprocess.run(command, capture_output=True, timeout=_PATIENCE_S, check=False)
    return "" if done.returncode == 0 else f"{command[0]} is not allowed here: {done.stderr.decode()[-200:].strip()}"


@pytest.fixture
def strace():
    """Runs the program with faults injected: see `traced`."""
    if why := _works("strace", "-f", "-o", os.devnull, "true"):
        pytest.skip(why)
    return traced


@pytest.fixture
def namespace():
    """Runs the program on its own file system: see `mounted`."""
    if why := _works("unshare", "--user", "--map-root-user", "--mount", "true"):
        pytest.skip(why)
    return mounted


def traced(root, steps, *, inject, path=None):
    """Run the steps while strace injects `inject` (its own syntax) into calls on the file `path`, relative to `root`.

    Returns the program's results, its exit code (-9 if it was killed), and the calls that strace saw.
    """
    seen = root / "strace.txt"
    calls = inject.split(":")[0]
    only = [] if path is None else ["-P", str(root / path)]
    command = ["strace", "-f", "-o", str(seen), *only, "-e", f"trace={calls}", "-e", f"inject={inject}"]
    done = _run([*command, sys.executable, str(PROGRAM), str(root), *steps])
    return _told(done), done.returncode, [line for line in seen.read_text().splitlines() if "(" in line]


def mounted(root, script, steps):
    """Run the steps in a new mount namespace, after the shell commands `script` in it."""
    shell = f'set -e\n{script}\nexec "$@"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", shell, "sh"]
    done = _run([*command, sys.executable, str(PROGRAM), str(root), *steps])
    assert done.returncode == 0, done.stderr
    return _told(done)


def _run(command):
    environment = os.environ | {"PYTHONPATH": str(PROGRAM.parents[1])}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=_PATIENCE_S, env=environment, cwd=PROGRAM.parent, check=False
    )


def _told(done):
    assert "Traceback" not in done.stderr, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]
