"""The layout: which package imports which, how long a file may be, what an import costs. Read from the source."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
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

# Who may import whom, from the ground up: a package may import itself and the packages on the floors below its own.
# Packages on one floor do not import each other. A new package must be given a floor here.
FLOORS = (
    {"errors"},
    {"clock", "concurrency", "disk", "histogram", "interface", "sql_engine"},
    {"events", "integrations", "scheduling", "settings"},
    {"charts", "tiers", "transfer"},
    {"query", "rollups"},
    {"ingest", "reports", "rpc"},
    {"definitions", "identity", "objects"},
    {"auth", "billing", "maintenance"},
    {"monitoring"},
    {"components"},
    {"analytics"},
    {"__init__", "api", "clients"},
    {"mcp"},
    {"cli"},
    {"__main__"},
)
TIERS = ("archive", "counters", "pipeline", "storage")

CLOCKS = {
    "time": {"time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"},
    "datetime": {"now", "utcnow", "today"},
    "date": {"today"},
}

LATE = ("apscheduler", "datasketches", "duckdb", "httpx", "mcp", "pandas", "polars", "pyiceberg", "resvg_py")
LATE += ("rich", "sqlglot", "starlette", "typer", "uvicorn", "websockets")


def imports_of(name: str) -> set[str]:
    """The modules of the package that a file imports anywhere in it, in functions too."""
    imported: set[str] = set()
    for node in ast.walk(ast.parse(FILES[name].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            imported |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    own = {module.removeprefix("lakebed.") for module in imported if module.startswith("lakebed.")}
    return {module for module in own if module in FILES and module not in PACKAGES}


IMPORTS = {name: imports_of(name) for name in FILES}


def package(name: str) -> str:
    return name.partition(".")[0]


def floor(name: str) -> int:
    return next(number for number, packages in enumerate(FLOORS) if package(name) in packages)


def between(part: Callable[[str], str]) -> dict[str, set[str]]:
    """Which parts of the house import which others."""
    graph: dict[str, set[str]] = {part(name): set() for name in IMPORTS}
    for name, imported in IMPORTS.items():
        graph[part(name)] |= {part(other) for other in imported} - {part(name)}
    return graph


def test_every_package_has_a_floor() -> None:
    """The table names each package once, and none that is gone."""
    named = [name for packages in FLOORS for name in packages]
    assert sorted(named) == sorted({package(name) for name in FILES})


def test_imports_point_down() -> None:
    """A package imports only from floors below its own."""
    assert not {
        (name, other)
        for name, imported in IMPORTS.items()
        for other in imported
        if package(other) != package(name) and floor(other) >= floor(name)
    }


def test_no_cycle_of_packages() -> None:
    """Packages import each other in one direction, wherever in a file the import stands."""
    tuple(TopologicalSorter(between(package)).static_order())


def test_no_cycle_of_files() -> None:
    """Files import each other in one direction, and no import is hidden in a function or under TYPE_CHECKING."""
    tuple(TopologicalSorter(IMPORTS).static_order())


@pytest.mark.parametrize("tier", TIERS)
def test_no_tier_imports_another(tier: str) -> None:
    """A tier can be read, tested and replaced alone."""
    graph = between(lambda name: ".".join(name.split(".")[:2]))
    assert not {other for other in graph[f"tiers.{tier}"] if other.startswith("tiers.")}


def test_every_package_has_a_charter() -> None:
    """`__init__.py` of each package says in its docstring what it holds."""
    for name in PACKAGES:
        docstring = ast.get_docstring(ast.parse(FILES[name].read_text("utf-8")))
        assert docstring, name


def test_files_are_short() -> None:
    """No file has more than 400 lines."""
    lines = {name: len(path.read_text("utf-8").splitlines()) for name, path in FILES.items()}
    assert not {name: count for name, count in lines.items() if count > 400}


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


def test_public_names_are_sorted_and_complete() -> None:
    """`lakebed.__all__` is sorted, has no name that does not exist, and has every error."""
    own = [name for name in lakebed.__all__ if name not in errors.__all__]
    assert [*own, *errors.__all__] == lakebed.__all__
    assert own == sorted(own)
    assert all(hasattr(lakebed, name) for name in lakebed.__all__)
    assert errors.__all__ == sorted(
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)
    )
    assert set(errors.__all__) <= set(lakebed.__all__)


def test_every_error_says_when_it_is_raised() -> None:
    """Each error has a sentence of its own that says who meets it."""
    docstrings = {name: vars(getattr(errors, name)).get("__doc__") or "" for name in errors.__all__}
    del docstrings["LakebedError"]  # the root of the tree is never raised
    assert not {name for name, sentence in docstrings.items() if not sentence.startswith("When ")}


def python(code: str, cache: Path) -> str:
    """What a fresh interpreter prints. Its bytecode is kept in `cache`, whatever the environment says of that."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(cache)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.integration
def test_embedding_needs_no_server_and_no_heavy_library(tmp_path: Path) -> None:
    """`import lakebed` imports no web server, no Iceberg, no DuckDB, no scheduler, no SQL parser."""
    loaded = python("import sys, lakebed; print(*{name.partition('.')[0] for name in sys.modules})", tmp_path).split()
    assert not set(LATE) & set(loaded)


@pytest.mark.integration
def test_an_import_costs_at_most_two_imports_of_pyarrow(tmp_path: Path) -> None:
    """`from lakebed import Analytics` takes at most twice the processor time of `import pyarrow`, start-up included."""
    timing = "; import resource; used = resource.getrusage(resource.RUSAGE_SELF); print(used.ru_utime + used.ru_stime)"
    statements = ("import pyarrow", "from lakebed import Analytics")
    for statement in statements:  # the first run compiles
        python(statement, tmp_path)
    rounds = [[float(python(statement + timing, tmp_path)) for statement in statements] for _ in range(9)]
    arrow_s, lakebed_s = map(min, zip(*rounds, strict=True))  # the least is disturbed least by other processes
    assert lakebed_s <= 2 * arrow_s, f"{lakebed_s * 1000:.0f} ms against {arrow_s * 1000:.0f} ms"
