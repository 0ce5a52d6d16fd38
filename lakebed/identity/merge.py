"""Merge: one edge of the identity graph, as `merges()` returns it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec

from lakebed.clock import from_us
from lakebed.identity.mapping import Mapping
from lakebed.identity.resolve import EFFECTS, Edges, resolve
from lakebed.identity.rules import Rules
from lakebed.tiers.storage.identity_graph import IdentityGraph

__all__ = ["Merge", "merges"]


class Merge(msgspec.Struct, frozen=True, kw_only=True):
    """One edge of the identity graph: a statement that two identities are one person, and its effect.

    Attributes:
        id: argument for `unmerge`.
        kind: "identify", "alias", "merge", "unmerge", "email", "phone" or "device".
        into: the identity that keeps its id; for "email", "phone" and "device" the identity whose event had the value.
        other: the other identity, or the value.
        effect: "merged", "refused" (by a rule) or "undone" (by an operator).
        person_id: the person of `into` now.
        timestamp: time of the event, ISO 8601.
        seq: position of the event.
        confidence: number from 0 to 1; below 1 only for devices.
        why: the operator's reason.
    """

    id: str
    kind: str
    into: str
    other: str
    effect: Literal["merged", "refused", "undone"]
    person_id: str
    timestamp: str
    seq: int
    confidence: float
    why: str | None


async def merges(
    graph: IdentityGraph,
    mapping: Mapping,
    identity: str | None,
    limit: int,
    *,
    rules: Rules,
    in_thread: Callable[..., Awaitable[Any]],
) -> list[Merge]:
    """The merges of one person, or of all people, newest first.

    Args:
        mapping: the present mapping.
        identity: an id of the person; None for all people.
        in_thread: function that runs blocking work outside the event loop.
    """
    if identity is None:
        newest = await graph.newest_edges(limit)
        seeds = [row[2] for row in newest]
    else:
        number = await graph.number(identity)
        seeds = [] if number is None else [number]
    nodes = await graph.reached(seeds)
    rows, users = await graph.edges_of(nodes), await graph.users_among(nodes)
    resolution = await in_thread(lambda: resolve(Edges.of(rows), users, rules))
    effects = {(row[0], row[1]): effect for row, effect in zip(rows, resolution.effects.tolist(), strict=True)}
    texts = await graph.texts(nodes)
    people = dict(zip(resolution.numbers.tolist(), resolution.people.tolist(), strict=True))
    if identity is not None:
        person = mapping.person_of(identity)
        rows = [row for row in rows if person in {mapping.person_of(texts[end]) for end in row[2:4] if end > 0}]
    selected = sorted(rows if identity is not None else newest, reverse=True)[:limit]
    return [
        Merge(
            id=f"{kind}:{message_id}",
            kind=kind,
            into=texts[a],
            other=texts[b],
            effect=EFFECTS[effects[seq, kind]],  # type: ignore[arg-type]  # a literal of EFFECTS
            person_id=texts[people.get(a, a)],
            timestamp=from_us(time_us).isoformat(),
            seq=seq,
            confidence=confidence,
            why=why,
        )
        for seq, kind, a, b, time_us, message_id, confidence, why in selected
    ]
