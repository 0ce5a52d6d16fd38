"""The methods that RPC can call."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.requests import HTTPConnection

from lakebed import Analytics, ManualClock, Namespace
from lakebed.api.auth import Auth
from lakebed.api.errors import Refusal
from lakebed.api.rpc.methods import RpcMethods
from lakebed.api.rpc.watches import Watches
from lakebed.auth.keys import Keys
from lakebed.errors import AccessDenied, LakebedError, QueryRefused, Unreachable
from lakebed.interface.signature import camel
from lakebed.interface.verbs import VERBS
from lakebed.reports.reports import REPORTS
from lakebed.rpc.capnweb.codec import Target
from lakebed.rpc.capnweb.session import Peer
from lakebed.rpc.codec import LakebedCodec
from lakebed.tiers.counters.counters import Counters
from tests.reports.report_samples import SAMPLES

REACHABLE = """
Analytics alias archive authenticate batch check collectGarbage collect_garbage compact counters.count counters.delete
counters.get counters.incr counters.keys counters.top counters.ttl counters.watch dau deadLetter deadLetters dead_letter
dead_letters expire flush group identify live mau merge merges object page person pulse purge query replay rollup screen
snapshots stats tag template templates tiers timeseries track unmerge untag wau
""".split()  # noqa: SIM905 - a table of names
REACHABLE += sorted({*REPORTS, *map(camel, REPORTS)})
REACHABLE += ["dataset", "datasets", "deleteDataset", "delete_dataset", "saveDataset", "save_dataset"]
REACHABLE += ["cohort", "cohorts", "deleteCohort", "delete_cohort", "saveCohort", "save_cohort"]
REACHABLE += ["invoice", "invoices", "priceBooks", "price_books", "quota", "quotas"]
REACHABLE += ["savePriceBook", "saveQuota", "save_price_book", "save_quota"]
TRICKS = [
    "__class__",
    "__init__",
    "__dict__",
    "constructor",
    "prototype",
    "__proto__",
    "then",
    "toString",
    "hidden",
    "close",
    "open",
]
TRICKS += [
    "query_untrusted",
    "report_untrusted",
    "definitions",
    "run_due",
    "root",
    "settings",
    "clock",
    "_components",
    "_up",
    "name",
    "tidy",
    "settle",
    "0",
    "",
    "-1",
    "for_",
    "__globals__",
]


@pytest.fixture
async def objects(tmp_path):
    async with Namespace(tmp_path, Analytics, headroom_bytes=0) as namespace:
        await namespace.get("default").track("Seen", user_id="alice")
        yield namespace
        assert namespace.check() == []


@pytest.fixture
def keys(tmp_path):
    return Keys(tmp_path, ManualClock())


def connection(**headers):
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    return HTTPConnection({"type": "http", "headers": raw, "query_string": b"object=other"})


def surface(objects, clock=None, wrong=list, **headers):
    return RpcMethods(Auth(objects, clock or ManualClock()), connection(**headers), Watches(), lambda stub: stub, wrong)


def reachable(target, prefix=""):
    names = []
    for name in target.names:
        member = target.member(name)
        names += reachable(member, f"{name}.") if isinstance(member, Target) else [prefix + name]
    return names


async def test_exactly_what_is_listed_can_be_reached(objects):
    """The main object has these members and no others; verbs of two words have two spellings; all are Analytics'."""
    main = surface(objects).main
    assert sorted(reachable(main)) == sorted(REACHABLE)
    own = {"Analytics", "authenticate", "object", "live", "counters.watch"}
    assert {name for name in REACHABLE if name not in own} == set(VERBS) | {camel(verb) for verb in VERBS}
    assert not {verb for verb in VERBS if verb.partition(".")[0] in Analytics.hidden}
    assert all(
        hasattr(Counters if verb.startswith("counters.") else Analytics, verb.rpartition(".")[2]) for verb in VERBS
    )


@pytest.mark.integration
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.lists(
        st.sampled_from([*TRICKS, *{name.partition(".")[0] for name in REACHABLE}]) | st.text(max_size=5), max_size=3
    ),
    called=st.booleans(),
    deep=st.lists(st.sampled_from(TRICKS), max_size=2),
)
async def test_no_path_leads_elsewhere(objects, path, called, deep):
    """Names of Python and JavaScript machinery, on the object, its members and its answers, are not there."""
    messages = []
    peer = Peer(lambda text: messages.append(json.loads(text)) is None, surface(objects).main, codec=LakebedCodec())
    peer.receive(json.dumps(["push", ["pipeline", 0, path, []] if called else ["pipeline", 0, path]]))
    peer.receive(json.dumps(["push", ["pipeline", 1, deep]]))
    peer.receive('["pull",2]')
    await peer.finish()
    peer.close(Unreachable("over"))
    kind, _, value = messages[0]
    dotted = ".".join(path)
    if kind == "resolve" and (path or deep):
        assert dotted in REACHABLE or dotted == "counters"
        assert not deep or called
    elif kind == "reject":
        assert value[4]["type"] in (
            "NotReachable",
            "TypeError",
            "ValueError",
            "IndexError",
            "KeyError",
            "InvalidEvent",
        ), value


CALLS = [
    ("dau", [], 7),
    ("dau", [3], 3),
    ("dau", [{"days": 4}], 4),
    ("dau", [2, {"maxStaleness": 1}], 2),
    ("dau", [{"days": 4, "as_of": None}], 4),
    ("dau", [None], 7),
    ("wau", [2], 2),
    ("timeseries", ["Seen", {"start": date(2026, 1, 1), "end": "2026-01-02", "grain": "day"}], 1),
    (
        "timeseries",
        [{"start": datetime(2026, 1, 1, tzinfo=UTC), "end": date(2026, 1, 2), "grain": "day", "by": ["event"]}],
        0,
    ),
]


async def test_a_condition_cannot_read_a_file(objects, tmp_path):
    """No verb runs SQL of a read key where it could read a file of the server."""
    (tmp_path / "secret").write_text("x")
    condition = f"(SELECT count(*) FROM glob('{tmp_path}/*')) > 0"
    main = surface(objects).main
    with pytest.raises(TypeError, match="does not take 'where'"):
        main.member("timeseries")({"start": "2026-01-01", "end": "2026-01-02", "where": condition})
    with pytest.raises(QueryRefused, match="glob"):
        await main.member("segmentation")({"start": "2026-01-01", "end": "2026-01-02", "where": condition})


@pytest.mark.parametrize(("verb", "arguments", "rows"), CALLS)
async def test_arguments_by_position_or_in_an_object(objects, verb, arguments, rows):
    """As JavaScript writes them: the last object names the rest, in camelCase or snake_case."""
    assert len(await surface(objects).main.member(verb)(*arguments)) == rows


WRONG = [
    ("dau", [1, 2], "takes at most 1 arguments"),
    ("dau", ["x"], "days must be int, not str"),
    ("dau", [True], "days must be int, not bool"),
    ("dau", [10**9], "from 0 to 36600"),
    ("dau", [{"day": 1}], "does not take 'day'"),
    ("dau", [1, {"days": 2}], "does not take 'days' twice"),
    ("dau", [{"self": 1}], "does not take 'self'"),
    ("track", [], "needs event"),
    ("saveQuota", ["acme", "calls", 0.5], "limit must be Decimal or int or str, not float"),
    ("track", ["x", {}, {"source": "me"}], "does not take 'source'"),
    ("track", [5], "event must be str, not int"),
    ("batch", [[{}], {"source": "me"}], "does not take 'source'"),
    ("counters", [], "not callable"),
    ("archive", [{"olderThan": []}], "older_than must be timedelta or datetime or float, not list"),
    ("purge", [["x"]], "ids must be Sequence, not list"),
    ("live", [], "must be a function"),
    ("authenticate", [5], "key must be text"),
]


@pytest.mark.parametrize(("verb", "arguments", "message"), WRONG)
async def test_wrong_arguments_say_what_is_right(objects, verb, arguments, message):
    """A TypeError or ValueError with the signature, before anything is called."""
    member = surface(objects).main.member(verb)
    with pytest.raises((TypeError, ValueError), match=message):
        await member(*arguments)


async def test_events_of_every_type(objects):
    """Each verb of tracking stores what its Python namesake stores."""
    main, timestamp = surface(objects).main, datetime(2026, 1, 2, tzinfo=UTC)
    await main.member("page")("Home")
    await main.member("page")("Docs", "Start", {"a": 1}, {"userId": "u", "timestamp": timestamp})
    await main.member("screen")({"name": "Main", "anonymousId": "a"})
    await main.member("identify")("u", {"plan": "pro"}, {"messageId": "m"})
    await main.member("group")("g", {"size": 3}, {"userId": "u"})
    await main.member("alias")("u", "a")
    rows = await objects.get("default").query(
        "SELECT type, event, user_id, anonymous_id, group_id, properties, source FROM events WHERE seq > 0 ORDER BY seq"
    )
    stub = objects.get("direct")
    stub.page("Home")
    stub.page("Docs", "Start", {"a": 1}, user_id="u", timestamp=timestamp)
    stub.screen(name="Main", anonymous_id="a")
    stub.identify("u", {"plan": "pro"}, message_id="m")
    stub.group("g", {"size": 3}, user_id="u")
    await stub.alias("u", "a")
    expected = await stub.query(
        "SELECT type, event, user_id, anonymous_id, group_id, properties FROM events ORDER BY seq"
    )
    assert [tuple(row)[:-1] for row in rows] == [tuple(row) for row in expected]
    assert {row.source for row in rows} == {"rpc"}


ARGUMENTS = {
    "identify": ["u"],
    "group": ["g", {"userId": "u"}],
    "alias": ["u", "v"],
    "batch": [[{"event": "x"}]],
    "timeseries": [{"start": "2026-01-01", "end": "2026-01-02"}],
    "dead_letter": [1],
    "person": ["alice"],
    "query": ["SELECT 1"],
    "template": ["events-by-name"],
    "merge": ["alice", "b"],
    "unmerge": ["x"],
    "purge": [[1]],
    "counters.count": ["*"],
    "counters.top": ["*", 3],
    "save_cohort": ["x", {"did": "Seen"}],
    "save_dataset": ["x", {"event": "Seen"}],
    "delete_dataset": ["x"],
    "dataset": ["x"],
    "delete_cohort": ["x"],
    "cohort": ["buyers"],
    "save_price_book": ["x", {"currency": "EUR", "prices": {"a": {"model": "flat", "amount": "1"}}}],
    "invoice": ["acme", "2026-01", {"priceBook": "x"}],
    "save_quota": ["acme", "calls", "10"],
    "quota": ["acme", "calls"],
    **{name: [arguments] for name, arguments in SAMPLES.items()},
    **{verb: ["x"] for verb in ("track", "page", "screen", "tag", "untag")},
    **{verb: ["x"] for verb in ("counters.incr", "counters.get", "counters.ttl", "counters.delete")},
}


@pytest.mark.integration
@pytest.mark.parametrize("shown", ["read", "write", "admin"])
async def test_a_key_reaches_what_its_scope_allows(objects, keys, shown):
    """Each verb lets a key of its scope or an admin's in; another is refused with what it needs."""
    _, token = keys.create("default", shown)
    main = surface(objects, authorization=f"Bearer {token}").main
    for verb, row in VERBS.items():
        scope = row.scope
        target = main.member("counters") if verb.startswith("counters.") else main
        refused = None
        try:
            await target.member(verb.rpartition(".")[2])(*ARGUMENTS.get(verb, []))
        except Refusal as error:
            refused = (error.code, error.details)
        except LakebedError:
            pass  # there is no archive to tag
        assert refused == (None if shown in (scope, "admin") else ("WRONG_SCOPE", {"scope": shown, "needs": scope})), (
            verb
        )


async def test_the_object_comes_from_the_key_alone(objects, keys):
    """Parameters of the URL and names in calls lead nowhere else."""
    await objects.get("other").track("Secret")
    _, token = keys.create("default", "admin")
    main = surface(objects, authorization=f"Bearer {token}").main
    assert (await main.member("stats")()).totals == {"Seen": 1}
    assert main.member("object")("default") is main
    assert main.member("Analytics")() is main
    for name in ("other", "tom", "", 5, ["default"]):
        with pytest.raises(AccessDenied, match="does not open the object"):
            main.member("object")(name)


async def test_a_key_may_come_as_a_call(objects, keys):
    """`authenticate` opens what the key opens, and no more; wrong ones are counted."""
    wrong = []
    _, token = keys.create("default", "read")
    methods = surface(objects, wrong=lambda: wrong.append(1))
    with pytest.raises(Refusal, match="needs a key"):
        await methods.main.member("stats")()
    assert not methods.known
    for key in ("lk_nothing", ""):
        with pytest.raises(Refusal):
            methods.main.member("authenticate")(key)
    assert wrong == [1]
    authenticated = methods.main.member("authenticate")(token)
    assert (methods.known, (await authenticated.member("stats")()).totals) == (True, {"Seen": 1})
    with pytest.raises(Refusal, match="read key"):
        await authenticated.member("track")("x")
    with pytest.raises(Refusal, match="needs a key"):
        await methods.main.member("stats")()
