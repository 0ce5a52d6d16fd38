"""Stubs and sessions: calls start at once, build on one another, and are sent again if cancelled before they began."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakebed.errors import NotReachable
from lakebed.objects.namespace import Namespace
from lakebed.rpc.stub import Promise, Stub, trips
from tests.rpc.shop import Shop


@pytest.fixture
async def namespace(tmp_path):
    errors = []
    async with Namespace(tmp_path, Shop, on_error=errors.append) as ns:
        ns.errors = errors
        yield ns


@pytest.fixture
def shop(namespace):
    return namespace.get("tom")


async def test_chain_over_a_call_is_one_trip(shop):
    """`await stub.dau(7)[0].dau` resolves in one trip."""
    assert await shop.dau(7)[3].dau == 30
    assert trips(shop) == 1


async def test_chain_over_several_calls_is_one_trip(shop):
    """Calls on promises, and promises as arguments, also deep in lists and dicts, travel with what they need."""
    days = shop.dau(3)
    total = shop.add(days[1].dau, days[2].dau)
    args, kwargs = await shop.echo([total, {"x": (days[0].date, 7)}], y=total)
    assert args == ([30, {"x": ("2026-01-01", 7)}],)
    assert kwargs == {"y": 30}
    assert await total == 30
    assert trips(shop) == 1


_STEPS = st.lists(
    st.tuples(st.sampled_from(["note", "anote", "add", "turn", "settle"]), st.integers(0, 30)), max_size=40
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_STEPS)
async def test_any_program_of_calls(tmp_path, steps):
    """Calls that build on earlier ones, over any number of turns, give what the same calls give one after another."""
    async with Namespace(tmp_path / uuid.uuid4().hex, Shop) as ns:
        shop, promises, values, log = ns.get("tom"), [], [], []
        for n, (step, pick) in enumerate(steps):
            if step == "turn":
                await asyncio.sleep(0)
            elif step == "settle":
                await ns.flush()
            elif step.endswith("note"):
                promises.append(getattr(shop, step)(f"{n}"))
                log.append(f"{n}")
                values.append(len(log))
            elif promises:
                left = pick % len(promises)
                promises.append(shop.add(promises[left], pick))
                values.append(values[left] + pick)
        assert await asyncio.gather(*promises) == values
        assert await shop.notes() == log
        assert ns.check() == []


async def test_attribute_path_then_call(shop):
    """`stub.counters.incr("x")` calls a method of an attribute."""
    assert await shop.counters.incr("x") == 1
    assert await shop.counters.incr("x", amount=4) == 5
    assert await shop.counters.values["x"] == 5


async def test_attributes_and_plain_methods(shop):
    """Attributes can be awaited, plain methods called; both in one trip with others, also as arguments."""
    first = shop.kind
    assert await asyncio.gather(first, shop.name, shop.add(1, 2)) == ["shop", "tom", 3]
    before = trips(shop)
    assert await shop.echo(shop.kind) == (("shop",), {})
    assert trips(shop) == before + 1


async def test_calls_of_one_turn_are_one_trip_in_order(shop):
    """Calls start in the order in which they were made, plain and async mixed, and 200 of them are one trip."""
    for n in range(200):
        (shop.note if n % 2 else shop.anote)(str(n))
    assert await shop.notes() == [str(n) for n in range(200)]
    assert trips(shop) == 1


async def test_batches_start_in_order(namespace):
    """A later turn's calls do not pass an earlier one's, even while the object still wakes."""
    first, second = namespace.get("tom"), namespace.get("tom")
    first.anote("a")
    first.anote("b")
    await asyncio.sleep(0)
    second.note("c")
    await asyncio.sleep(0)
    first.note("d")
    assert await second.notes() == ["a", "b", "c", "d"]


async def test_slow_call_does_not_hold_up_others(shop):
    """Order is of starting, not of finishing: a call that waits lets later ones run."""
    waiting = shop.wait()
    assert await shop.add(1, 1) == 2
    shop.release()
    assert await waiting == "through"


async def test_promise_of_an_earlier_trip(shop):
    """A promise that already left is waited for, then built on: elements, methods, arguments."""
    days = shop.dau(3)
    await asyncio.sleep(0)
    slow = shop.wait()
    await asyncio.sleep(0)
    echoed = shop.echo(slow, days[2].dau)
    shop.release()
    assert await echoed == (("through", 20), {})
    assert await days[1].dau == 10
    assert (await days)[0].dau == 0
    tally = shop.counters
    assert await tally.incr("k") == 1


async def test_promises_of_another_object(namespace):
    """A promise of one object may be an argument of a call to another."""
    a, b = namespace.get("a"), namespace.get("b")
    assert await b.add(a.add(1, 2), 4) == 7
    assert await b.echo([b.add(1, 1), a.kind]) == (([2, "shop"],), {})


async def test_awaiting_twice_gives_the_same(shop):
    """A promise has one value: it is not asked for again."""
    promise, name = shop.note("x"), shop.name
    assert await promise == await promise == 1
    assert await name == await name == "tom"
    assert await shop.notes() == ["x"]


async def test_a_failure_is_raised_by_every_await(shop, namespace):
    """The error of a call is raised by its promise and by all that builds on it, and is then reported nowhere else."""
    promise = shop.fail("boom")
    built = shop.echo(promise[0])
    for waiting in (promise, built, promise.x):
        with pytest.raises(ValueError, match="boom"):
            await waiting
    del promise, built, waiting
    gc.collect()
    await namespace.flush()
    assert namespace.check() == []


async def test_a_call_that_is_not_awaited_runs_and_its_failure_is_reported(shop, namespace):
    """An unawaited call runs; its failure goes to on_error and check(), and not to "never retrieved"."""
    unhandled = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: unhandled.append(context))
    for n in range(3):
        shop.note(n)
    shop.fail("lost")
    await namespace.flush()
    gc.collect()
    await asyncio.sleep(0)
    assert await shop.notes() == [0, 1, 2]
    assert namespace.check() == ["ValueError: lost"]
    assert [str(error) for error in namespace.errors] == ["lost"]
    assert unhandled == []


async def test_an_unhandled_failure_is_reported_when_its_promise_is_dropped(shop, namespace):
    """While a promise is held it may still be awaited; when it is gone its failure is reported, once for a chain."""
    promise = shop.fail("kept")
    built = shop.add(promise, 1)
    await namespace.flush()
    assert namespace.check() == []
    del promise, built
    assert namespace.check() == ["ValueError: kept"]


async def test_cancelled_wait_leaves_the_call(shop):
    """Giving up waiting does not stop the call, nor other waiters."""
    promise = shop.wait()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(promise, 0.01)
    other = asyncio.ensure_future(promise)
    await asyncio.sleep(0)
    shop.release()
    assert await other == "through"
    assert await promise == "through"


async def test_arguments_are_copied_at_the_call(shop):
    """What the caller changes after the call does not change the call."""
    event = {"n": 1, "deep": [1]}
    buffer = bytearray(b"abc")
    promise = shop.echo(event, buffer)
    event["n"] = 2
    event["deep"].append(2)
    buffer[0] = 0
    assert await promise == (({"n": 1, "deep": [1]}, b"abc"), {})


@pytest.mark.parametrize(
    "path",
    [
        lambda s: s.nope(),
        lambda s: s.secret(),
        lambda s: s.close(),
        lambda s: s.open(),
        lambda s: s.directory,
        lambda s: s.settings,
        lambda s: s.hidden,
        lambda s: s["_private"](),
        lambda s: s.self_().close(),
        lambda s: s.self_().directory,
        lambda s: s.self_()["__class__"],
        lambda s: s.name.format(),
        lambda s: s.counters.values.pop("x"),
        lambda s: s.dau(1).append(1),
        lambda s: s.day.replace(2000),
        lambda s: s.counters.incr.__func__,
        lambda s: s.kind(),
        lambda s: s.add(1, 2)[0],
    ],
)
async def test_only_public_names_are_reachable(namespace, path):
    """Private names, the object's internals, methods of plain values: each gives a typed error, none gets through."""
    shop = namespace.get("tom")
    with pytest.raises((NotReachable, KeyError, TypeError)):
        await path(_Paths(shop))


class _Paths:
    """Lets a test write stub["x"], which a stub itself does not have."""

    def __init__(self, stub):
        self._stub = stub

    def __getattr__(self, name):
        return getattr(self._stub, name)

    def __getitem__(self, name):
        return Promise(self._stub._session, None, (name,))


async def test_missing_method_names_what_exists(shop):
    """The error is an AttributeError that lists the public names."""
    with pytest.raises(AttributeError) as caught:
        await shop.daw(7)
    assert isinstance(caught.value, NotReachable)
    assert "'daw'" in str(caught.value)
    assert "dau" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "close" not in str(caught.value)


async def test_missing_elements_are_python_errors(shop):
    """An index or key that does not exist raises IndexError or KeyError."""
    with pytest.raises(IndexError):
        await shop.dau(1)[5]
    with pytest.raises(KeyError):
        await shop.counters.values["nope"]


async def test_indexes_may_be_text(shop):
    """Cap'n Web clients send `["0","dau"]`."""
    assert await shop.dau(2)["1"].dau == 10


async def test_a_promise_is_not_a_value(shop):
    """Using a promise as a value says to await it first; its repr does not raise."""
    promise = shop.dau(1)
    for use in (
        list,
        len,
        bool,
        int,
        float,
        lambda p: p + 1,
        lambda p: 1 + p,
        lambda p: p < 1,
        lambda p: p == 1,
        lambda p: 1 in p,
        lambda p: p[1:2],
    ):
        with pytest.raises(TypeError, match="await it first"):
            use(promise)
    assert "await it" in repr(promise[0].dau)
    assert "Shop('tom')" in repr(shop)
    assert promise == promise  # noqa: PLR0124
    assert promise != shop.dau(1)
    assert len({promise, promise}) == 1


async def test_stubs_survive_what_tools_do_to_objects(shop):
    """hasattr, copy, dir and IPython's probing do not turn into calls."""
    assert not hasattr(shop, "_repr_html_")
    assert not hasattr(shop.dau(1), "__len_hint__")
    promise = shop.dau(1)
    assert copy.copy(shop) is copy.deepcopy(shop) is shop
    assert isinstance(shop, Stub)
    assert copy.deepcopy([promise])[0] is promise
    for value in (shop, promise):
        with pytest.raises(TypeError, match="cannot be sent"):
            pickle.dumps(value)
    assert {"dau", "add", "echo"} <= set(dir(shop))
    assert not {"secret", "close", "_private"} & set(dir(shop))


def test_a_stub_needs_a_loop(tmp_path):
    """Outside a loop a call says where to turn."""
    stub = Namespace(tmp_path, Shop).get("tom")
    with pytest.raises(RuntimeError, match=r"connect\(\)"):
        stub.add(1, 2)


async def test_a_transport_that_answers_short_is_an_error(namespace):
    """Too few outcomes fail every call of the batch; none waits for ever."""
    shop = namespace.get("tom")

    async def nothing():
        return []

    def send(batch):
        yield batch, nothing()

    shop._session._transport.send = send
    with pytest.raises(RuntimeError, match="got no outcome"):
        await shop.add(1, 2)


@pytest.mark.parametrize("turns", range(1, 6))
async def test_a_call_that_was_cancelled_before_it_began_is_sent_again(tmp_path, turns):
    """As at the end of `asyncio.run`, which cancels all tasks at once: no call is lost, and the order stays."""
    async with Namespace(tmp_path, Shop) as namespace:
        shop = namespace.get("tom")
        notes = [(shop.anote if n % 2 else shop.note)(f"{n}") for n in range(10)]
        for _ in range(turns):
            await asyncio.sleep(0)
        tasks = list(shop._session._tasks)
        for task in tasks:
            task.cancel()
        await namespace.flush()
        assert await shop.notes() == [f"{n}" for n in range(10)]
        counts = await asyncio.gather(*notes, return_exceptions=True)
        assert not [count for count in counts if not isinstance(count, (int, asyncio.CancelledError))]
        assert not shop._session._tasks
        assert not namespace._busy
        namespace._failures.clear()


async def test_a_call_on_a_cancelled_one_fails_alike(tmp_path):
    """A call that began and was cancelled is over; so is what was built on it. Neither is sent again."""
    async with Namespace(tmp_path, Shop) as namespace:
        shop = namespace.get("tom")
        waiting = shop.wait()
        built = shop.echo(waiting)
        await asyncio.sleep(0)
        first, second = shop._session._tasks
        while not shop._session._tasks[first] or not next(iter(shop._session._tasks[first].values())).begun:
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first, second])
        for promise in (waiting, built):
            with pytest.raises(asyncio.CancelledError):
                await promise
        assert await shop.notes() == []
