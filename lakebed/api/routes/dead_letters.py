"""Letters: what was refused, to be listed, looked at, mended and replayed, or purged."""

from __future__ import annotations

import base64
from collections import Counter
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from lakebed.api.auth import Auth
from lakebed.api.body import Body, decoded
from lakebed.api.errors import Refusal
from lakebed.api.openapi.operation import Parameter, operation
from lakebed.api.responses import json_response
from lakebed.ingest.dead_letters import MAX_LISTED
from lakebed.ingest.replay import Replayed
from lakebed.moments import parse_iso
from lakebed.tiers.storage.dead_letters import DeadLetter

__all__ = ["DeadLetterRoutes"]

_PREVIEW = 200
_MOST_ID = (1 << 63) - 1
_ID = Annotated[int, msgspec.Meta(ge=1, le=_MOST_ID)]


class LetterLine(msgspec.Struct, rename="camel"):
    """A dead letter in a list. `preview` has the first 200 characters of what was sent."""

    id: int
    received_at: datetime
    reason: str
    source: str | None
    key: str | None
    message_id: str | None
    tries: int
    tried_at: datetime | None
    size: int
    preview: str


class LetterAnswer(LetterLine):
    """A dead letter. `raw` is what was sent, as text or, where that is no UTF-8, in base64; `cut` if there was more."""

    raw: str
    encoding: Literal["utf-8", "base64"]
    cut: bool
    shared: str
    replay_id: str


class LetterList(msgspec.Struct, rename="camel"):
    """A page of dead letters, newest first. `next` is the `before` of the next page, if there may be one."""

    letters: list[LetterLine]
    next: int | None


class ReplayBody(msgspec.Struct, forbid_unknown_fields=True):
    """Which letters, by default all; and what is changed: `patch` is merged into each event, `text` replaces one."""

    ids: list[_ID] | None = None
    patch: dict[str, Any] | None = None
    text: str | None = None


class ReplayLine(msgspec.Struct, rename="camel"):
    """What became of one letter."""

    id: int
    status: Literal["stored", "duplicate", "rejected", "missing"]
    message_id: str | None
    seq: int | None
    reason: str | None


class ReplayAnswer(msgspec.Struct):
    """What became of each letter. Those that are stored or duplicate are gone, the rejected ones stay."""

    stored: int
    duplicate: int
    rejected: int
    missing: int
    letters: list[ReplayLine]


class PurgeAnswer(msgspec.Struct):
    """How many letters were deleted."""

    purged: int


class DeadLetterRoutes:
    """`GET /deadletters`, `GET` and `POST` below it, `DELETE /deadletters`.

    Reading them needs no more than reading events does: they hold what events hold. Changing them needs "admin".
    """

    def __init__(self, auth: Auth, body: Body) -> None:
        self._auth = auth
        self._body = body

    def routes(self) -> list[BaseRoute]:
        """What this room answers."""
        return [
            Route("/deadletters", self.newest, methods=["GET"]),
            Route("/deadletters", self.purge, methods=["DELETE"]),
            Route("/deadletters/replay", self.replay, methods=["POST"]),
            Route("/deadletters/{id}", self.one, methods=["GET"]),
        ]

    @operation(
        scope="read",
        parameters=[
            Parameter(
                "limit", Annotated[int, msgspec.Meta(ge=1, le=MAX_LISTED)], "at the most so many; 100 unless said"
            ),
            Parameter("before", _ID, "only those with a smaller id"),
            Parameter("reason", str, "only those whose reason has this text in it"),
        ],
        answer=LetterList,
        refusals=[400, 404],
    )
    async def newest(self, request: Request) -> Response:
        """Dead letters, newest first."""
        target = self._auth.existing(self._auth.admit(request, "read"))
        query = request.query_params
        limit = _number("limit", query.get("limit", "100"), MAX_LISTED)
        before = _number("before", query["before"], _MOST_ID) if "before" in query else None
        found: list[DeadLetter] = await target.dead_letters(limit=limit, before=before, reason=query.get("reason"))
        lines = [LetterLine(**_line(letter)) for letter in found]
        return json_response(LetterList(lines, found[-1].id if len(found) == limit else None))

    @operation(scope="read", answer=LetterAnswer, refusals=[400, 404])
    async def one(self, request: Request) -> Response:
        """One dead letter, with all that was sent."""
        target = self._auth.existing(self._auth.admit(request, "read"))
        letter: DeadLetter = await target.dead_letter(_number("id", request.path_params["id"], _MOST_ID))
        try:
            told: dict[str, Any] = {"raw": letter.raw.decode(), "encoding": "utf-8"}
        except UnicodeDecodeError:
            told = {"raw": base64.b64encode(letter.raw).decode(), "encoding": "base64"}
        told |= {"cut": letter.is_cut, "shared": letter.shared.decode(errors="replace"), "replay_id": letter.replay_id}
        return json_response(LetterAnswer(**_line(letter), **told))

    @operation(scope="admin", body=ReplayBody, body_required=False, answer=ReplayAnswer, refusals=[404, 507, 503])
    async def replay(self, request: Request) -> Response:
        """Store dead letters as they are, or mended. Each is stored exactly once, however often this is sent."""
        target = self._auth.existing(self._auth.admit(request, "admin"))
        asked = decoded((await self._body.read(request)).strip() or b"{}", ReplayBody, "choice of letters")
        edit = asked.patch if asked.text is None else asked.text
        if asked.text is not None and (asked.patch is not None or asked.ids is None or len(set(asked.ids)) != 1):
            raise Refusal(400, "INVALID_PARAMETER", "text mends one letter: name it in ids, and leave patch out")
        found: list[Replayed] = await target.replay(asked.ids, edit)
        counts = Counter(one.status for one in found)
        lines = [ReplayLine(one.id, one.status, one.message_id, one.seq, one.reason) for one in found]
        told = ReplayAnswer(counts["stored"], counts["duplicate"], counts["rejected"], counts["missing"], lines)
        return json_response(told)

    @operation(
        scope="admin",
        parameters=[
            Parameter("id", _ID, "one letter; may be said several times"),
            Parameter("before", str, "all that were refused before this moment, ISO 8601"),
        ],
        answer=PurgeAnswer,
        refusals=[400, 404],
    )
    async def purge(self, request: Request) -> Response:
        """Delete dead letters for ever."""
        target = self._auth.existing(self._auth.admit(request, "admin"))
        ids = [_number("id", text, _MOST_ID) for text in request.query_params.getlist("id")]
        before = request.query_params.get("before")
        if bool(ids) == (before is not None):
            raise Refusal(400, "INVALID_PARAMETER", "Say which letters: id=, once or more, or before=")
        count: int = await target.purge(ids or None, before=None if before is None else _moment(before))
        return json_response(PurgeAnswer(count))


def _line(letter: DeadLetter) -> dict[str, Any]:
    names = ("id", "received_at", "reason", "source", "key", "message_id", "tries", "tried_at", "size")
    preview = letter.raw[: 4 * _PREVIEW].decode("utf-8", "replace")[:_PREVIEW]
    return {name: getattr(letter, name) for name in names} | {"preview": preview}


def _number(name: str, text: str, most: int) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and 1 <= int(text) <= most:
        return int(text)
    raise Refusal(
        400, "INVALID_PARAMETER", f"{name} must be a whole number from 1 to {most}", parameter=name, value=text[:40]
    )


def _moment(text: str) -> datetime:
    try:
        return parse_iso(text)
    except ValueError:
        message = "before must be a time, as 2026-01-15T12:00:00Z"
        raise Refusal(400, "INVALID_PARAMETER", message, before=text[:40]) from None
