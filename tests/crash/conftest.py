"""How many real processes these tests killed, at the end of the run; and what they reach the kernel with."""

from tests.crash.sessions import Nursery
from tests.faults.strace import namespace, strace

__all__ = ["namespace", "pytest_terminal_summary", "strace"]


def pytest_terminal_summary(terminalreporter):
    if Nursery.kills:
        terminalreporter.write_line(f"{Nursery.kills} processes were killed with SIGKILL")
