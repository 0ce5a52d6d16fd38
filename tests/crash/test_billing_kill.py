"""Usage and invoices survive a process that is killed between them."""

from __future__ import annotations

import asyncio
import signal
import sys

import msgspec

from lakebed import Analytics

CHILD = """
import asyncio, os, signal, sys
import msgspec
from lakebed import Analytics

async def main(root, step):
    shop = await Analytics("shop", root=root, headroom_bytes=0).open()
    if step == "use":
        prices = {"a": {"model": "per_unit", "amount": "0.1"}}
        await shop.save_price_book("default", {"currency": "EUR", "prices": prices})
        for quantity in ("0.1", "0.2", "100"):
            await shop.track_usage("acme", "a", quantity, "u", timestamp="2020-01-05", message_id=quantity)
    else:
        issued = await shop.invoice("acme", "2020-01", issue=True)
        sys.stdout.buffer.write(msgspec.json.encode(issued))
        sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
"""


async def killed(root, step):
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(root), step, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await child.communicate()
    assert child.returncode == -signal.SIGKILL
    return output


async def test_killed_between_usage_and_invoice(tmp_path):
    """Tracked usage and the issued invoice are there; a retry of both by the next process changes nothing."""
    await killed(tmp_path, "use")
    issued = await killed(tmp_path, "bill")
    assert b'"total":"10.03"' in issued
    async with Analytics("shop", root=tmp_path, headroom_bytes=0) as shop:
        await shop.track_usage("acme", "a", "100", "u", timestamp="2020-01-05", message_id="100")
        assert msgspec.json.encode(await shop.invoice("acme", "2020-01", issue=True)) == issued
        february = await shop.invoice("acme", "2020-02", issue=True)
        assert (february.lines, february.adjustments) == ((), ())
        assert len(await shop.invoices()) == 2
        assert await shop.check() == []
