"""Fixtures for faults of the kernel, and the number of killed processes at the end of the run."""

from tests.crash.sessions import SessionRunner
from tests.faults.strace import namespace, strace

__all__ = ["namespace", "pytest_terminal_summary", "strace"]


def pytest_terminal_summary(terminalreporter):
    if SessionRunner.kills:
        terminalreporter.write_line(f"{SessionRunner.kills} processes were killed with SIGKILL")
