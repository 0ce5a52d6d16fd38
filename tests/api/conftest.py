from __future__ import annotations

import pytest

from lakebed.query.sandbox.forkserver import shared


@pytest.fixture(scope="module", autouse=True)
def forkserver():
    """One process that forks for all tests of a file. It starts at the first query, and takes half a second."""
    shared().join()
    yield
    shared().leave()
