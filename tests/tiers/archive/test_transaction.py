"""pyiceberg's transactions, with metadata that are derived once."""

from __future__ import annotations

from pyiceberg.table import Transaction

from lakebed.tiers.archive.transaction import Changes
from tests.tiers.archive.archive_fixtures import events, open_archive


async def test_metadata_under_way_are_those_of_pyiceberg(tmp_path):
    """After each thing that is staged the metadata are what pyiceberg derives, and they are derived once."""
    archive = open_archive(tmp_path)
    await archive.append(events(0, 4), 0, 4)
    table = await archive._run(lambda warehouse: warehouse._events.load())
    ours, theirs = Changes(table), Transaction(table)
    assert ours.table_metadata == theirs.table_metadata
    for at in range(3):
        for transaction in (ours, theirs):
            transaction.set_properties({"lakebed.test": str(at)})
        assert ours.table_metadata.properties["lakebed.test"] == str(at)
        ignored = {"last_updated_ms": 0}  # pyiceberg asks the clock
        assert ours.table_metadata.model_copy(update=ignored) == theirs.table_metadata.model_copy(update=ignored)
        assert ours.table_metadata is ours.table_metadata
    assert "lakebed.test" not in table.metadata.properties
    await archive.close()
