"""connect(): the same object for synchronous code."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from lakebed.errors import NotReachable, ObjectClosed, ObjectLocked
from lakebed.objects.durable_object import DurableObject
from lakebed.objects.sync import connect

pytestmark = pytest.mark.integration  # processes of their own, that end in each way


class Tally:
    """Live counts."""

    def __init__(self):
        self.values = {}

    def __len__(self):
        return len(self.values)

    def incr(self, key, amount=1):
        """Add to a count."""
        self.values[key] = self.values.get(key, 0) + amount
        return threading.current_thread().name


class Desk(DurableObject):
    """A desk."""

    limit = 7

    def __init__(self, name, *, colour="grey", **arguments):
        super().__init__(name, **arguments)
        self.colour = colour

    async def _open(self):
        self._tally = Tally()
        self.cancelled = threading.Event()
        self.waiting = threading.Event()

    @property
    def counters(self):
        return self._tally

    async def later(self, value, *, twice=False):
        """Give `value`, later."""
        await asyncio.sleep(0)
        return [value] * (1 + twice)

    def now(self, value):
        return value

    def awaitable(self, value):
        return asyncio.ensure_future(self.later(value))

    async def fail(self):
        raise ValueError("no")

    async def hang(self):
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


@pytest.fixture
def desk(tmp_path):
    with connect(tmp_path, "tom", Desk, colour="red") as connection:
        yield connection


def threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("lakebed")]


def test_methods_block_for_their_results(desk):
    """Async methods, plain methods and plain methods that give awaitables: each gives its value."""
    assert desk.later(3, twice=True) == [3, 3]
    assert desk.now(3) == 3
    assert desk.awaitable(4) == [4]
    assert desk.limit == 7
    assert desk.colour == "red"
    assert desk.name == "tom"
    with pytest.raises(ValueError, match="no"):
        desk.fail()


def test_parts_run_on_the_loop_thread(desk):
    """`counters` is reached like the object, on the thread of its loop."""
    assert desk.counters.incr("x") == "lakebed-connect-tom"
    assert desk.counters.incr("x", amount=2) == "lakebed-connect-tom"
    assert desk.counters.values == {"x": 3}
    assert len(desk.counters) == 1


def test_tab_completion_and_documentation(desk):
    """dir() lists what can be used; docstrings and signatures are the object's."""
    assert {"later", "now", "counters", "close"} <= set(dir(desk))
    assert not {"open", "run_due", "for_", "_open"} & set(dir(desk))
    assert dir(desk.counters) == ["incr"]
    assert desk.later.__doc__ == "Give `value`, later."
    assert str(inspect.signature(desk.later)) == "(value, *, twice=False)"
    assert desk.__doc__ == "A desk."
    assert desk.counters.incr.__doc__ == "Add to a count."
    assert "Desk('tom')" in repr(desk)


def test_names_that_are_not_there(desk):
    """A missing name is an AttributeError; the object's own opening and closing are kept from it."""
    with pytest.raises(AttributeError):
        _ = desk.nope
    with pytest.raises(AttributeError):
        _ = desk._tally
    with pytest.raises(NotReachable):
        _ = desk.run_due
    assert not hasattr(desk, "_repr_html_")


def test_close_ends_the_thread_and_the_lock(tmp_path):
    """After close() no thread is left, calls raise ObjectClosed, and the object can be opened again."""
    first = connect(tmp_path, "tom", Desk)
    assert threads() == ["lakebed-connect-tom"]
    first.close()
    first.close()
    assert threads() == []
    with pytest.raises(ObjectClosed):
        first.now(1)
    with connect(tmp_path, "tom", Desk) as second:
        assert second.now(1) == 1


def test_a_failed_open_leaves_nothing(tmp_path, desk):
    """A second connection gets ObjectLocked, and its thread is gone."""
    with pytest.raises(ObjectLocked) as caught:
        connect(tmp_path, "tom", Desk)
    assert caught.value.pid == os.getpid()
    assert threads() == ["lakebed-connect-tom"]
    assert desk.now(1) == 1


def test_threads_share_a_connection(desk):
    """Calls of several threads run side by side."""
    results = []
    workers = [threading.Thread(target=lambda n=n: results.append(desk.later(n)[0])) for n in range(20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(results) == list(range(20))


async def test_beside_a_running_loop(tmp_path):
    """In a notebook a loop runs in the main thread; the connection has its own."""
    with connect(tmp_path, "tom", Desk) as desk:
        assert desk.later(1) == [1]


def test_on_its_own_thread_it_refuses_to_wait(desk):
    """A callback of the object that calls the connection would wait for itself: it is an error."""
    caught = []

    def call():
        try:
            desk.now(1)
        except RuntimeError as error:
            caught.append(str(error))

    desk._loop._loop.call_soon_threadsafe(call)
    desk.now(2)
    assert "own callbacks" in caught[0]


def test_ctrl_c_cancels_the_call(desk):
    """KeyboardInterrupt while waiting reaches the caller and cancels the call; the connection stays usable."""
    waiting = desk._target.waiting

    def interrupt():
        waiting.wait()
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        desk.hang()
    thread.join()
    assert desk._target.cancelled.wait(5)
    assert desk.now(1) == 1


def test_close_ends_calls_of_other_threads(tmp_path):
    """A call that another thread waits for ends when the connection is closed; no thread hangs."""
    desk = connect(tmp_path, "tom", Desk)
    waiting, outcome = desk._target.waiting, []

    def call():
        try:
            desk.hang()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the thread must end
            outcome.append(type(error).__name__)

    thread = threading.Thread(target=call)
    thread.start()
    waiting.wait()
    desk.close()
    thread.join(5)
    assert outcome == ["ObjectClosed"]


_FORGETS = """
import asyncio, sys, threading
from concurrent.futures import ThreadPoolExecutor
from lakebed.objects.sync import connect
from lakebed.objects.durable_object import DurableObject

class Desk(DurableObject):
    async def _open(self):
        self.thread = ThreadPoolExecutor(1)
    async def _close(self):
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self.thread, lambda: print("closed in a thread", flush=True))
        self.thread.shutdown()
    async def hello(self):
        return "hello"
"""


def run(body, tmp_path):
    code = textwrap.dedent(_FORGETS) + textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "body",
    [
        """
        desk = connect(sys.argv[1], "tom", Desk)
        print(desk.hello())
        """,
        """
        print(connect(sys.argv[1], "tom", Desk).hello())
        """,
        """
        async def notebook():
            global desk
            desk = connect(sys.argv[1], "tom", Desk)
            print(desk.hello())
        asyncio.run(notebook())
        """,
        """
        desk = connect(sys.argv[1], "tom", Desk)
        print(desk.hello())
        sys.exit(0)
        """,
    ],
    ids=["at module level", "not even kept", "in a running loop", "sys.exit"],
)
def test_a_forgotten_connection_is_closed_at_exit(tmp_path, body):
    """The object is closed when the interpreter exits, while it still may use threads; nothing is printed, no hang."""
    done = run(body, tmp_path)
    assert done.stderr == ""
    assert done.stdout == "hello\nclosed in a thread\n"
    assert done.returncode == 0


def test_an_exception_at_top_level_still_closes(tmp_path):
    """The script's own error is shown; the object is closed all the same."""
    done = run("desk = connect(sys.argv[1], 'tom', Desk)\nraise KeyError('mine')", tmp_path)
    assert done.stdout == "closed in a thread\n"
    assert done.returncode == 1
    assert done.stderr.strip().endswith("KeyError: 'mine'")


def test_a_forked_child_cannot_use_it(tmp_path):
    """After fork the connection belongs to the parent; a call in the child is an error, and its exit closes nothing."""
    done = run(
        """
        import os, warnings
        warnings.simplefilter("ignore")
        desk = connect(sys.argv[1], "tom", Desk)
        pid = os.fork()
        if pid == 0:
            try:
                desk.hello()
            except Exception as error:
                print(type(error).__name__, flush=True)
            sys.exit(0)
        os.waitpid(pid, 0)
        print(desk.hello(), flush=True)
        """,
        tmp_path,
    )
    assert done.stderr == ""
    assert done.stdout == "ObjectClosed\nhello\nclosed in a thread\n"


def test_the_default_class_is_analytics(tmp_path):
    """`connect(root, name)` is an Analytics whose every verb blocks: durable when it returns."""
    with connect(tmp_path, "tom", promote={"revenue": float}) as tom:
        assert tom.track("Seen", {"revenue": 2.5}, user_id="a").seq == 0
        assert [receipt.seq for receipt in tom.batch([{"event": "b"}, {"event": "c"}])] == [1, 2]
        tom.counters.incr("clicks", ttl=60)
        assert tom.counters.get("clicks") == 1
        assert "clicks" in tom.counters
        assert tom.dau(1)[0].events == 3
        assert tom.query("SELECT sum(revenue) FROM events").scalar() == 2.5
        assert tom.check() == []
        assert {"track", "dau", "query", "counters"} <= set(dir(tom))
        assert "incr" in dir(tom.counters)
    assert threads() == []
