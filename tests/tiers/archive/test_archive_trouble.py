import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lakebed.errors import (
    ArchiveConflict,
    ArchiveUnavailable,
    FormatTooNew,
    InvalidName,
)
from tests.tiers.archive.archive_fixtures import START, events, open_archive, seqs, stored

pytestmark = pytest.mark.integration


async def test_foreign_commit_is_refused(tmp_path):
    """After a commit of another program the watermark is unknown: every call that needs it fails."""
    archive = open_archive(tmp_path)
    await archive.append(events(0, 8), 0, 8)
    await archive.close()
    from pyiceberg.catalog.sql import SqlCatalog

    with SqlCatalog("lakebed", uri=f"sqlite:///{tmp_path}/shop/archive/catalog.db") as catalog:
        catalog.load_table("lakebed.events").delete("seq = 3")
    archive = open_archive(tmp_path)
    for call in (archive.watermark, archive.compact, lambda: archive.append(events(8, 9), 8, 9)):
        with pytest.raises(ArchiveConflict, match="has no watermark"):
            await call()
    (problem,) = await archive.check()
    assert "has no watermark" in problem
    assert (await archive.snapshots())[-1].watermark is None
    await archive.close()


async def test_foreign_table_is_refused(tmp_path):
    """A table of a newer Lakebed, without our settings, or of another program is not touched."""
    from pyiceberg.catalog.sql import SqlCatalog

    archive = open_archive(tmp_path)
    await archive.append(events(0, 4), 0, 4)
    await archive.close()
    uri = f"sqlite:///{tmp_path}/shop/archive/catalog.db"
    for change, expected in (
        ({"lakebed.format-version": "2"}, FormatTooNew),
        ({"lakebed.format-version": "1", "commit.retry.num-retries": "4"}, ArchiveConflict),
    ):
        with SqlCatalog("lakebed", uri=uri) as catalog, catalog.load_table("lakebed.events").transaction() as change_it:
            change_it.set_properties(change)
        archive = open_archive(tmp_path)
        with pytest.raises(expected):
            await archive.append(events(4, 8), 4, 8)
        await archive.close()


async def test_check_finds_damage(tmp_path):
    """A cut or missing data file, and unreadable manifests, are problems of check()."""
    archive = open_archive(tmp_path)
    await archive.append(events(0, 8), 0, 8)
    async with archive.pin() as view:
        first, second = view.files
    os.truncate(first.path, first.bytes - 1)
    Path(second.path).unlink()
    problems = await archive.check()
    assert [path in problem for path, problem in zip((first.path, second.path), problems, strict=True)] == [True, True]
    assert f"{first.bytes - 1} bytes, not {first.bytes}" in problems[0]
    await archive.append(events(8, 9, at=lambda _: START), 8, 9)
    with pytest.raises(ArchiveUnavailable, match="cannot be read"):
        await archive.compact()
    assert await archive.watermark() == 9
    await archive.close()
    for path in stored(tmp_path):
        if path.name.endswith("-m0.avro"):
            path.write_bytes(b"")
    archive = open_archive(tmp_path)
    (problem,) = await archive.check()
    assert "cannot be read" in problem
    with pytest.raises(ArchiveUnavailable):
        await archive.collect_garbage()
    await archive.close()


async def test_flipped_bits_are_not_laundered(tmp_path):
    """Compaction verifies checksums: a damaged page stops it, and the old files stay as they are."""
    archive = open_archive(tmp_path)
    await archive.append(events(0, 2, at=lambda seq: START + seq), 0, 2)
    await archive.append(events(2, 3, at=lambda seq: START + seq), 2, 3)
    async with archive.pin() as view:
        path = Path(view.files[0].path)
    whole = path.read_bytes()
    group = pq.read_metadata(path).row_group(0)
    for column in (group.column(number) for number in range(group.num_columns)):
        last = (column.dictionary_page_offset or column.data_page_offset) + column.total_compressed_size - 1
        path.write_bytes(whole[:last] + bytes([whole[last] ^ 0x10]) + whole[last + 1 :])
        with pytest.raises(ArchiveUnavailable, match="cannot be read"):
            await archive.compact()
    path.write_bytes(whole)
    assert (await archive.compact()).rows == 3
    await archive.close()


@pytest.mark.parametrize("namespace", ["../../out", "/tmp", "a/../../../b"])  # noqa: S108 - a name, not a file
async def test_paths_stay_inside(tmp_path, namespace):
    """A namespace outside the object's directory is an error, and nothing is written there."""
    archive = open_archive(tmp_path, namespace=namespace)
    with pytest.raises((InvalidName, ArchiveUnavailable)):
        await archive.append(events(0, 1), 0, 1)
    await archive.close()
    assert [path.name for path in stored(tmp_path)] == ["catalog.db"]


async def test_odd_directories(tmp_path):
    """Spaces, umlauts, # and % in the root work."""
    root = tmp_path / "a b #1 100% ü"
    archive = open_archive(root)
    await archive.append(events(0, 4), 0, 4)
    await archive.append(events(4, 8, at=lambda _: START), 4, 8)
    await archive.compact()
    await archive.expire()
    await archive.collect_garbage()
    assert await seqs(archive) == list(range(8))
    assert await archive.check() == []
    await archive.close()
    assert (root / "shop/archive/catalog.db").exists()
