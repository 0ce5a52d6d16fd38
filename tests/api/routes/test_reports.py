"""Every report by every way: Python, the sandbox, HTTP, RPC and commands give the same answer."""

from __future__ import annotations

import inspect
from datetime import timedelta

import httpx
import msgspec
import pytest

from lakebed import Analytics, Namespace, QueryError, QueryRefused, connect
from lakebed.api import create_app
from lakebed.api.server import make_server
from lakebed.cli import main
from lakebed.reports.reports import REPORTS
from tests.reports.report_samples import COHORTS, EVENTS, SAMPLES
from tests.running_server import serving

pytestmark = pytest.mark.integration

DANGEROUS = "(SELECT count(*) FROM read_text('/etc/passwd')) > 0"


def plain(rows):
    """Rows in the form of JSON, where 1 and 1.0 are equal."""
    return msgspec.json.decode(msgspec.json.encode([list(row) for row in rows], enc_hook=str))


@pytest.fixture(scope="module")
def analytics(tmp_path_factory):
    """An object that has the events and the cohorts. Tests only read it."""
    with connect(tmp_path_factory.mktemp("full"), "default", headroom_bytes=0) as analytics:
        analytics.batch(EVENTS)
        for name, definition in COHORTS.items():
            analytics.save_cohort(name, definition)
        yield analytics
        assert analytics.check() == []


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    """An object that has only the cohorts."""
    with connect(tmp_path_factory.mktemp("empty"), "empty", headroom_bytes=0) as empty:
        for name, definition in COHORTS.items():
            empty.save_cohort(name, definition)
        yield empty


def test_every_report_has_a_sample():
    """Otherwise the tests below would leave it out."""
    assert SAMPLES.keys() == REPORTS.keys()


@pytest.mark.parametrize("name", REPORTS)
def test_the_sandbox_gives_the_same_rows(analytics, name):
    """Untrusted requests get the rows that trusted ones get, and errors name the report."""
    trusted = getattr(analytics, name)(**SAMPLES[name])
    untrusted = analytics.report_untrusted(name, SAMPLES[name])
    assert trusted.rows, "the sample says something"
    assert (trusted.columns, trusted.rows, trusted.report) == (untrusted.columns, untrusted.rows, name)


@pytest.mark.parametrize("name", REPORTS)
def test_invalid_arguments_are_refused(analytics, name):
    """An unknown argument, one of another type, and SQL that reads files: each error says so."""
    with pytest.raises(QueryRefused, match="does not take 'nonsense'"):
        analytics.report_untrusted(name, SAMPLES[name] | {"nonsense": 1})
    signature = inspect.signature(REPORTS[name])
    for argument in set(signature.parameters) - {"context"}:
        with pytest.raises(QueryRefused):
            analytics.report_untrusted(name, SAMPLES[name] | {argument: object()})
    if "where" in signature.parameters:
        with pytest.raises(QueryError):
            analytics.report_untrusted(name, SAMPLES[name] | {"where": DANGEROUS})
        with pytest.raises(QueryError):
            analytics.report_untrusted(name, SAMPLES[name] | {"where": "true) OR (true"})


@pytest.mark.parametrize("name", REPORTS)
def test_reports_of_an_empty_object(empty, name):
    """Every report answers with no rows or with zeros, never with NaN."""
    report = getattr(empty, name)(**SAMPLES[name])
    assert "nan" not in repr(plain(report)).lower()


async def test_over_a_network(tmp_path):
    """HTTP and RPC, of a server on a port."""
    async with Namespace(tmp_path, Analytics, headroom_bytes=0) as namespace:
        stub = namespace.get("default")
        await stub.batch(EVENTS)
        for name, definition in COHORTS.items():
            await stub.save_cohort(name, definition)
        server = make_server(create_app(namespace), "127.0.0.1", 0)
        async with serving(server) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            async with Namespace.connect(f"http://127.0.0.1:{port}") as remote:
                for name, arguments in SAMPLES.items():
                    local = await getattr(stub, name)(**arguments)
                    answer = await client.post(f"/reports/{name}", json=arguments)
                    assert answer.status_code == 200, answer.text
                    body = answer.json()
                    assert [column["name"] for column in body["columns"]] == list(local.columns)
                    assert body["rows"] == plain(local)
                    over_rpc = await getattr(remote.get("default"), name)(**arguments)
                    assert (over_rpc.rows, over_rpc.tiers) == (local.rows, local.tiers)
                for name in ("performance", "segmentation", "sessions"):  # None is not their default
                    local = await getattr(stub, name)(grain=None)
                    answer = await client.post(f"/reports/{name}", json={"grain": None})
                    over_rpc = await getattr(remote.get("default"), name)(grain=None)
                    assert "time" not in local.columns
                    assert answer.json()["rows"] == plain(local)
                    assert over_rpc.rows == local.rows
            schema = (await client.get("/openapi.json")).json()
            assert {f"/reports/{name}" for name in REPORTS} <= schema["paths"].keys()
            refused = await client.post("/reports/funnel", json={"steps": ["Seen"], "within": "soon"})
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "QUERY_REFUSED")
            assert "7d" in refused.json()["error"]["message"]


def test_the_sample_over_commands(tmp_path, monkeypatch, capsys):
    """`lakebed funnel Seen … --within 1d`: each report is a command, of the object in a directory."""
    monkeypatch.chdir(tmp_path)
    events = tmp_path / "events.ndjson"
    events.write_bytes(b"\n".join(map(msgspec.json.encode, EVENTS)))
    assert main(["import", str(events)]) == 0
    with connect("data", "default") as analytics:
        for name, definition in COHORTS.items():
            analytics.save_cohort(name, definition)
    for name, arguments in SAMPLES.items():
        capsys.readouterr()
        assert main([*typed(name, arguments), "--json"]) == 0, capsys.readouterr().err
        assert msgspec.json.decode(capsys.readouterr().out)
    assert main(["funnel", "Seen", "--within", "soon"]) == 2
    assert "7d" in capsys.readouterr().err


def typed(name, arguments):
    """The command that asks for a report with these arguments."""
    required = [
        parameter.name
        for parameter in inspect.signature(REPORTS[name]).parameters.values()
        if parameter.default is parameter.empty and parameter.name != "context"
    ]
    words = [name.replace("_", "-")]
    for argument, value in arguments.items():
        if value is True:
            words.append(f"--{argument.replace('_', '-')}")
            continue
        for element in value if isinstance(value, list) else [value]:
            text = msgspec.json.encode(element).decode() if isinstance(element, dict) else str(element)
            words += [text] if argument in required else [f"--{argument.replace('_', '-')}", text]
    return words


def test_durations():
    """Durations are parsed exactly, or refused."""
    from lakebed.reports.arguments import duration_us

    assert duration_us("x", "7d") == duration_us("x", timedelta(days=7)) == duration_us("x", 7 * 86400)
    assert duration_us("x", "1.5h") == 5_400_000_000
    for wrong in ("", "7", "-1d", "7 years", 0, -1, True, None, float("nan"), "9999999w"):
        with pytest.raises(QueryRefused, match="`x` is"):
            duration_us("x", wrong)
