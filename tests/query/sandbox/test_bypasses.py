"""Every known way from a SELECT to files, network, settings, memory or time not its own, against real children."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakebed import QueryCrashed, QueryError, QueryRefused, QueryTimeout, QueryTooLarge, connect
from lakebed.query.sandbox.forkserver import shared

pytestmark = pytest.mark.integration

MARK = "xyzzy-17"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The working directory of the server, with a file that does not belong to its object."""
    root, before = tmp_path_factory.mktemp("place"), Path.cwd()
    (root / "file.csv").write_text(f"a,b\n1,{MARK}\n")
    os.chdir(root)
    os.environ["SECRET_OF_SERVER"] = MARK
    yield root
    del os.environ["SECRET_OF_SERVER"]
    os.chdir(before)


@pytest.fixture(scope="module")
def opened(place):
    limits = {"untrusted_timeout_s": 20, "untrusted_memory_bytes": 256 << 20, "untrusted_max_bytes": 8 << 20}
    with connect(place / "root", "shop", headroom_bytes=0, **limits) as shop:
        shop.batch([{"event": "Seen", "userId": f"u{n % 3}", "properties": {"n": n}} for n in range(20)])
        shop.archive()
        shop.track("Seen", user_id="u9")
        yield shop
        assert shop.query_untrusted("SELECT count(*) FROM events").scalar() == 21
        assert shop.check() == []


@pytest.fixture
def shop(opened, place):
    before = files(place)
    yield opened
    assert files(place) == before, "a query changed a file"


def files(root):
    """Every file below `root` with its size and time of change, without SQLite's side files, which come and go."""
    stats = {path: path.stat() for path in root.rglob("*") if path.is_file()}
    return {
        str(path): (stat.st_size, stat.st_mtime_ns)
        for path, stat in stats.items()
        if not path.name.endswith(("-wal", "-shm", "-journal"))
    }


WRITES = [
    "COPY (SELECT 1) TO '{dir}/out.csv'",
    "COPY events TO '{dir}/out.parquet' (FORMAT parquet)",
    "WITH q AS (COPY (SELECT 1) TO '{dir}/out.csv') SELECT * FROM q",
    "WITH q AS (COPY (SELECT 1) TO 'passed://0') SELECT * FROM q",
    "WITH q AS (INSERT INTO events VALUES (1) RETURNING *) SELECT * FROM q",
    "WITH q AS (DELETE FROM events RETURNING *) SELECT * FROM q",
    "WITH q AS (UPDATE events SET event = 'x' RETURNING *) SELECT * FROM q",
    "WITH RECURSIVE q AS (COPY (SELECT 1) TO '{dir}/out.csv') SELECT * FROM q",
    "SELECT * FROM (WITH q AS (COPY (SELECT 1) TO '{dir}/out.csv') SELECT * FROM q)",
    "INSERT INTO events SELECT * FROM events",
    "CREATE TABLE t AS SELECT 1",
    "CREATE MACRO m() AS 1",
    "ATTACH '{dir}/other.db' AS other",
    "ATTACH ':memory:' AS other",
    "EXPORT DATABASE '{dir}/export'",
    "IMPORT DATABASE '{dir}/export'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "FORCE INSTALL httpfs FROM community",
    "SET memory_limit = '100GB'",
    "SET GLOBAL enable_external_access = true",
    "RESET lock_configuration",
    "SET VARIABLE x = 1",
    "PRAGMA database_list",
    "PRAGMA enable_profiling",
    "CALL pragma_version()",
    "CHECKPOINT",
    "VACUUM",
    "ANALYZE",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "USE other",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "EXPLAIN SELECT 1",
    "EXPLAIN ANALYZE SELECT 1",
    "DESCRIBE events",
    "SHOW TABLES",
    "SUMMARIZE events",
    "FROM (DESCRIBE events)",
    "FROM (SHOW ALL TABLES)",
    "SELECT 1; SELECT 2",
    "SELECT 1; COPY (SELECT 1) TO '{dir}/out.csv'",
    "SELECT 1) LIMIT 1; COPY (SELECT 1) TO '{dir}/out.csv'; SELECT * FROM (SELECT 1",
    "SELECT 1) AS a; --",
    "SELECT 1 /* \n) LIMIT 1; DROP VIEW events; SELECT * FROM ( */) LIMIT 1; DROP VIEW events; --",
    ";",
    "",
    "--",
    "SELECT 1\0; SELECT 2",
    "\ud800",
]


@pytest.mark.parametrize("sql", WRITES)
def test_nothing_but_one_select(shop, place, sql):
    """SQL that writes, sets, attaches, loads, or is not one SELECT is refused, and no file appears or changes."""
    with pytest.raises((QueryRefused, QueryError)):
        shop.query_untrusted(sql.replace("{dir}", str(place)))


READS = [
    "SELECT * FROM read_csv('{dir}/file.csv')",
    "SELECT * FROM read_csv_auto('{dir}/file.csv')",
    "SELECT * FROM read_text('{dir}/file.csv')",
    "SELECT * FROM read_blob('{dir}/file.csv')",
    "SELECT * FROM read_json('{dir}/file.csv')",
    "SELECT * FROM read_parquet('{dir}/**/*.parquet')",
    "SELECT * FROM parquet_scan('passed://0')",
    "SELECT * FROM read_parquet('passed://0')",
    "SELECT * FROM parquet_metadata('passed://0')",
    "SELECT * FROM parquet_kv_metadata('passed://0')",
    "SELECT * FROM parquet_schema('passed://0')",
    "SELECT * FROM sniff_csv('{dir}/file.csv')",
    "SELECT * FROM glob('{dir}/*')",
    "SELECT * FROM '{dir}/file.csv'",
    "SELECT * FROM 'file.csv'",
    'SELECT * FROM "file.csv"',
    "SELECT * FROM 'passed://0'",
    "FROM 'file.csv'",
    "SELECT * FROM events, 'file.csv'",
    "SELECT * FROM events JOIN 'file.csv' ON true",
    "SELECT (SELECT a FROM 'file.csv')",
    "SELECT * FROM (SELECT * FROM 'file.csv')",
    "SELECT 1 WHERE EXISTS (FROM 'file.csv')",
    "WITH t AS (FROM 'file.csv') FROM t",
    """SELECT * FROM (WITH "file.csv" AS (SELECT 1) SELECT * FROM "file.csv"), 'file.csv'""",
    "SELECT 1 UNION ALL SELECT a FROM 'file.csv'",
    "SELECT * FROM 'http://127.0.0.1:9/x.parquet'",
    "SELECT * FROM 'https://example.org/x.csv'",
    "SELECT * FROM 's3://bucket/x.parquet'",
    "SELECT * FROM read_parquet('http://127.0.0.1:9/x.parquet')",
    "SELECT getenv('SECRET_OF_SERVER')",
    "SELECT current_setting('memory_limit')",
    "SELECT 'memory_limit'.current_setting()",
    "SELECT getvariable('_lakebed_files_0')",
    "SELECT * FROM duckdb_settings()",
    "SELECT * FROM duckdb_functions()",
    "SELECT * FROM duckdb_views()",
    "SELECT * FROM duckdb_secrets()",
    "SELECT * FROM duckdb_memory()",
    "SELECT * FROM duckdb_variables()",
    "SELECT * FROM duckdb_logs",
    "SELECT * FROM duckdb_tables",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM sqlite_master",
    "SELECT * FROM sqlite_schema",
    "SELECT * FROM pg_catalog.pg_class",
    "SELECT * FROM pg_class",
    "SELECT * FROM pragma_table_info('events')",
    "SELECT * FROM pragma_database_size()",
    "SELECT * FROM pragma_show_tables",
    "SELECT * FROM main.events",
    "SELECT * FROM memory.main.events",
    "SELECT * FROM temp.main.events",
    "SELECT * FROM system.main.duckdb_tables",
    "SELECT * FROM (WITH duckdb_views AS (SELECT 1) SELECT * FROM duckdb_views), duckdb_views",
    "SELECT * FROM (WITH sqlite_master AS (SELECT 1) SELECT * FROM sqlite_master), sqlite_master",
    "SELECT * FROM query('SELECT 1')",
    "SELECT * FROM query_table('events')",
    "SELECT * FROM query_table(['events'])",
    "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
    "SELECT json_serialize_sql('SELECT 1')",
    "SELECT json_serialize_plan('SELECT 1')",
    "SELECT * FROM checkpoint()",
    "SELECT * FROM force_checkpoint()",
    "SELECT * FROM arrow_scan(1, 2, 3)",
    "SELECT * FROM python_map_function(1)",
    "SELECT * FROM seq_scan('events')",
    "SELECT * FROM test_all_types()",
    "SELECT * FROM repeat('x', 10)",
    "SELECT * FROM which_secret('s3://x', 's3')",
    "SELECT write_log('x')",
    "SELECT nextval('s')",
    "SELECT txid_current()",
    "SELECT current_query()",
    "SELECT version()",
    "SELECT sleep_ms(1)",
    "SELECT pg_sleep(1)",
    "SELECT repeat('x', 1000000000)",
    "SELECT lpad('x', 1000000000, 'y')",
    "SELECT rpad('x', 1000000000, 'y')",
    "SELECT 'x'.repeat(1000000000)",
    "SELECT format('{:>1000000000}', 1)",
    "SELECT printf('%1000000000d', 1)",
    "SELECT list_resize([1], 1000000000)",
    "SELECT bar(1, 0, 1, 1000000000)",
    "SELECT list_transform([1], lambda x: sleep_ms(x))",
    "SELECT main.getenv('HOME')",
    "SELECT system.main.getenv('HOME')",
    "SELECT DEFAULT",
    "SELECT * FROM shop",
    "SELECT * FROM analytics",
    "SELECT * FROM cursor",
    "SELECT * FROM files",
    "SELECT * FROM _lakebed_tail",
    "SELECT * FROM events TABLESAMPLE 10% (system), read_csv('file.csv')",
    "/* hello */ SELECT/**/getenv/**/('HOME')",
    "SELECT \"getenv\"('HOME')",
    "SELECT GETENV('HOME')",
    "SELECT \uff47\uff45\uff54\uff45\uff4e\uff56('HOME')",
    "SELECT * FROM \uff52ead_csv('file.csv')",
    "SELECT get\u200benv('HOME')",
    "SELECT * FROM events QUALIFY getenv('HOME') IS NULL",
    "SELECT * FROM events ORDER BY getenv('HOME')",
    "SELECT * FROM events LIMIT (SELECT length(getenv('HOME')))",
    "SELECT count(*) FILTER (WHERE getenv('HOME') = '') FROM events",
    "SELECT sum(seq) OVER (ORDER BY getenv('HOME')) FROM events",
    "SELECT * FROM events PIVOT (count(*) FOR event IN (SELECT a FROM 'file.csv'))",
    "SELECT * FROM (VALUES (getenv('HOME')))",
    "SELECT CASE WHEN getenv('HOME') = '' THEN 1 END",
    "SELECT {'a': getenv('HOME')}",
    "SELECT COLUMNS(c -> getenv(c) IS NULL) FROM events",
    "SELECT * REPLACE (getenv('HOME') AS event) FROM events",
    "SELECT list_aggregate([1], 'getenv')",
]


@pytest.mark.parametrize("sql", READS)
def test_nothing_but_what_is_allowed(shop, place, sql):
    """Files, URLs, the environment, settings, the catalog, SQL as text, waits and blow-ups are refused."""
    with pytest.raises(QueryError) as refused:
        shop.query_untrusted(sql.replace("{dir}", str(place)))
    assert not isinstance(refused.value, (QueryCrashed, QueryTimeout)), "it got further than the allowlist"
    assert MARK not in str(refused.value)


@pytest.mark.usefixtures("opened")
@pytest.mark.parametrize(
    "sql",
    [
        "COPY (SELECT 1) TO '{dir}/out.csv'",
        "COPY (SELECT 1) TO '{dir}/root/shop/archive/catalog.db' (use_tmp_file false)",
        "COPY (SELECT 1) TO 'passed://0'",
        "COPY (SELECT 1) TO 'passed://0' (use_tmp_file false)",
        "COPY (SELECT 1) TO 'passed://new.csv'",
        "WITH q AS (COPY (SELECT 1) TO '{dir}/out.csv') SELECT * FROM q",
        "ATTACH '{dir}/other.db' AS other",
        "ATTACH 'passed://other.db' AS other",
        "EXPORT DATABASE '{dir}/export'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "LOAD '{dir}/file.csv'",
        "SET enable_external_access = true",
        "SET memory_limit = '100GB'",
        "RESET disabled_filesystems",
        "SET allowed_directories = ['/']",
        "SELECT * FROM read_csv('{dir}/file.csv')",
        "SELECT * FROM read_text('/proc/self/environ')",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM glob('{dir}/*')",
        "SELECT * FROM 'file.csv'",
        "SELECT * FROM read_parquet('http://127.0.0.1:9/x.parquet')",
        "SELECT * FROM files",
    ],
)
def test_what_is_below_the_allowlist(tmp_path, sql):
    """If the allowlist missed a statement, DuckDB's own locks still refuse it in a worker process."""
    from lakebed.query.sandbox.messages import SandboxRequest

    (tmp_path / "file.csv").write_text(f"a,b\n1,{MARK}\n")
    (tmp_path / "given").write_text("0")
    worker = shared().acquire()
    try:
        assert worker.wait_started()
        worker.plan(SandboxRequest("SELECT 1", None, [], 10, 256 << 20, 1), b"")
        with pytest.raises(QueryError):
            worker.answer(
                [str(tmp_path / "given")], {}, [(sql.replace("{dir}", str(tmp_path)), None)], rows=1, max_bytes=1000
            )
    finally:
        worker.close()
    assert {path.name for path in tmp_path.iterdir()} == {"file.csv", "given"}
    assert (tmp_path / "given").read_text() == "0"


LONG = [
    "SELECT count(*) FROM range(100000000000) r WHERE hash(r.range) % 7 = 3",
    "SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range < 0",
    "SELECT count(*) FROM generate_series(1, 100000000000)  g WHERE sin(g.generate_series) > 2",
    "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r",
    "SELECT list_sum(list_transform(range(10000000), lambda x: list_sum(range(1000))))",
]


@pytest.mark.parametrize("sql", LONG)
def test_what_has_no_end_is_killed(shop, sql):
    """A query is over soon after its timeout, whatever it does, also within one call of a scalar function."""
    began = time.monotonic()
    with pytest.raises((QueryTimeout, QueryTooLarge, QueryCrashed)):
        shop.query_untrusted(sql, timeout=0.4)
    assert time.monotonic() - began < 5
    assert shop.query_untrusted("SELECT 1").scalar() == 1


HUGE = [
    "SELECT range(1000000000)",
    "SELECT list(range) FROM range(1000000000)",
    "SELECT string_agg(sha256(range::VARCHAR), '') FROM range(20000000)",
    "WITH RECURSIVE r(s) AS (SELECT 'xxxxxxxx' UNION ALL SELECT s || s FROM r) SELECT length(s) FROM r",
    "SELECT replace(replace(string_agg('x', ''), 'x', string_agg('yyyyy', '')), 'y', 'zzzzz') FROM range(9000)",
    "SELECT * FROM range(30000000) a ORDER BY hash(a.range)",
    "SELECT a.range, b.range FROM range(100000) a, range(10) b",
    "SELECT string_agg('xxxxxxxxxxxxxxxx', '') FROM range(2000000)",
]


@pytest.mark.parametrize("sql", HUGE)
def test_what_is_huge_is_refused(shop, sql):
    """Memory, rows and bytes have limits: no partial answer, and the server does not grow by what the child took."""
    with pytest.raises((QueryTooLarge, QueryCrashed, QueryError)) as refused:
        shop.query_untrusted(sql)
    assert not isinstance(refused.value, (QueryRefused, QueryTimeout))
    assert shop.query_untrusted("SELECT 1").scalar() == 1


DEEP = [
    "SELECT " + "(" * 100 + "1" + ")" * 100,
    "SELECT " + "(" * 30_000 + "1" + ")" * 30_000,
    "SELECT " + "-" * 3 + " " * 10 + "- " * 30_000 + "1",
    "SELECT " + "NOT " * 15_000 + "true",
    "SELECT " + "[" * 30_000 + "]" * 30_000,
    "SELECT " + "1+" * 30_000 + "1",
    "SELECT " + "lower(" * 10_000 + "'x'" + ")" * 10_000,
    "SELECT * FROM " + "(SELECT * FROM " * 3000 + "events" + ")" * 3000,
    "SELECT 1 FROM events WHERE timestamp > now() AND " + "(" * 10_000 + "1=1" + ")" * 10_000,
    " UNION ALL ".join(["SELECT 1"] * 4000),
    "WITH " + ", ".join(f"a{n} AS (SELECT 1)" for n in range(2000)) + " SELECT 1",
    "SELECT '" + "x" * 60_000 + "'",
    "SELECT " + "x" * 70_000,
]


@pytest.mark.parametrize("sql", DEEP, ids=range(len(DEEP)))
def test_depth_is_no_weapon(shop, sql):
    """Deep or long SQL is answered or refused; at the worst it ends its own process."""
    try:
        shop.query_untrusted(sql, timeout=5)
    except QueryError as refused:
        assert len(str(refused)) < 6000  # noqa: PT017 - an answer is as good
    assert shop.query_untrusted("SELECT 1").scalar() == 1


@pytest.mark.parametrize(
    "params",
    [
        [object()],
        [{"a": object()}],
        [2**200],
        [float("nan")],
        ["\0"],
        [b"\0\xff"],
        [[1, "a"]],
        [[[]]],
        [{}],
        [["x"] * 1000],
        [None],
        [1, 2],
        [],
        {"a": 1},
        {"": 1},
        {"a b; DROP": 1},
        ["x" * 2_000_000],
        ["'); COPY (SELECT 1) TO 'out.csv'; --"],
    ],
    ids=range(18),
)
def test_odd_parameters(shop, params):
    """Any parameter is passed on as a value or refused."""
    try:
        result = shop.query_untrusted("SELECT ? AS given", params)
    except QueryError:
        return
    assert len(result) == 1


NASTY = r"""SELECT FROM WHERE WITH AS COPY TO INSERT INTO ( ) ; , -- /* */ ' " $$ * 1 'file.csv' 'x' events people q
read_csv getenv glob query duckdb_settings() range(3) ATTACH SET PRAGMA CALL UNION ALL LIMIT RECURSIVE VALUES JOIN ON
true LATERAL PIVOT $1 ? \ INSTALL LOAD . :: [ ] { } -> := EXPORT DATABASE seq person_id information_schema.tables
E'\x41' U&'\0041' DESCRIBE SUMMARIZE DELETE UPDATE RETURNING"""
PIECES = st.sampled_from([*NASTY.split(), "\0", "\u2028", "\ufeff", "\u00a0", "\n"])
FRAMES = st.sampled_from(
    ["{}", "SELECT {}", "SELECT * FROM {}", "WITH q AS ({}) SELECT * FROM q", "SELECT * FROM ({}) q", "SELECT ({})"]
)


def combined(shop, place, pieces, frame):
    """A query of nasty pieces changes no file, and reads no foreign data."""
    before = files(place)
    try:
        assert MARK not in str(shop.query_untrusted(frame.format(" ".join(pieces)), timeout=5).rows)
    except QueryError as refused:
        assert MARK not in str(refused)  # noqa: PT017 - an answer is as good
    assert files(place) == before


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES, min_size=1, max_size=12), FRAMES)
def test_fuzz(shop, place, pieces, frame):
    """For any combination of nasty pieces no file changes, no foreign data is read, and the next query works."""
    combined(shop, place, pieces, frame)


@pytest.mark.slow
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES, min_size=1, max_size=12), FRAMES)
def test_fuzz_at_length(shop, place, pieces, frame):
    """The same with more examples."""
    combined(shop, place, pieces, frame)
