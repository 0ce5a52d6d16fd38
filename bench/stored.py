"""Thirty days of events, archived in Lakebed and kept the best way by each peer: what questions are asked of."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench.lake import BY_SIZE, NAME, PROMOTE, clock_before, fill_days
from bench.measure import Contender, Failed, Figures, Results, take_turns
from bench.peers import clickhouse, sqlite
from lakebed import Analytics

DAYS = 30
LOG = "log"
SORTED = "sorted.parquet"
# What DuckDB's and Parquet's own pages advise: zstd, row groups of 122,880, sorted by what is most often asked for.
_COPY = """
COPY (SELECT * FROM read_parquet({files}, hive_partitioning = false) ORDER BY timestamp)
TO '{path}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880)"""


class Stored(msgspec.Struct, frozen=True):
    """Where it lies.

    Attributes:
        directory: `lakebed/` is a root with one object; beside it the peers' files.
        bytes: on disk, by who keeps it.
        failures: who could not be built, and why.
    """

    directory: Path
    events: int
    bytes: dict[str, float]
    failures: dict[str, Failed]


def build(directory: Path, events: int) -> Stored:
    """Build it all, each part in a process of its own."""
    directory.mkdir(parents=True)
    bytes_, failures = {}, {}
    for turns in (lakebed, parquet, duckdb, chdb, raw_events):
        name = turns.__name__
        options = {"place": str(directory), "events": events}
        results = take_turns([Contender(name, turns, options)], 1, directory / "work" / name)
        _note(name, results, bytes_, failures)
    if "lakebed" in failures:
        raise RuntimeError(f"the stored events could not be built: {failures['lakebed'].reason}")
    return Stored(directory, events, bytes_, failures)


def _note(name: str, results: Results, bytes_: dict[str, float], failures: dict[str, Failed]) -> None:
    result = results.get(name, "bytes")
    if isinstance(result, Failed):
        failures[name] = result
    else:
        bytes_[name] = result.median
        for figure in ("json", "log", "sealed", "sqlite"):
            part = results.get(name, figure)
            if not isinstance(part, Failed):
                bytes_[f"{name} {figure}"] = part.median


def size_of(directory: Path, pattern: str = "*") -> int:
    """Bytes of the files below, by name."""
    return sum(path.stat().st_size for path in directory.rglob(pattern) if path.is_file())


def lakebed(_: Path, place: str, events: int) -> Iterator[Figures]:
    """The object: every event archived, every rollup up to date."""
    yield asyncio.run(_fill(Path(place) / "lakebed", events))


async def _fill(root: Path, events: int) -> Figures:
    clock = clock_before(DAYS)
    async with Analytics(NAME, root=root, promote=PROMOTE, clock=clock, **BY_SIZE) as analytics:
        await fill_days(analytics, clock, events, DAYS)
        await analytics.archive()
        await analytics.rollup()
    return {"bytes": size_of(root / NAME / "archive", "*.parquet"), "sqlite": size_of(root / NAME, "storage.db*")}


def archived_files(place: Path) -> list[str]:
    """The Parquet files of the archive as it is now. Those that compaction replaced still lie beside them."""
    from pyiceberg.table import StaticTable  # half a second, and most contenders have no archive

    newest = max((place / "lakebed" / NAME / "archive").rglob("*.metadata.json"))
    files = StaticTable.from_metadata(str(newest)).scan().plan_files()
    return sorted(task.file.file_path.removeprefix("file://") for task in files)


def parquet(_: Path, place: str, events: int) -> Iterator[Figures]:
    """The floor of all questions: one well-sorted file of the same rows and columns."""
    import duckdb as engine  # this module's contender has its name

    path = Path(place) / SORTED
    connection = engine.connect()
    connection.execute(_COPY.format(files=archived_files(Path(place)), path=path))
    rows = connection.execute(f"SELECT count(*) FROM '{path}'").fetchone()[0]
    assert rows == events, f"{rows} rows of {events}"
    yield {"bytes": path.stat().st_size}


def duckdb(_: Path, place: str, **_options: int) -> Iterator[Figures]:
    """DuckDB's own table of the same rows."""
    import duckdb as engine  # this module's contender has its name

    path = Path(place) / "events.duckdb"
    with engine.connect(str(path)) as connection:
        connection.execute(f"CREATE TABLE events AS SELECT * FROM '{Path(place) / SORTED}'")
        connection.execute("CHECKPOINT")
    yield {"bytes": path.stat().st_size}


def chdb(_: Path, place: str, **_options: int) -> Iterator[Figures]:
    """chDB's MergeTree of the same rows, merged."""
    tree = clickhouse.MergeTree(Path(place) / "chdb", sync=False)
    tree.ask(clickhouse.FROM_PARQUET.format(path=Path(place) / SORTED))
    tree.ask("OPTIMIZE TABLE lake.stored FINAL")
    result = tree.ask("SELECT sum(bytes_on_disk) AS b FROM system.parts WHERE table = 'stored' AND active")
    tree.close(keep=True)
    yield {"bytes": float(result.column(0)[0].as_py())}


def raw_events(_: Path, place: str, **_options: int) -> Iterator[Figures]:
    """SQLite's raw_events of the same rows."""
    import duckdb as engine  # this module's contender has its name

    path = Path(place) / "raw.db"
    table = sqlite.RawEvents(path, "OFF")
    rows = engine.connect().execute(
        "SELECT NULL, message_id, type, event, user_id, anonymous_id, "
        f"strftime(timestamp AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%gZ'), properties, context "
        f"FROM '{Path(place) / SORTED}'"
    )
    table.connection.execute("BEGIN")
    while batch := rows.fetchmany(50_000):
        table.connection.executemany(f"INSERT INTO raw_events VALUES ({', '.join('?' * 9)})", batch)
    table.connection.execute("COMMIT")
    table.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    table.close()
    yield {"bytes": path.stat().st_size}
