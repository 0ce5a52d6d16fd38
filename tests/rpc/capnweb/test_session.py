"""Peer: messages in, messages out; no socket."""

from __future__ import annotations

import asyncio
import json
import math
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lakebed.errors import Backpressure, NotReachable, QueryTimeout, Unreachable
from lakebed.query.result import Row
from lakebed.rpc.capnweb.codec import Limits, Target
from lakebed.rpc.capnweb.results import Remote
from lakebed.rpc.capnweb.session import Peer
from lakebed.rpc.codec import LakebedCodec

PATIENT = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Side:
    """A peer, what it sent, and what it offers."""

    def __init__(self, *, trusting=False, **options):
        self.sent = []
        self.gone = []
        self.calls = []
        self.waiting = []
        members = {
            "echo": lambda *arguments: arguments[0] if len(arguments) == 1 else list(arguments),
            "later": self.later,
            "boom": self.boom,
            "give": lambda: Target("a gift", {"name": lambda: "gift"}, released=lambda: self.gone.append("gift")),
            "rows": [{"n": 1, "in": [[1]]}, {"n": 2, "in": []}],
            "call": lambda callback, *arguments: callback(*arguments),
            "keep": lambda callback: self.calls.append(callback.dup()),
            "slow": self.slow,
        }
        self.peer = Peer(
            lambda text: self.sent.append(text) is None,
            Target("test", members),
            codec=LakebedCodec(trusting=trusting),
            **options,
        )

    async def later(self, value):
        await asyncio.sleep(0)
        return value

    async def slow(self):
        self.waiting.append(asyncio.get_running_loop().create_future())
        return await self.waiting[-1]

    def boom(self, kind="timeout"):
        raise {
            "timeout": QueryTimeout("too slow", hint="Ask less", limit=3),
            "inner": RuntimeError("/etc/secret"),
            "value": ValueError("no"),
        }[kind]

    def take(self):
        """What was sent since the last time, parsed."""
        sent, self.sent[:] = [json.loads(text) for text in self.sent], []
        return sent

    async def __call__(self, *messages):
        for message in messages:
            self.peer.receive(message if isinstance(message, str) else json.dumps(message))
        await self.quiet()
        return self.take()

    async def quiet(self):
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
async def side():
    new_side = Side()
    yield new_side
    new_side.peer.close(Unreachable("over"))
    await new_side.peer.settle()


def call(name, *arguments):
    return ["push", ["pipeline", 0, [name], list(arguments)]]


# The protocol's examples


@pytest.mark.parametrize(
    ("sent", "value", "back"),
    [
        (["undefined"], None, None),
        (["inf"], math.inf, ["inf"]),
        (["-inf"], -math.inf, ["-inf"]),
        (["bigint", "12345678901234567890"], 12345678901234567890, ["bigint", "12345678901234567890"]),
        (["date", 1749342170815], None, ["date", 1749342170815.0]),
        (["bytes", "aGVsbG8"], b"hello", ["bytes", "aGVsbG8"]),
        (["bytes", "aGVsbG8=", "ArrayBuffer"], b"hello", ["bytes", "aGVsbG8"]),
        ([["just", "an", [["array"]]]], None, [["just", "an", [["array"]]]]),
        ([[]], [], [[]]),
        ({"key": [["abc", ["date", 0], [[0]]]]}, None, {"key": [["abc", ["date", 0.0], [[0]]]]}),
        (["url", "https://example.com/?q=1"], None, "https://example.com/?q=1"),
        (["headers", [["a", "b"]]], None, [[[["a", "b"]]]]),
    ],
)
async def test_values_as_the_protocol_writes_them(side, sent, value, back):
    """Each special value is read, and written back as the protocol says."""
    assert await side(call("echo", sent), ["pull", 1]) == [["resolve", 1, back]]
    if value is not None:
        assert side.peer.find(1).outcome.value == value


async def test_nan(side):
    """NaN is itself, though it equals nothing."""
    assert await side(call("echo", ["nan"]), ["pull", 1]) == [["resolve", 1, ["nan"]]]


async def test_calls_build_on_calls(side):
    """Targets, paths with positions as numbers or text, and arguments deep in lists may be what is not there yet."""
    sent = await side(
        call("later", {"a": [[1, 2]]}),
        ["push", ["pipeline", 1, ["a", "1"]]],
        call("echo", [[["pipeline", 1, ["a", 0]], {"x": ["pipeline", 2]}]]),
        ["pull", 3],
        ["pull", 2],
    )
    assert sorted(sent) == [["resolve", 2, 2], ["resolve", 3, [[1, {"x": 2}]]]]


async def test_calls_begin_in_order(side):
    """Also those that wait for the same value."""
    order = []
    side.peer.find(0).outcome.value.add("note", order.append)
    await side(
        call("note", 1), call("later", 2), ["push", ["pipeline", 0, ["note"], [["pipeline", 2]]]], call("note", 3)
    )
    await side(*[["push", ["pipeline", 0, ["note"], [["pipeline", 2]]]] for _ in range(2)], call("note", 4))
    assert order == [1, 3, 2, 2, 2, 4]


@pytest.mark.parametrize(
    ("instructions", "result"),
    [
        ([["pipeline", 0, ["n"]]], [[1, 2]]),
        ([["pipeline", -1, ["echo"], [["pipeline", 0, ["n"]], 7]]], [[[[1, 7]], [[2, 7]]]]),
        ([["pipeline", -1, ["later"], [["pipeline", 0, ["n"]]]], {"n": ["pipeline", 1]}], [[{"n": 1}, {"n": 2}]]),
        ([["remap", 0, ["in"], [], [["pipeline", 0]]]], [[[[[[1]]]], [[]]]]),
    ],
)
async def test_map_runs_here(side, instructions, result):
    """Instructions see the element, captures and what came before; they make calls, also within another map."""
    sent = await side(["push", ["remap", 0, ["rows"], [["import", 0]], instructions]], ["pull", 1])
    assert sent == [["resolve", 1, result]]


@pytest.mark.parametrize(("value", "result"), [(None, None), (5, [[5, 5]]), ({"a": 1}, [[{"a": 1}, {"a": 1}]])])
async def test_map_of_what_is_no_list(side, value, result):
    """Null stays null; a single value is mapped once."""
    instructions = [[[["pipeline", 0], ["pipeline", 0]]]]
    sent = await side(call("echo", value), ["push", ["remap", 1, [], [], instructions]], ["pull", 2])
    assert sent == [["resolve", 2, result]]


async def test_a_long_chain_is_no_deep_stack(side):
    """Thousands of calls, each built on the one before, while none is answered."""
    await side(call("slow"), *[["push", ["pipeline", number, ["x"]]] for number in range(1, 5000)])
    await side(["push", ["remap", 1, [], [], [["pipeline", 0]]]], ["pull", 5000], ["pull", 5001])
    side.waiting[0].set_result(5)
    await side.quiet()
    assert sorted(message[:2] for message in side.take()) == [["reject", 5000], ["resolve", 5001]]


async def test_errors_travel_with_their_facts(side):
    """Our own with type, hint and facts; bad arguments with their message; any other without a message. No stacks."""
    sent = await side(call("boom"), ["pull", 1], call("boom", "inner"), ["pull", 2], call("boom", "value"), ["pull", 3])
    facts = {"type": "QueryTimeout", "hint": "Ask less", "limit": 3}
    assert sent[0] == ["reject", 1, ["error", "Error", "too slow", None, facts]]
    assert "secret" not in json.dumps(sent[1])
    assert sent[2] == ["reject", 3, ["error", "Error", "no", None, {"type": "ValueError"}]]


async def test_an_error_reaches_what_builds_on_it(side):
    """A call with a failed target or argument is not made, and has the same error."""
    sent = await side(
        call("boom"), ["push", ["pipeline", 1, ["x"], []]], call("echo", ["pipeline", 1]), ["pull", 2], ["pull", 3]
    )
    assert [(message[0], message[2][4]["type"]) for message in sent] == [("reject", "QueryTimeout")] * 2


# References


async def test_what_is_given_by_reference_is_released(side):
    """A target lives while the result or the reference is held; then its `released` is called."""
    assert await side(call("give"), ["pull", 1]) == [["resolve", 1, ["export", -1]]]
    await side(["release", 1, 1])
    assert await side(["push", ["pipeline", -1, ["name"], []]], ["pull", 2]) == [["resolve", 2, "gift"]]
    assert side.gone == []
    await side(["release", -1, 1])
    assert side.gone == ["gift"]


async def test_a_result_that_is_not_pulled_is_released(side):
    """Released before it was there, or left when the session ends."""
    await side(call("give"), ["release", 1, 1])
    assert side.gone == ["gift"]
    await side(call("give"))
    side.peer.close(Unreachable("over"))
    assert side.gone == ["gift", "gift"]


async def test_a_function_of_the_peer_is_called_and_released(side):
    """Its answer becomes the call's; the stub that came as an argument is let go after the call."""
    sent = await side(["push", ["pipeline", 0, ["call"], [["export", -1], 5, [["x"]]]]], ["pull", 1])
    assert sent == [["push", ["pipeline", -1, [], [5, [["x"]]]]], ["pull", 1]]
    sent = await side(["resolve", 1, {"got": 5}])
    assert sorted(sent, key=str) == sorted([["release", 1, 1], ["release", -1, 1], ["resolve", 1, {"got": 5}]], key=str)


async def test_a_function_that_is_kept_is_released_later(side):
    """Who keeps it keeps a duplicate; two introductions are released together."""
    message = ["push", ["pipeline", 0, ["keep"], [["export", -1]]]]
    assert await side(message, message) == []
    side.calls[0].close()
    side.calls[0].close()
    assert side.take() == []
    side.calls[1].close()
    assert side.take() == [["release", -1, 2]]


async def test_a_promise_of_the_peer_is_waited_for(side):
    """The call begins when it is resolved; rejected, it fails alike."""
    assert await side(["push", ["pipeline", 0, ["echo"], [["promise", -1]]]], ["pull", 1]) == []
    assert await side(["resolve", -1, 7]) == [["resolve", 1, 7], ["release", -1, 1]]
    sent = await side(
        ["push", ["pipeline", 0, ["echo"], [["promise", -2]]]],
        ["pull", 2],
        ["reject", -2, ["error", "TypeError", "no"]],
    )
    assert sent[0][:2] == ["reject", 2]


async def test_streams_are_refused_clearly(side):
    """What a client does to send a stream fails with a reason, and the session goes on."""
    sent = await side(
        ["pipe"], ["stream", ["pipeline", 1, ["write"], ["x"]]], call("echo", ["readable", 1]), ["pull", 3]
    )
    assert [message[:2] for message in sent] == [["reject", 2], ["reject", 3]]
    assert "streams are not taken" in sent[0][2][2]
    assert await side(["push", 1], ["pull", 4]) == [["resolve", 4, 1]]
    assert await side(["stream", ["pipeline", 0, ["echo"], [1]]]) == [["resolve", 5, 1]]
    assert (await side(["pull", 5]))[0][0] == "abort"  # it was released by its answer


# What ends a session


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{",
        "5",
        "{}",
        "[]",
        '["nope"]',
        '["push"]',
        '["push",[1,2]]',
        '["push",[]]',
        '["push",["pipeline",1]]',
        '["push",["pipeline",99999999999999999999999,[]]]',
        '["push",["pipeline",true,[]]]',
        '["push",["pipeline",0,[["x"]]]]',
        '["push",["pipeline",0,"x",[]]]',
        '["push",["pipeline",0,["echo"],{}]]',
        '["push",["import",-1]]',
        '["push",["export",1]]',
        '["push",["promise",0]]',
        '["push",["remap",0,[],[],[]]]',
        '["push",["remap",0,[],[5],[1]]]',
        '["push",["bigint","0x10"]]',
        '["push",["bigint","' + "9" * 5000 + '"]]',
        '["push",["bytes","*"]]',
        '["push",["date",1e300]]',
        '["push",["result","",[]]]',
        '["push",["struct","Receipt",{}]]',
        '["pull",1]',
        '["pull","0"]',
        '["release",0,2]',
        '["release",5,1]',
        '["release",0,-1]',
        '["release",0,0]',
        '["resolve",-1]',
        '["push",NaN]',
        '["push",1e999]',
        '["push",' + "9" * 5000 + "]",
        "[" * 100_000,
        '["push",' + "[[" * 80 + "]]" * 80 + "]",
        '["push",' + '{"a":' * 200 + "1" + "}" * 200 + "]",
        '["push","' + "x" * 2_000_000 + '"]',
        '["push","\\ud800"]',
    ],
    ids=lambda text: text[:40],
)
async def test_what_breaks_the_protocol_aborts(side, message):
    """With a reason; afterwards nothing is taken, and nothing is left."""
    sent = await side(message)
    assert [name for name, *_ in sent] == ["abort"]
    assert sent[0][1][4]["type"] == "ProtocolError"
    assert await side(["push", 1], ["pull", 1]) == []
    assert (side.peer.pending, len(side.peer.imports)) == (0, 0)


async def test_the_peer_may_abort(side):
    """Its reason is kept, calls under way are given up, and nothing more is sent."""
    await side(call("slow"), ["pull", 1])
    assert await side(["abort", ["error", "TypeError", "enough"]]) == []
    assert str(side.peer.closed) == "enough"
    assert side.peer.pending == 0


# Limits


async def test_a_value_that_doubles_is_stopped():
    """A value that refers to itself twice, thirty times over, is refused before anybody writes it out."""
    side = Side(limits=Limits(argument_size=10_000))
    await side(["push", [["x"]]])
    for number in range(1, 30):
        await side(["push", [[["pipeline", number], ["pipeline", number]]]])
    sent = await side(call("echo", ["pipeline", 30]), ["pull", 31])
    assert (sent[0][0], "too many parts" in sent[0][2][2]) == ("reject", True)


async def test_a_map_has_a_budget():
    """Maps within maps share it."""
    side = Side(limits=Limits(steps=50))
    sent = await side(
        call("echo", [list(range(40))]),
        ["push", ["remap", 1, [], [], [["pipeline", 0]]]],
        ["pull", 2],
        ["push", ["remap", 1, [], [["import", 1]], [["remap", -1, [], [], [["pipeline", 0]]]]]],
        ["pull", 3],
    )
    assert [message[0] for message in sent] == ["resolve", "reject"]
    assert "more than 50 steps" in sent[1][2][2]


async def test_answers_have_a_size():
    """What is too large is rejected, and the session goes on."""
    side = Side(limits=Limits(result_size=100))
    sent = await side(call("echo", "x" * 200), ["pull", 1], call("echo", 1), ["pull", 2])
    assert [message[0] for message in sent] == ["reject", "resolve"]


async def test_results_that_are_held_have_a_size():
    """A peer that makes call after call and takes no result is stopped; released results do not count."""
    side = Side(limits=Limits(held_size=10_000))
    for number in range(1, 20):
        assert await side(call("echo", "x" * 4000), ["release", number, 1]) == []
    sent = await side(*[call("later", ["date", 0]) for _ in range(100)], *[call("echo", "x" * 4000) for _ in range(3)])
    assert (sent[0][0], "too large" in sent[0][1][2]) == ("abort", True)


async def test_a_result_has_a_size():
    """A larger one is dropped at once, and rejects what builds on it."""
    side = Side(limits=Limits(result_size=1000))
    side.peer.find(0).outcome.value.add("many", lambda: ["x" * 100] * 100)
    sent = await side(call("many"), ["push", ["pipeline", 1, ["0"]]], ["pull", 2])
    assert (sent[0][0], "ask for less" in sent[0][2][2]) == ("reject", True)


async def test_the_tables_have_a_size():
    """A peer that pushes and never releases gets an abort that says so."""
    side = Side(limits=Limits(entries=10))
    sent = await side(*[call("echo", number) for number in range(20)])
    assert (sent[0][0], "dispose of those" in sent[0][1][2]) == ("abort", True)


async def test_calls_under_way_have_a_bound():
    """At the limit reading pauses; a client that is called back meanwhile is still read, up to four times as much."""
    side = Side(limits=Limits(pending=5))
    await side(*[call("slow") for _ in range(5)])
    reading = asyncio.ensure_future(side.peer.ready())
    await side.quiet()
    assert not reading.done()
    side.waiting[0].set_result(None)
    await reading
    await side(call("slow"), *[["push", ["pipeline", 0, ["call"], [["export", -n]]]] for n in range(1, 11)])
    await side.peer.ready()  # answers to these may come next
    sent = await side(*[call("slow") for _ in range(9)], ["pull", 25])
    assert sent[-1][0] == "reject"
    assert sent[-1][2][4]["type"] == Backpressure.__name__
    side.peer.close(Unreachable("over"))
    await side.peer.settle()


async def test_a_peer_that_does_not_read_holds_answers_back():
    """No answer is written while it is behind, and reading pauses; all come when it has caught up."""
    side = Side()
    taking = False
    side.peer._send = lambda text: side.sent.append(text) is None and taking
    assert len(await side(*[call("echo", "x" * 1000) for _ in range(50)], *[["pull", n + 1] for n in range(50)])) == 1
    reading = asyncio.ensure_future(side.peer.ready())
    await side.quiet()
    assert not reading.done()
    taking = True
    side.peer.drained()
    await reading
    assert len(side.take()) == 49


async def test_a_batch_has_a_size():
    """Answers beyond it are rejected, so that few messages cannot ask for gigabytes."""
    side = Side(limits=Limits(batch_size=10_000), answers=False)
    sent = await side(
        call("echo", "x" * 5000), *[["push", ["pipeline", 1]] for _ in range(9)], *[["pull", n] for n in range(1, 11)]
    )
    assert [message[0] for message in sent] == ["resolve"] * 2 + ["reject"] * 8


# Two peers


def pair(**options):
    """A Lakebed client and a server, each the other's."""
    server, client = Side(faithful=True, **options), Side(trusting=True, faithful=True)
    server.peer._send = lambda text: client.peer.receive(text) is None
    client.peer._send = lambda text: server.peer.receive(text) is None
    return client, server


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.decimals(allow_nan=False, allow_infinity=False, places=5)
    | st.dates()
    | st.datetimes(timezones=st.just(UTC))
    | st.timedeltas(timedelta(days=-9999), timedelta(days=9999))
)
VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4) | st.tuples(inner, inner),
    max_leaves=20,
)


@PATIENT
@given(value=VALUES)
async def test_any_value_comes_back_as_it_went(value):
    """Between two Lakebeds nothing of a value or its types is lost."""
    client, _ = pair()
    slot = client.peer.imports.pull(client.peer.imports.push(0, ("echo",), [value]))
    await client.quiet()
    assert slot.outcome.error is None
    assert _typed(slot.outcome.value) == _typed(value)


def _typed(value):
    if isinstance(value, dict):
        return {name: _typed(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value), [_typed(item) for item in value]
    return type(value), value


async def test_rows_and_unknown_structs_become_rows():
    """A row stays one; a struct that the client does not know is read by attribute all the same."""
    client, server = pair()
    row = Row({"a": 0, "b": 1}, (1, date(2026, 1, 1)))
    server.peer.find(0).outcome.value.add("row", lambda: [row, Limits(depth=3), Decimal(1)])
    slot = client.peer.imports.pull(client.peer.imports.push(0, ("row",), []))
    await client.quiet()
    returned, limits, number = slot.outcome.value
    assert returned == row
    assert (limits.depth, limits["depth"], number) == (3, 3, Decimal(1))


async def test_a_naive_datetime_is_refused():
    """Its time zone is unknown; the error says what to write instead, and nothing is sent."""
    client, server = pair()
    server.peer.find(0).outcome.value.add("echo", lambda value: value)
    with pytest.raises(TypeError, match=r"no time zone: give it one"):
        client.peer.imports.push(0, ("echo",), [datetime(2026, 1, 1)])  # noqa: DTZ001 - naive on purpose


async def test_errors_are_the_same_class_again():
    """With message, hint and facts; of an inner error of the server only that there was one."""
    client, _ = pair()
    errors = []
    for kind in ("timeout", "inner", "value"):
        slot = client.peer.imports.pull(client.peer.imports.push(0, ("boom",), [kind]))
        await client.quiet()
        errors.append(slot.outcome.error)
    assert type(errors[0]) is QueryTimeout
    assert (str(errors[0]), errors[0].limit, errors[0].hint) == ("too slow. Ask less", 3, "Ask less")
    assert "secret" not in str(errors[1])
    assert (type(errors[2]), str(errors[2])) == (ValueError, "no")


async def test_functions_cross_both_ways():
    """A function of the client is called by the server, and its error is raised there and comes back."""
    client, server = pair()
    heard = []
    imports = client.peer.imports
    slot = imports.pull(imports.push(0, ("call",), [heard.append, [1, 2]]))
    await client.quiet()
    assert (heard, slot.outcome.value) == ([[1, 2]], None)

    def refuse():
        raise NotReachable("not now", hint="Later")

    slot = imports.pull(imports.push(0, ("call",), [refuse]))
    await client.quiet()
    assert (type(slot.outcome.error), str(slot.outcome.error)) == (TypeError, "not now")
    slot = imports.pull(imports.push(0, ("give",), []))
    await client.quiet()
    gift = slot.outcome.value
    assert isinstance(gift, Remote)
    gift.close()
    assert server.gone == ["gift"]


# Whatever comes in


_WORDS = ["push", "pull", "resolve", "reject", "release", "stream", "pipe", "abort"]
_TAGS = [
    "pipeline",
    "import",
    "export",
    "promise",
    "remap",
    "error",
    "date",
    "bigint",
    "bytes",
    "named",
    "row",
    "undefined",
]
_NAMES = [
    "echo",
    "later",
    "boom",
    "give",
    "rows",
    "call",
    "keep",
    "__class__",
    "__proto__",
    "constructor",
    "then",
    "0",
    "n",
]
_IDS = st.integers(-4, 8) | st.sampled_from([10**30, -(2**53), 2**53, True, 1.5, "1", None])
_EXPRESSIONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(_NAMES),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(lambda items: [items])
        | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=2)
        | st.tuples(st.sampled_from(_TAGS), _IDS).map(list)
        | st.tuples(st.sampled_from(_TAGS), _IDS, st.lists(st.sampled_from(_NAMES), max_size=2)).map(list)
        | st.tuples(
            st.just("pipeline"),
            st.integers(-3, 6),
            st.lists(st.sampled_from(_NAMES), max_size=2),
            st.lists(inner, max_size=2),
        ).map(list)
        | st.tuples(
            st.just("remap"), st.integers(-3, 6), st.just([]), st.just([["import", 0]]), st.lists(inner, max_size=2)
        ).map(list)
    ),
    max_leaves=12,
)
_MESSAGES = (
    st.tuples(st.just("push"), _EXPRESSIONS).map(list)
    | st.tuples(st.just("pull"), st.integers(0, 6)).map(list)
    | st.tuples(st.sampled_from(_WORDS), _IDS, _EXPRESSIONS).map(list)
    | st.tuples(st.just("release"), st.integers(-3, 6), st.integers(-1, 3)).map(list)
    | _EXPRESSIONS
    | st.binary(max_size=30).map(lambda data: data.decode(errors="replace"))
)


@pytest.mark.integration
@settings(PATIENT, max_examples=200)
@given(messages=st.lists(_MESSAGES, max_size=12))
@example(
    messages=[["push", ["pipeline", 0, ["echo"], [["promise", -1]]]], ["resolve", -1, ["pipeline", 1]], ["pull", 1]]
)
async def test_any_messages_are_answered_or_end_the_session(messages):
    """Nothing is raised, no error is an inner one, whatever is sent is a message, and at the end nothing is left."""
    side = Side()
    sent = []
    for message in messages:
        sent += await side(message)
    assert all(isinstance(message, list) and message[0] in _WORDS for message in sent)
    errors = [message[-1] for message in sent if message[0] in ("reject", "abort")]
    assert not [
        error for error in errors if isinstance(error, list) and error[4:] and error[4].get("code") == "INTERNAL"
    ]
    assert "could not be taken" not in json.dumps(sent)
    side.peer.close(Unreachable("over"))
    await side.peer.settle()
    assert (side.peer.pending, len(side.peer.imports), side.peer.idle) == (0, 0, True)
    assert len(asyncio.all_tasks()) == 1
