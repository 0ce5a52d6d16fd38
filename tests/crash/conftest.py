"""How many real processes these tests killed, at the end of the run."""

from nursery import Nursery


def pytest_terminal_summary(terminalreporter):
    if Nursery.kills:
        terminalreporter.write_line(f"{Nursery.kills} processes were killed with SIGKILL")
