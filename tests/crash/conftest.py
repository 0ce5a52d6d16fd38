"""How many real processes these tests killed, at the end of the run; and what they reach the kernel with."""

from tests.crash.sessions import SessionRunner
from tests.faults.strace import namespace, strace

__all__ = ["namespace", "pytest_terminal_summary", "strace"]


def pytest_terminal_summary(terminalreporter):
    if SessionRunner.kills:
        terminalreporter.write_line(f"{SessionRunner.kills} processes were killed with SIGKILL")
