"""Fixtures of the drills: shops with small limits, with their own archive or on a catalog that fails."""

import pytest

from lakebed import ManualClock
from tests.faults.orders import START, Shop


@pytest.fixture
def clock():
    return ManualClock(START)


@pytest.fixture
def make(tmp_path, clock):
    """Shops whose log is pruned at once: `make()`, or `make(some_setting=…)`."""

    def make(root=tmp_path, kind=Shop, **options):
        defaults = {
            "headroom_bytes": 0,
            "segment_events": 10,
            "retention_s": 0.0,
            "dedupe_window_s": 60.0,
            "snapshots_keep": 1,
            "snapshots_age_s": 0.0,
            "garbage_grace_s": 0.0,
            "promote": {"revenue": float},
            "clock": clock,
        }
        return kind("shop", root=root, **defaults | options)

    return make


@pytest.fixture
def moody(tmp_path, make):
    """The failing catalog, and a function that opens shops which archive through it."""
    from tests.faults.failing_catalog import MoodyCatalog

    catalog = {
        "py-catalog-impl": "tests.faults.failing_catalog.MoodyCatalog",
        "uri": f"sqlite:///{tmp_path}/elsewhere.db",
        "warehouse": str(tmp_path / "warehouse"),
    }
    yield MoodyCatalog, lambda **options: make(catalog=catalog, **options)
    MoodyCatalog.calm()
