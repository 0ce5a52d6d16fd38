"""Contenders whose turns a test can foresee. They run in processes of their own."""

import os
import signal
from pathlib import Path

from bench.measure import Absent


def noting(_, journal, name):
    """Writes down who took a turn."""
    number = 0
    while True:
        number += 1
        with Path(journal).open("a") as file:
            file.write(f"{name}{number} ")
        yield {"number": number, "pid": os.getpid(), "cores": len(os.sched_getaffinity(0))}


def failing(_):
    yield {"number": 1}
    raise RuntimeError("the second turn is too much")


def dying(_):
    os.kill(os.getpid(), signal.SIGKILL)
    yield {}


def absent(_):
    raise Absent("there is no such thing here")
    yield {}
