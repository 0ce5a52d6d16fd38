"""The shape of the house: who imports whom, how long a file may be, what an import costs. Read from the source."""

from __future__ import annotations

import ast
import os
import statistics
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import lakebed
from lakebed import errors

PACKAGE = Path(lakebed.__file__).parent
FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip(".") or "__init__": path
    for path in sorted(PACKAGE.rglob("*.py"))
}
PACKAGES = {name for name, path in FILES.items() if path.name == "__init__.py"} - {"__init__"}

# From the ground up: a file may import its own floor and those below it. A new file must be given a floor here.
FLOORS = (
    {
        "billing",
        "charts",
        "clock",
        "disk",
        "engine",
        "errors",
        "events",
        "histogram",
        "parquet",
        "promotions",
        "settings",
        "uninterrupted",
    }
    | {"admission", "block", "decoding", "splitting"},
    {"tiers"},
    {"dialect", "rollups", "query", "identity", "sandbox", "schedule", "scheduler"}
    | {"calls", "delivery", "kinds", "nameplate", "ownership", "session", "stub"}  # what objects.py stands on
    | {"inprocess", "residents", "waking", "namespace", "objects"}
    | {"capnweb", "carriers", "remote"}
    | {"keys", "keyring", "schema", "signature", "template"},
    {"intake", "live", "maintenance", "pulse", "replays"},
    {"cohorts", "definitions", "roster"},
    {"biller"},
    {"assembly", "checkup", "inventory", "vitals"},
    {"assembled"},
    {"answers", "datasets", "letters", "people", "reporting", "tracking", "upkeep", "usage"},  # the verbs, in groups
    {"analytics"},
    {"__init__", "api", "blocking", "requests"},
    {"cli", "mcp"},
    {"__main__"},
)

# Rooms on one floor that do not know each other.
APART = (
    ("rollups", {"query", "identity", "schedule", "scheduler", "objects", "namespace"}),
    ("query", {"rollups", "identity", "schedule", "scheduler", "objects", "namespace"}),
    ("identity", {"rollups", "query", "schedule", "scheduler", "objects", "namespace"}),
    ("schedule", {"rollups", "query", "objects", "namespace"}),
    ("scheduler", {"rollups", "query", "objects", "namespace"}),
    ("objects", {"rollups", "query", "scheduler"}),
    ("namespace", {"rollups", "query", "scheduler"}),
)

TIERS = {
    "L0 counters": {"counter", "counters"},
    "L1 log": {"committer", "pending", "dedupe", "pipeline", "recovery", "sealing", "segment", "tail", "view"},
    "L2 storage": {"deadletters", "graph", "migrations", "storage", "transaction"},
    "L3 archive": {
        "append",
        "archive",
        "archived",
        "audit",
        "catalog",
        "changes",
        "compaction",
        "datafiles",
        "erasure",
        "fileio",
    }
    | {"garbage", "iceberg", "manifests", "pins", "progress", "rewrite", "snapshots", "warehouse"},
}

CLOCKS = {
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}

LATE = ("apscheduler", "datasketches", "duckdb", "httpx", "mcp", "pandas", "polars", "pyiceberg", "resvg_py")
LATE += ("rich", "sqlglot", "starlette", "typer", "uvicorn", "websockets")


def imports_of(name: str) -> set[str]:
    """The modules of the package that a file imports anywhere in it, in functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(FILES[name].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    ours = {one.removeprefix("lakebed.") for one in found if one.startswith("lakebed.")}
    return {one for one in ours if one in FILES and one not in PACKAGES}


IMPORTS = {name: imports_of(name) for name in FILES}


def room(name: str) -> str:
    return name.partition(".")[0]


def floor(name: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room(name) in rooms)


def test_every_file_has_a_floor() -> None:
    """A file that nobody placed is a file that nobody thought about."""
    assert not {name for name in FILES if not any(room(name) in rooms for rooms in FLOORS)}


def test_imports_point_down() -> None:
    """No file imports from a floor above its own."""
    upwards = {(name, one) for name, imported in IMPORTS.items() for one in imported if floor(one) > floor(name)}
    assert not upwards


def test_no_circle_of_imports() -> None:
    """Imports have no circle, and none is hidden in a function or under TYPE_CHECKING."""
    tuple(TopologicalSorter(IMPORTS).static_order())


def test_rooms_on_a_floor_are_apart() -> None:
    """Rollups, queries, schedules and objects do not import each other."""
    sideways = {
        (name, one)
        for one_room, others in APART
        for name in FILES
        if room(name) == one_room
        for one in IMPORTS[name]
        if room(one) in others
    }
    assert not sideways


def test_every_tier_file_belongs_to_one_tier() -> None:
    """Each file in tiers/ is part of one tier, and the table names no file that is gone."""
    files = {name.removeprefix("tiers.") for name in FILES if name.startswith("tiers.")}
    assert sorted(file for tier in TIERS.values() for file in tier) == sorted(files)


@pytest.mark.parametrize("tier", TIERS)
def test_no_tier_imports_another(tier: str) -> None:
    """A tier can be read, tested and replaced alone."""
    foreign = {
        (file, one)
        for file in TIERS[tier]
        for one in IMPORTS[f"tiers.{file}"]
        if one.startswith("tiers.") and one.removeprefix("tiers.") not in TIERS[tier]
    }
    assert not foreign


def test_files_are_short() -> None:
    """No file has more than 400 lines; analytics.py, which only composes, has fewer than 300."""
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in FILES.items()}
    assert not {name: count for name, count in lines.items() if count > 400}
    assert lines["analytics"] < 300


def test_no_drawer_for_leftovers() -> None:
    """Where one wants a `utils.py`, the thing has a name."""
    assert not {name for name in FILES if name.rpartition(".")[2] in ("utils", "helpers", "common", "misc")}


def test_only_clock_reads_the_clock() -> None:
    """Time comes from the injected clock: nobody else calls time.time, datetime.now and their like."""
    calls = {
        (name, f"{node.value.id}.{node.attr}")
        for name, path in FILES.items()
        if name != "clock"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if node.attr in CLOCKS.get(node.value.id, ())
    }
    assert not calls


def test_public_names_are_sorted_and_there() -> None:
    """`lakebed.__all__` is sorted, has no name that does not exist, and has every error."""
    assert lakebed.__all__ == sorted(lakebed.__all__)
    assert all(hasattr(lakebed, name) for name in lakebed.__all__)
    assert errors.__all__ == sorted(
        name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)
    )
    assert set(errors.__all__) <= set(lakebed.__all__)


def test_every_error_says_when_it_is_raised() -> None:
    """Each error has a sentence of its own that says who meets it."""
    said = {name: vars(getattr(errors, name)).get("__doc__") or "" for name in errors.__all__}
    del said["LakebedError"]  # the root of the tree is never raised
    assert not {name for name, sentence in said.items() if not sentence.startswith("When ")}


def python(code: str, cache: Path) -> str:
    """What a fresh interpreter prints. Its bytecode is kept in `cache`, whatever the environment says of that."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(cache)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


def test_embedding_needs_no_server_and_no_heavy_library(tmp_path: Path) -> None:
    """`import lakebed` imports no web server, no Iceberg, no DuckDB, no scheduler, no SQL parser."""
    loaded = python("import sys, lakebed; print(*{name.partition('.')[0] for name in sys.modules})", tmp_path).split()
    assert not set(LATE) & set(loaded)


def test_an_import_costs_at_most_two_imports_of_pyarrow(tmp_path: Path) -> None:
    """`from lakebed import Analytics` takes at most twice the processor time of `import pyarrow`, start-up included."""
    spent = "; import resource; used = resource.getrusage(resource.RUSAGE_SELF); print(used.ru_utime + used.ru_stime)"
    statements = ("import pyarrow", "from lakebed import Analytics")
    for statement in statements:  # the first run compiles
        python(statement, tmp_path)
    rounds = [[float(python(statement + spent, tmp_path)) for statement in statements] for _ in range(9)]
    arrow, ours = map(statistics.median, zip(*rounds, strict=True))
    assert ours <= 2 * arrow, f"{ours * 1000:.0f} ms against {arrow * 1000:.0f} ms"
