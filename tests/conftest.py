import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent
# Every test of these folders starts other processes, or takes a whole object through many states. Of other folders the
# files and tests that do so have the mark themselves.
INTEGRATION = {"bench", "clients", "crash", "docs", "examples", "faults", "mcp", "model"}

# Programs that tests start import `tests.…` and the package as the tests do.
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(TESTS.parent), os.environ.get("PYTHONPATH"))))
# The suite starts hundreds of interpreters: without bytecode, each compiles the package again (0.25 s).
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# A shell lets its background jobs ignore Ctrl-C, and tests send it to themselves and to the programs that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The machine that runs the suite is shared: an example may be slow without being wrong.
settings.register_profile("lakebed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lakebed")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Marks the tests that `make quick` leaves out by their folder."""
    if item.path.relative_to(TESTS).parts[0] in INTEGRATION:
        item.add_marker(pytest.mark.integration)
