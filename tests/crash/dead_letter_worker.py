"""The program that is killed while it stores and replays dead letters. It forks a process for each request."""

import asyncio
import json
import os
import sys

from lakebed import Analytics, ManualClock
from tests.crash.killer import KillDisk, Killer, trace_sqlite
from tests.crash.subject import SETTINGS, START

MEND = {"event": "mended"}


def tell(what, **facts):
    os.write(1, json.dumps({"what": what} | facts).encode() + b"\n")


def body(first, count):
    """A body of events: every third is valid; of the invalid ones every second has a message id."""
    items = [
        {
            "event": "good" if number % 3 == 0 else "",
            "userId": f"u{number}",
            **({"messageId": f"m{number}"} if number % 3 != 1 else {}),
        }
        for number in range(first, first + count)
    ]
    return json.dumps(items).encode()


async def session(request):
    killer = Killer(request["kill"] | {"later": True})
    trace_sqlite(killer)
    shop = Analytics("shop", root=request["root"], clock=ManualClock(START), disk=KillDisk(killer), **SETTINGS)
    async with shop:
        for number, job in enumerate(request["jobs"]):
            killer.armed = job == request["arm"]
            if job == "refuse":
                first = number * 100
                receipts = await shop.batch(body(first, 9), keep_refused=True, source="http")
                tell("answered", first=first, rejected=sum(receipt.status == "rejected" for receipt in receipts))
            else:
                outcomes = await shop.replay(edit=MEND)
                tell("replayed", stored=sum(outcome.status == "stored" for outcome in outcomes))
        killer.armed = False
        tell("done", labels=killer.labels)


def serve():
    import duckdb  # noqa: F401 - imported before the fork, so that no process pays for it

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                asyncio.run(session(json.loads(line)))
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        tell("ended", signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, code=status)


if __name__ == "__main__":
    serve()
