"""The program that is killed: it opens an object, works on it, and reports its promises to the test.

Run by its own interpreter it waits for requests, one line of JSON each, and forks a process for each of them: the
killed process is a real one, and a hundred of them import Arrow, DuckDB and pyiceberg once. Its lines on stdout are:
`pid`, `ready`, those of `session_work.py` and `concurrent_load.py`, `done`, and at last `ended` with its wait status.
"""

import asyncio
import faulthandler
import json
import logging
import os
import signal
import sys
import traceback

from lakebed import Disk, LakebedError, ManualClock
from lakebed.clock import from_us
from tests.crash.concurrent_load import ConcurrentWork
from tests.crash.killer import KillDisk, Killer, trace_sqlite
from tests.crash.random_disk_faults import RoughDisk
from tests.crash.resource_limits import held
from tests.crash.session_work import Work, tell
from tests.crash.sleeping_objects import naps
from tests.crash.subject import SETTINGS, Shop, excused


async def session(request):
    """Open the object and work on it until the work is done or the process is killed."""
    asyncio.get_running_loop().set_exception_handler(unheard)
    clock = ManualClock(from_us(request["start_us"]))
    if request.get("naps"):
        await naps(request, clock)
        tell("done", **held())
        return
    kill, faults = request.get("kill") or {}, request.get("faults")
    killer = Killer(kill)
    if kill:
        trace_sqlite(killer)
    disk = KillDisk(killer) if kill else Disk()
    rough = None
    if faults:
        disk = rough = RoughDisk(disk, request["seed"], rate=faults["rate"], only=faults["only"])
        rough.on = faults["at_open"]
    shop = Shop("shop", root=request["root"], clock=clock, disk=disk, **SETTINGS)
    try:
        await shop.open()
    except LakebedError as error:
        if rough is None or not excused(error):
            raise
        tell("refused", what="open", error=type(error).__name__)
        return
    try:
        await work(shop, killer, request, rough)
    finally:
        await shop.close()
    tell("done", now_us=shop.clock.now_us(), labels=killer.labels if request.get("first") else [], **held())


def unheard(loop, context):
    """Report the error of a call that no task awaits, unless an injected fault caused it: this load abandons calls."""
    if not excused(context.get("exception")):
        loop.default_exception_handler(context)


async def work(shop, killer, request, rough):
    tell("ready", next_seq=shop.stats().next_seq, watermark=shop.stats().watermark)
    if "turns" in request:
        await frenzy(shop, killer, request, rough)
        return
    ordered = Work(shop, killer, request)
    for job in request.get("first", []):
        await ordered.work(job)
    await ordered.everything()


async def frenzy(shop, killer, request, rough):
    if rough is not None:
        rough.on = True
    all_at_once = ConcurrentWork(shop, killer, request, rough)
    await all_at_once.everything()
    if rough is not None:
        await all_at_once.recover()
    for again in range(1, request.get("lives", 1)):
        tell("quiet", **held())
        shop.clock.advance(5000.0)
        all_at_once.request = request | {
            "seed": f"{request['seed']}/{again}",
            "session": f"{request['session']}.{again}",
        }
        await all_at_once.everything()
    tell("quiet", **held())


def child(request):
    code = 1
    try:
        asyncio.run(session(request))
        code = 0
    except BaseException:  # noqa: BLE001 - the test reads it
        tell("failed", trace=traceback.format_exc()[-3000:])
    finally:
        os._exit(code)


def serve():
    # Imported before the fork, so that no process pays for them; none of them leaves a thread.
    import apscheduler.schedulers.asyncio  # noqa: F401
    import datasketches  # noqa: F401
    import duckdb  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import pyiceberg.catalog.sql  # noqa: F401
    import sqlglot  # noqa: F401

    import lakebed.tiers.archive.table
    import lakebed.tiers.archive.worker  # noqa: F401

    logging.getLogger("lakebed").addHandler(logging.NullHandler())  # check reports the injected faults
    faulthandler.register(signal.SIGUSR1)  # prints the stack of a session that hangs
    tell("serving")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            child(json.loads(line))
        tell("pid", pid=pid)
        _, status, used = os.wait4(pid, 0)
        tell("ended", status=status, rss=used.ru_maxrss * 1024)


if __name__ == "__main__":
    serve()
