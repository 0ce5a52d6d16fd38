"""The concurrent load through a namespace, whose object sleeps and wakes while calls, tracking and archiving run."""

import asyncio

from lakebed import Namespace
from tests.crash.concurrent_load import LOOPS, ConcurrentWork
from tests.crash.session_work import tell
from tests.crash.subject import SETTINGS, Shop

NAPS = 6
_IDLE_S = 400.0  # longer than `idle_s`


class Called:
    """The stub of an object, with the clock of its namespace."""

    def __init__(self, namespace, clock):
        self._stub = namespace.stub(Shop, "shop")
        self.clock = clock

    def __getattr__(self, name):
        return getattr(self._stub, name)


class Naps(ConcurrentWork):
    """An object that sleeps between calls loses no acknowledged event and gives no wrong answer."""

    loops = tuple(job for job in LOOPS if job not in ("seal", "hold_views"))  # these are not methods of the object

    def __init__(self, namespace, clock, request):
        super().__init__(Called(namespace, clock), None, request)
        self.namespace = namespace

    async def stats(self):
        return await self.shop.stats()

    async def all_naps(self):
        first = await self.stats()
        tell("ready", next_seq=first.next_seq, watermark=first.watermark)
        request = self.request
        for nap in range(NAPS):
            self.request = request | {"seed": f"{request['seed']}/{nap}", "session": f"{request['session']}.{nap}"}
            await asyncio.gather(self.everything(), self.nod())

    async def nod(self):
        """Let the object sleep while calls arrive, and wake it for due jobs."""
        self.shop.clock.advance(_IDLE_S)
        await self.namespace.sleep_idle()
        await self.namespace.wake_due()
        assert self.namespace.check() == []


async def naps(request, clock):
    async with Namespace(request["root"], Shop, clock=clock, **SETTINGS) as namespace:
        await Naps(namespace, clock, request).all_naps()
