"""Report cases: one stream of events in every state of an object, and the events that a report must see in each.

async for stage in stages(tmp_path, events, merges=[("ann", "bob")]):
    rows = [tuple(row) for row in await stage.ask("funnel", steps=["a", "b"])]
    assert rows == plain_funnel(stage.events, …), stage.name
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from lakebed import Analytics, ManualClock, Result
from lakebed.clock import from_us, to_us

START = datetime(2026, 1, 5, tzinfo=UTC)  # a Monday; second 0 of `happened`
START_US = to_us(START)
_NOW = datetime(2026, 6, 1, tzinfo=UTC)  # when the first event is received: all events are in the past
NAMES = (
    "log",
    "archived",
    "both tiers",
    "compacted",
    "merged",
    "unmerged",
    "as of the first half",
    "as of the merges",
)
# Tests over random events use two of them. `test_oracles.py` runs every report in all of them.
PAIRS = (
    ("log", "as of the first half"),
    ("archived", "merged"),
    ("both tiers", "as of the merges"),
    ("compacted", "unmerged"),
)


class Seen(NamedTuple):
    """An event as a report must see it. `person` is None for an event without any id."""

    seq: int
    us: int
    event: str | None
    person: str | None
    properties: Mapping[str, Any]
    session: str | None
    type: str
    user: str | None
    anonymous: str | None


class Stage(NamedTuple):
    """An object in one state.

    Attributes:
        as_of: the moment for the report; None means now.
        events: the events known then, in order of arrival.
        untrusted: whether `ask` runs the report again in the sandbox. It takes a third of a second.
    """

    name: str
    shop: Analytics
    as_of: datetime | None
    events: list[Seen]
    untrusted: bool

    async def ask(self, report: str, **arguments: Any) -> Result:
        """The result of a report as of this stage. The sandbox must give the same."""
        if self.as_of is not None:
            arguments["as_of"] = self.as_of
        result = await getattr(self.shop, report)(**arguments)
        if self.untrusted:
            other = await self.shop.report_untrusted(report, arguments)
            assert other.arrow().equals(result.arrow()), f"{self.name}: {other} {result}"
        return result


def happened(
    event: str,
    who: str | None,
    seconds: float,
    properties: Mapping[str, Any] | None = None,
    *,
    session: str | None = None,
) -> dict[str, Any]:
    """An event, `seconds` after START. `who` is a user id, "?…" an anonymous id, or None for no id."""
    return {
        "type": "track",
        "event": event,
        "userId": who if who and not who.startswith("?") else None,
        "anonymousId": who if who and who.startswith("?") else None,
        "timestamp": from_us(START_US + round(seconds * 1e6)).isoformat(),
        "properties": dict(properties or {}),
        "sessionId": session,
    }


def identified(user: str, anonymous: str, seconds: float) -> dict[str, Any]:
    """An identify event: "?…" is an id of `user`; the earliest for that id counts. It has no name."""
    return happened("", user, seconds) | {"type": "identify", "event": None, "anonymousId": anonymous}


async def stages(
    root: Path,
    events: Sequence[dict[str, Any]],
    *,
    merges: Sequence[tuple[str, str]] = (),
    only: Collection[str] = NAMES,
    untrusted: Collection[str] = ("both tiers",),
    each: int = 10,
    **options: Any,
) -> AsyncIterator[Stage]:
    """The object with `events` in the states of `NAMES`, one after the other. It passes `check()` at the end.

    The first half is tracked and archived, then the second; then operators merge and unmerge. It stops at the last
    state in `only`.

    Args:
        root: an empty directory.
        events: from `happened` and `identified`, as they arrive.
        merges: pairs for `merge`, in order; the last is undone afterwards. No person may be merged into two.
        only: the names of the stages to yield.
        untrusted: the stages in which `Stage.ask` uses the sandbox as well.
        each: the size of a batch in the first half.
        options: options of Analytics.
    """
    items = [event | {"messageId": f"m{number:06}"} for number, event in enumerate(events)]
    clock = ManualClock(_NOW)
    settings = {"headroom_bytes": 0, "segment_events": 16} | options
    async with Analytics("shop", root=root, clock=clock, **settings) as shop:
        last = max(map(NAMES.index, only))
        async with aclosing(_states(shop, clock, items, merges, each)) as states:
            async for name, count, merged, as_of in states:
                if name in only:
                    yield Stage(name, shop, as_of, seen(items[:count], merged), name in untrusted)
                if name == NAMES[last]:
                    break
        assert await shop.check() == []


async def _states(
    shop: Analytics,
    clock: ManualClock,
    items: Sequence[dict[str, Any]],
    merges: Sequence[tuple[str, str]],
    each: int,
) -> AsyncGenerator[tuple[str, int, Sequence[tuple[str, str]], datetime | None], None]:
    """For each state: its name, the number of its items, its merges, and its `as_of`."""
    half = len(items) // 2
    for first in range(0, half, each):
        await shop.batch(items[first : min(first + each, half)])
    yield "log", half, (), None
    await shop.archive()
    yield "archived", half, (), None
    after_half = _pause(clock)
    await shop.batch(items[half:])
    yield "both tiers", len(items), (), None
    await shop.archive()
    await shop.compact()
    yield "compacted", len(items), (), None
    done = [await shop.merge(*pair) for pair in merges]
    yield "merged", len(items), merges, None
    after_merges = _pause(clock)
    if done:
        await shop.unmerge(done[-1].id)
    yield "unmerged", len(items), merges[:-1], None
    yield "as of the first half", half, (), after_half
    yield "as of the merges", len(items), merges, after_merges


def _pause(clock: ManualClock) -> datetime:
    """An instant between the events received so far and the next ones."""
    clock.advance(2)
    return from_us(clock.now_us() - 1_000_000)


def seen(items: Sequence[Mapping[str, Any]], merges: Sequence[tuple[str, str]] = ()) -> list[Seen]:
    """The events as a report must see them after these merges, by rules 1 and 3 of docs/identity.md."""
    owner: dict[str, str] = {}
    claims = [item for item in items if item["type"] == "identify"]
    for claim in sorted(claims, key=lambda item: (item["timestamp"], item["messageId"])):
        owner.setdefault(claim["anonymousId"], claim["userId"])
    for pair in merges:
        into, other = (owner.get(identity, identity) for identity in pair)
        owner |= {identity: into for identity, current in owner.items() if current == other} | {other: into}
    seen = []
    for seq, item in enumerate(items):
        own = item["userId"] or item["anonymousId"]
        us = to_us(datetime.fromisoformat(item["timestamp"]))
        person = owner.get(own, own)
        fields = (item["event"], person, item["properties"], item["sessionId"], item["type"])
        seen.append(Seen(seq, us, *fields, item["userId"], item["anonymousId"]))
    return seen
