"""A slow, plain model that computes the people of a list of calls. The engine is compared with it."""

from __future__ import annotations

from typing import NamedTuple


class Call(NamedTuple):
    """A call of a client. `kind` is track, identify or alias; for alias, `other` is the previous id."""

    at: int
    message_id: str
    kind: str
    user: str | None
    other: str | None
    email: str | None = None
    device: str | None = None


def people(  # noqa: C901 - the rules one after the other, to be read beside the page that states them
    calls, *, emails=False, devices=False, user_limit=1, anonymous_limit=100
):
    """The person of every id in the calls."""
    calls = sorted(calls)
    known = {call.user for call in calls if call.user is not None}
    groups: list[dict] = []

    def group_of(identity):
        group = next((group for group in groups if identity in group["ids"]), None)
        if group is None:
            value = isinstance(identity, tuple)
            group = {"ids": {identity}, "name": None if value else identity, "users": int(identity in known)}
            groups.append(group)
        return group

    def join(into, other):
        into, other = group_of(into), group_of(other)
        if into is other:
            return
        if into["name"] is None or (other["users"] and not into["users"] and other["name"] is not None):
            into["name"] = other["name"]
        into["ids"] |= other["ids"]
        into["users"] += other["users"]
        groups.remove(other)

    for call in calls:
        if call.kind == "alias" and call.other in known and call.other != call.user:
            join(call.user, call.other)
    owned: dict[str, int] = {}
    decided = set()
    claims = [
        call
        for call in calls
        if (call.kind == "identify" or (call.kind == "alias" and call.other not in known))
        and None not in (call.user, call.other)
        and call.user != call.other
    ]
    for call in claims:
        claimed = group_of(call.other)
        if claimed["users"] or call.other in decided:
            continue
        decided.add(call.other)  # the earliest call decides, also if its user has too many ids
        owner = group_of(call.user)
        owned.setdefault(owner["name"], 0)
        if owned[owner["name"]] < anonymous_limit:
            owned[owner["name"]] += 1
            join(call.user, call.other)
    for field, wanted in (("email", emails), ("device", devices)):
        if not wanted:
            continue
        shown = [call for call in calls if getattr(call, field) and (call.user or call.other)]
        before = {id(call): id(group_of(identity_of(call))) for call in shown}
        users = {id(group): group["users"] for group in groups}
        for call in shown:
            value = (field, getattr(call, field))
            if field == "device":
                device_groups = {
                    before[id(peer)] for peer in shown if peer.device == call.device and users[before[id(peer)]]
                }
                if len(device_groups) > 1:
                    continue
            own_group, value_group = group_of(identity_of(call)), group_of(value)
            limit = user_limit if field == "email" else 1
            if (
                own_group is not value_group
                and own_group["users"]
                and value_group["users"]
                and own_group["users"] + value_group["users"] > limit
            ):
                continue
            join(value, identity_of(call))
    return {identity: group["name"] for group in groups for identity in group["ids"] if not isinstance(identity, tuple)}


def identity_of(call):
    """The raw identity of an event."""
    if call.kind == "alias":
        return call.user
    return call.user if call.user is not None else call.other
