"""The catalogue of verbs against the five faces that read it, and against the surface that was agreed on."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from starlette.requests import HTTPConnection

import lakebed.cli
from lakebed import Analytics, ManualClock, Namespace
from lakebed.api import create_app
from lakebed.api.auth import Auth
from lakebed.api.openapi.document import OpenApi, described
from lakebed.api.rpc.methods import RpcMethods, verb_signature
from lakebed.api.rpc.watches import Watches
from lakebed.cli.app import program
from lakebed.interface.signature import camel
from lakebed.interface.verbs import REPORT_VERBS, VERBS
from lakebed.mcp.server import TOOLS
from lakebed.reports.reports import REPORTS, signature_of
from lakebed.tiers.counters.counters import Counters

# A change of this table opens or closes something to network callers: it is written down twice on purpose.
SURFACE = """
track write: anonymous_id context event group_id message_id properties session_id timestamp user_id
page write: anonymous_id category context group_id message_id name properties session_id timestamp user_id
screen write: anonymous_id category context group_id message_id name properties session_id timestamp user_id
identify write: anonymous_id context group_id message_id session_id timestamp traits user_id
group write: anonymous_id context group_id message_id session_id timestamp traits user_id
alias write: anonymous_id context group_id message_id previous_id session_id timestamp user_id
batch write: items
flush write:
counters.incr write: amount key ttl
stats read:
pulse read:
tiers read:
dau read: as_of days end max_staleness start
wau read: as_of days end max_staleness start
mau read: as_of days end max_staleness start
timeseries read: as_of by end event grain measure start
query read: as_of limit params sql timeout
template read: name params
templates read:
funnel read: allow_equal as_of by cohort compare end exclude holding order start steps top totals where within
funnel_people read: after allow_equal as_of cohort end exclude holding limit order outcome start step steps where within
funnel_times read: allow_equal as_of bins cohort end exclude from_step holding order start steps to_step where within
retention read: as_of by cohort end grain mode periods return_event start start_event top tz week_start where
lifecycle read: as_of by cohort end event grain start top tz week_start where
stickiness read: as_of cohort end event grain interval start tz week_start where
sessions read: as_of by cohort conversion end engaged_after grain start timeout top tz use week_start where
session_list read: as_of before by cohort conversion end engaged_after limit start timeout use value where
segmentation read: as_of by cohort compare end events formula grain measure start top tz week_start where
top read: as_of cohort end event n other people start what where
paths read: after as_of before by cohort collapse end start steps timeout top where
timeline read: as_of before end limit person start where
anomalies read: as_of cohort end event grain history measure seasonality sensitivity start tz where
performance read: as_of by cohort compare end errors_from event grain path start threshold_ms tz week_start where
errors read: as_of by cohort end errors_from event limit start where
cohort_people read: after as_of cohort limit
cohort_size read: as_of cohort
usage read: as_of end grain organization_id sku start tz week_start where
cohorts read:
dataset read: name
datasets read:
cohort read: name
price_books read:
invoices read: organization_id
quotas read: organization_id
quota read: organization_id sku
counters.get read: key
counters.count read: glob
counters.keys read: glob
counters.top read: glob n
counters.ttl read: key
person read: as_of id
merges read: id limit
dead_letters read: before limit reason
dead_letter read: id
save_cohort admin: definition name
delete_cohort admin: name
save_dataset admin: mapping name
save_price_book admin: document name
invoice admin: as_of issue organization_id period price_book tz version
save_quota admin: limit organization_id period sku thresholds tz
delete_dataset admin: name
merge admin: a b why
unmerge admin: merge_id why
replay admin: edit ids
purge admin: before ids
counters.delete admin: key
rollup admin:
archive admin: older_than
compact admin:
expire admin: dry_run
collect_garbage admin: dry_run
snapshots admin:
tag admin: name snapshot_id
untag admin: name
check admin:
"""

# The routes that carry out verbs, apart from the reports, and the verbs that they call.
ROUTES = """
POST /track: batch
POST /track/batch: batch
GET /stats: stats
GET /tiers: tiers
GET /dau: dau
GET /wau: wau
GET /mau: mau
GET /timeseries: timeseries
POST /query: query
GET /templates: templates
GET /templates/{name}: template
POST /templates/{name}: template
GET /cohorts: cohorts
GET /cohorts/{name:path}: cohort
GET /cohorts/{name:path}/people: cohort_people
PUT /cohorts/{name:path}: save_cohort
DELETE /cohorts/{name:path}: delete_cohort
GET /billing/price-books: price_books
PUT /billing/price-books/{name:path}: save_price_book
GET /billing/invoices: invoices
POST /billing/invoices: invoice
GET /billing/quotas: quotas
PUT /billing/quotas: save_quota
GET /datasets: datasets
GET /datasets/{name:path}: dataset
PUT /datasets/{name:path}: save_dataset
DELETE /datasets/{name:path}: delete_dataset
GET /people/merges: merges
GET /people/{id:path}: person
POST /people/merge: merge
POST /people/unmerge: unmerge
GET /deadletters: dead_letters
GET /deadletters/{id}: dead_letter
POST /deadletters/replay: replay
DELETE /deadletters: purge
"""


def method_of(name):
    owner, _, method = name.rpartition(".")
    return getattr(Counters if owner else Analytics, method)


def parameters_of(name):
    """The parameters of the method that a network call of a verb runs, without `self`."""
    verb = VERBS[name]
    function = REPORTS[name] if verb.is_report else method_of(verb.untrusted or name)
    return inspect.signature(function).parameters


@pytest.fixture
def app(tmp_path):
    return create_app(Namespace(tmp_path, Analytics))


def test_the_surface_is_the_agreed_one():
    """Each verb, its scope and the arguments that a network caller may set; nothing more and nothing less."""
    surface = [f"{verb.name} {verb.scope}: {' '.join(sorted(verb.arguments))}".rstrip() for verb in VERBS.values()]
    assert surface == SURFACE.strip().splitlines()


@pytest.mark.parametrize("name", VERBS)
def test_a_row_fits_the_method(name):
    """The verb, its untrusted variant, its arguments and its forced ones are those of the real method."""
    verb, parameters = VERBS[name], parameters_of(name)
    assert callable(method_of(name))
    assert not verb.untrusted or callable(getattr(Analytics, verb.untrusted))
    assert name.partition(".")[0] not in Analytics.hidden
    kinds = {parameter.kind for parameter in parameters.values()}
    of_events = set(inspect.signature(Analytics.track).parameters) if inspect.Parameter.VAR_KEYWORD in kinds else set()
    assert set(verb.arguments) | set(verb.forced) <= set(parameters) | of_events
    assert not set(verb.arguments) & set(verb.forced)
    assert len(set(verb.arguments)) == len(verb.arguments)
    assert set(verb_signature(name).types) == set(verb.arguments)


def test_arguments_of_the_process_alone_are_closed():
    """What says who sent an event, or that its SQL may be trusted, is not for a network caller to say."""
    closed = {(verb.name, name) for verb in VERBS.values() for name in parameters_of(verb.name)} - {
        (verb.name, name) for verb in VERBS.values() for name in verb.arguments
    }
    own = {
        (verb, name) for verb, name in closed if name not in ("self", "inquiry", "context", "ids", "named", "fields")
    }
    assert own == {
        ("counters.incr", "age"),
        ("batch", "source"),
        ("batch", "keep_refused"),
        ("batch", "key"),
        ("save_cohort", "untrusted"),
        ("timeseries", "where"),
    }


def test_sql_from_a_network_runs_in_the_sandbox():
    """A verb that takes SQL over a network has an untrusted variant, or is told that its SQL is untrusted.

    `timeseries` took a `where` over RPC once and ran it in the server, where it could read any file with a read key.
    """
    takes_sql = {verb.name for verb in VERBS.values() if {"sql", "where", "definition", "cohort"} & set(verb.arguments)}
    assert {"query", "funnel", "save_cohort"} <= takes_sql
    assert [name for name in takes_sql if not VERBS[name].untrusted and "untrusted" not in VERBS[name].forced] == []


def test_rpc(tmp_path):
    """RPC offers the verbs, in both spellings, and beside them only what belongs to the connection."""
    connection = HTTPConnection({"type": "http", "headers": [], "query_string": b""})
    auth = Auth(SimpleNamespace(root=tmp_path, name="default"), ManualClock())
    main = RpcMethods(auth, connection, Watches(), lambda stub: stub, list).main
    names = set(main.names) - {"counters"} | {f"counters.{name}" for name in main.member("counters").names}
    own = {"live", "authenticate", "object", "Analytics", "counters.watch"}
    assert names - own == set(VERBS) | {camel(name) for name in VERBS}


def test_http_reports(app):
    """Each report of the catalogue has its route, and each route under /reports/ its report."""
    paths = [path for path, _, _ in described(app.routes) if path.startswith("/reports/")]
    assert paths == [f"/reports/{name}" for name in REPORT_VERBS]
    assert list(REPORTS) == list(REPORT_VERBS)


def test_http_routes_need_the_scope_of_their_verb(app):
    """A verb needs the same scope over HTTP as over RPC."""
    scopes = {f"{method} {path}": operation.scope for path, method, operation in described(app.routes)}
    for line in ROUTES.strip().splitlines():
        route, _, verb = line.rpartition(": ")
        assert scopes[route] == VERBS[verb].scope, line


def test_openapi(app):
    """The document describes exactly the open arguments of each report, and the scope that its key needs."""
    document = OpenApi(app.routes).document()
    for name, verb in REPORT_VERBS.items():
        operation = document["paths"][f"/reports/{name}"]["post"]
        reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
        schema = document["components"]["schemas"][reference.rpartition("/")[2]]
        assert set(schema["properties"]) == set(verb.arguments)
        assert {"bearer": [verb.scope]} in operation["security"]


def test_mcp():
    """The tools read, and those that are reports take the open arguments of theirs."""
    reports = {"query-trends": "segmentation", "query-funnel": "funnel", "query-retention": "retention"}
    assert set(TOOLS) == {"execute-sql", "read-data-schema", "list-people", *reports}
    assert {VERBS[tool.verb].scope for tool in TOOLS.values()} == {"read"}
    for tool, report in reports.items():
        assert set(TOOLS[tool].schema["properties"]) == set(VERBS[report].arguments)
    assert set(TOOLS["execute-sql"].schema["properties"]) <= set(VERBS["query"].arguments)


def test_cli():
    """Each report is a command with the open arguments as options, and commands call only verbs of the catalogue."""
    for name, verb in REPORT_VERBS.items():
        command = program.commands[name.replace("_", "-")]
        where = {"root", "object_name", "class_name", "url", "key", "as_json", "help"}
        assert {parameter.name for parameter in command.params} - where == set(verb.arguments)
    called = {verb for path in Path(lakebed.cli.__file__).parent.glob("*.py") for verb in _verbs_called_in(path)}
    assert called <= set(VERBS)
    assert {"stats", "query", "save_cohort", "purge", "merge", "check"} <= called


def _verbs_called_in(path):
    """The names of verbs that a file of commands calls, those that are made of a noun included."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("call", "table"):
            verb = node.args[0] if node.args else None
            if isinstance(verb, ast.Constant):
                yield verb.value
            elif isinstance(verb, ast.JoinedStr):
                text = ast.unparse(verb)
                for noun in ("cohort", "dataset"):
                    yield re.sub(r"\{self\.noun\}", noun, text.removeprefix("f").strip("'\""))


def test_a_closed_argument_is_refused_by_name():
    """An argument that exists and is not open is refused in the same words as one that does not exist."""
    with pytest.raises(TypeError, match="does not take 'keep_refused'"):
        verb_signature("batch").bind([[]], {"keep_refused": True})
    with pytest.raises(TypeError, match="does not take 'untrusted'"):
        verb_signature("save_cohort").bind(["x", {}, {"untrusted": False}], {})
    assert "inquiry" not in signature_of("funnel").types
    assert msgspec.structs.fields(type(VERBS["dau"]))
