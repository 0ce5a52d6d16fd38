"""LakebedCodec: values and errors of Lakebed on the wire."""

from __future__ import annotations

import pytest

from lakebed import LakebedError, Row
from lakebed.errors import UnknownDeadLetter
from lakebed.monitoring.live_snapshot import LiveSnapshot
from lakebed.monitoring.tier_status import LogStatus, SnapshotInfo, TierStatus
from lakebed.rpc.capnweb.errors import Fault
from lakebed.rpc.codec import LakebedCodec

FORMER = {"Inventory": TierStatus, "LogShelf": LogStatus, "Pulse": LiveSnapshot, "Snap": SnapshotInfo}


@pytest.mark.parametrize("name", FORMER)
def test_structs_of_an_earlier_server_are_read(name):
    """Under the name that it sends, or under today's, a struct becomes today's class; an unknown one becomes a row."""
    kind = FORMER[name]
    codec = LakebedCodec(trusting=True, structs={kind.__name__: kind})
    fields = dict.fromkeys(kind.__struct_fields__, 1)
    for sent in (name, kind.__name__):
        assert codec.read(["struct", sent, fields], lambda value: value) == kind(**fields)
    assert isinstance(codec.read(["struct", "Other", fields], lambda value: value), Row)
    assert isinstance(codec.read(["struct", name, {"other": 1}], lambda value: value), Row)


def test_errors_of_an_earlier_server_are_read():
    """By the name that it sends, or by today's; one that is not known here is a LakebedError."""
    codec = LakebedCodec(trusting=True)
    for name in ("UnknownLetter", "UnknownDeadLetter"):
        error = codec.exception(Fault("Error", "gone", {"type": name, "id": 5}))
        assert (type(error), error.id) == (UnknownDeadLetter, 5)
    assert type(codec.exception(Fault("Error", "new", {"type": "OfALaterVersion"}))) is LakebedError


def test_a_client_is_not_trusted():
    """Rows, structs and results are read from a chosen server only."""
    for parts in (["row", {"a": 1}], ["struct", "Receipt", {}], ["result", "", []]):
        assert LakebedCodec().read(parts, lambda value: value) is NotImplemented
