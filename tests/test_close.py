"""What is left of an object after close()."""

import asyncio
import gc
import threading
from pathlib import Path

import pytest

from lakebed import Analytics, Namespace, Rollup

pytestmark = pytest.mark.integration  # a whole object, and what it leaves


class Shop(Analytics):
    orders = Rollup("orders", by=["plan"], measures={"n": "count()", "p50": "quantile(price, 0.5)"})


async def every_part(root):
    """Use every tier and thread of an object, then close it."""
    async with Shop("shop", root=root) as shop:
        await shop.batch([{"event": "Order", "userId": "a", "properties": {"price": 3, "plan": "pro"}}] * 50)
        await shop.query("SELECT * FROM orders")
        await shop.dau()
        await shop.archive()
        await shop.track("Order", user_id="b")
        assert (await shop.query("SELECT count(*) FROM events")).scalar() == 51
        await shop.compact()
        await shop.expire()
        await shop.collect_garbage()
        assert await shop.check() == []
    async with Namespace(root, Shop) as namespace:
        assert await namespace.get("shop").dau(1)[0].dau == 2


def open_files():
    """Paths of open descriptors, but for those of the interpreter itself."""
    paths = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            paths.append(str(descriptor.readlink()))
        except FileNotFoundError:  # the descriptor of iterdir
            continue
    return sorted(paths)


def test_close_leaves_no_thread_and_no_descriptor(tmp_path):
    """After the first use of everything, a whole life more leaves no thread, no task and no open file behind."""
    asyncio.run(every_part(tmp_path / "first"))  # libraries open what they open once
    gc.collect()
    files, threads = open_files(), threading.active_count()
    asyncio.run(every_part(tmp_path / "second"))
    gc.collect()
    assert open_files() == files
    assert not any(str(tmp_path) in path for path in open_files())
    assert threading.active_count() == threads
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("lakebed")] == []


async def test_close_leaves_no_thread_while_the_loop_goes_on(tmp_path):
    """Nothing of an object waits for the loop to end."""
    before = set(threading.enumerate())  # pyiceberg keeps its own for the process, once a test has asked it to
    await every_part(tmp_path)
    assert [thread.name for thread in threading.enumerate() if thread not in before] == []
    assert asyncio.all_tasks() == {asyncio.current_task()}
