import subprocess
import sys

import duckdb
import pytest

from lakebed.errors import ArchiveUnavailable
from tests.tiers.archive.archive_fixtures import START, events, open_archive, seqs, stored


async def test_plain_pyiceberg_reads_it(tmp_path):
    """A pyiceberg session that knows nothing of Lakebed reads the right rows, values and history."""
    from pyiceberg.catalog import load_catalog

    archive = open_archive(tmp_path)
    for start in range(0, 20, 5):
        await archive.append(events(start, start + 5), start, start + 5)
    await archive.compact()
    (first, *_) = await archive.snapshots()
    await archive.close()
    directory = tmp_path / "shop/archive"
    properties = {"type": "sql", "uri": f"sqlite:///{directory}/catalog.db", "warehouse": str(directory / "warehouse")}
    with load_catalog("lakebed", **properties) as catalog:
        table = catalog.load_table("lakebed.events")
        rows = table.scan().to_arrow().sort_by("seq")
        assert rows["seq"].to_pylist() == list(range(20))
        assert rows["revenue"].to_pylist() == [seq + 0.5 for seq in range(20)]
        assert table.scan(snapshot_id=first.id).to_arrow().num_rows == 5
        assert table.scan("timestamp < '2026-01-02T00:00:00+00:00'").to_arrow().num_rows == 4
        assert len(list(table.scan("timestamp < '2026-01-02T00:00:00+00:00'").plan_files())) == 1


async def test_duckdb_reads_the_files(tmp_path):
    """DuckDB's own Parquet reader reads every row of the live files once, with the same names and types."""
    archive = open_archive(tmp_path)
    await archive.append(events(0, 20), 0, 20)
    async with archive.pin() as view, archive.pin() as again:
        assert view.files is again.files
        connection = duckdb.connect()
        row = connection.execute(
            "SELECT count(*), count(DISTINCT seq), sum(revenue), min(epoch_us(timestamp)) "
            "FROM read_parquet(?, hive_partitioning = false)",
            [[file.path for file in view.files]],
        ).fetchone()
        connection.close()
    assert row == (20, 20, sum(seq + 0.5 for seq in range(20)), START)
    await archive.close()


async def test_external_catalog(tmp_path):
    """A catalog from the settings has a table named for each object; the default catalog is never created."""
    catalog = {"type": "sql", "uri": f"sqlite:///{tmp_path}/shared.db"}
    settings = {"catalog": catalog, "warehouse": str(tmp_path / "lake"), "namespace": "team.product"}
    shop, blog = (open_archive(tmp_path / "root", name=name, **settings) for name in ("shop", "blog"))
    assert shop.exists()
    assert await shop.watermark() == 0
    assert await shop.check() == []
    await shop.append(events(0, 8), 0, 8)
    await blog.append(events(0, 3), 0, 3)
    assert (await seqs(shop), await seqs(blog)) == (list(range(8)), list(range(3)))
    second = open_archive(tmp_path / "root", name="shop", **settings)
    await second.append(events(8, 12), 8, 12)
    assert await shop.watermark() == 12
    assert await seqs(shop) == list(range(12))
    await shop.compact()
    await shop.expire()
    assert len((await shop.collect_garbage()).paths) > 0
    for archive in (shop, blog, second):
        assert await archive.check() == []
        await archive.close()
    assert not (tmp_path / "root").exists()
    from pyiceberg.catalog import load_catalog

    with load_catalog("lakebed", **catalog) as session:
        assert session.list_tables("team.product") == [("team", "product", "blog"), ("team", "product", "shop")]


async def test_warehouse_elsewhere(tmp_path):
    """With a warehouse in the settings, objects keep their own catalogs and do not share files."""
    warehouse = tmp_path / "big disk"
    shop, blog = (open_archive(tmp_path, name=name, warehouse=str(warehouse)) for name in ("shop", "blog"))
    await shop.append(events(0, 4), 0, 4)
    await blog.append(events(0, 4), 0, 4)
    assert (await shop.collect_garbage()).paths == ()
    async with shop.pin() as view:
        assert all(file.path.startswith(f"{warehouse}/lakebed/shop/") for file in view.files)
    assert [path.name for path in stored(tmp_path / "shop")] == ["catalog.db"]
    for archive in (shop, blog):
        assert await archive.check() == []
        await archive.close()


async def test_commits_of_the_default_catalog_are_durable(tmp_path):
    """SQLite syncs the catalog and, after the rollback journal is gone, its directory."""
    archive = open_archive(tmp_path)
    await archive.append(events(0, 4), 0, 4)

    def pragma(worker):
        from sqlalchemy import text

        with worker.catalog.engine.connect() as connection:
            return connection.execute(text("PRAGMA synchronous")).scalar()

    assert await archive._run(pragma) == 3
    await archive.close()


@pytest.mark.integration
def test_importing_the_archive_is_cheap():
    """Neither pyiceberg, SQLAlchemy nor DuckDB is imported before an archive is used."""
    code = "import sys, lakebed.tiers.archive.archive; print({'pyiceberg', 'sqlalchemy', 'duckdb'} & set(sys.modules))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout == "set()\n"


async def test_unreachable_catalog(tmp_path):
    """A catalog that does not answer is ArchiveUnavailable, raised at once by every call, and reported by check()."""
    archive = open_archive(tmp_path, catalog={"type": "rest", "uri": "http://127.0.0.1:9"})
    with pytest.raises(ArchiveUnavailable, match="catalog cannot be opened"):
        await archive.append(events(0, 4), 0, 4)
    assert "catalog cannot be opened" in (await archive.check())[0]
    await archive.close()
