"""DeadLetterRoutes: list, show, mend and replay, or purge rejected events."""

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
from lakebed.api.openapi.document import Parameter, operation
from lakebed.api.responses import json_response, whole_number
from lakebed.clock import parse_iso
from lakebed.ingest.dead_letters import MAX_LISTED, Replayed
from lakebed.tiers.storage.dead_letters import DeadLetter

__all__ = ["DeadLetterRoutes"]

_PREVIEW = 200
_MAX_ID = (1 << 63) - 1
_ID = Annotated[int, msgspec.Meta(ge=1, le=_MAX_ID)]


class LetterLine(msgspec.Struct, rename="camel"):
    """A dead letter in a list. `preview` has the first 200 characters of the event as sent."""

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
    """A dead letter. `raw` is the event as sent: text or, if it is not UTF-8, base64; `cut` if more was sent."""

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
    """The dead letters to replay, by default all; `patch` is merged into each event, `text` replaces one event."""

    ids: list[_ID] | None = None
    patch: dict[str, Any] | None = None
    text: str | None = None


class ReplayLine(msgspec.Struct, rename="camel"):
    """The outcome of one dead letter."""

    id: int
    status: Literal["stored", "duplicate", "rejected", "missing"]
    message_id: str | None
    seq: int | None
    reason: str | None


class ReplayAnswer(msgspec.Struct):
    """The outcome of each dead letter. Stored and duplicate dead letters are deleted, rejected ones stay."""

    stored: int
    duplicate: int
    rejected: int
    missing: int
    letters: list[ReplayLine]


class PurgeAnswer(msgspec.Struct):
    """The number of deleted dead letters."""

    purged: int


class DeadLetterRoutes:
    """`GET /deadletters`, `GET` and `POST` below it, `DELETE /deadletters`.

    Reading dead letters needs the scope "read", as they hold the same data as events. Changing them needs "admin".
    """

    def __init__(self, auth: Auth, body: Body) -> None:
        self._auth = auth
        self._body = body

    def routes(self) -> list[BaseRoute]:
        """The routes of this group."""
        return [
            Route("/deadletters", self.newest, methods=["GET"]),
            Route("/deadletters", self.purge, methods=["DELETE"]),
            Route("/deadletters/replay", self.replay, methods=["POST"]),
            Route("/deadletters/{id}", self.dead_letter, methods=["GET"]),
        ]

    @operation(
        scope="read",
        parameters=[
            Parameter("limit", Annotated[int, msgspec.Meta(ge=1, le=MAX_LISTED)], "maximum number; default 100"),
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
        before = _number("before", query["before"], _MAX_ID) if "before" in query else None
        dead_letters: list[DeadLetter] = await target.dead_letters(
            limit=limit, before=before, reason=query.get("reason")
        )
        lines = [LetterLine(**_line(dead_letter)) for dead_letter in dead_letters]
        return json_response(LetterList(lines, dead_letters[-1].id if len(dead_letters) == limit else None))

    @operation(scope="read", answer=LetterAnswer, refusals=[400, 404])
    async def dead_letter(self, request: Request) -> Response:
        """One dead letter, with the event as sent."""
        target = self._auth.existing(self._auth.admit(request, "read"))
        dead_letter: DeadLetter = await target.dead_letter(_number("id", request.path_params["id"], _MAX_ID))
        try:
            content: dict[str, Any] = {"raw": dead_letter.raw.decode(), "encoding": "utf-8"}
        except UnicodeDecodeError:
            content = {"raw": base64.b64encode(dead_letter.raw).decode(), "encoding": "base64"}
        content |= {
            "cut": dead_letter.is_cut,
            "shared": dead_letter.shared.decode(errors="replace"),
            "replay_id": dead_letter.replay_id,
        }
        return json_response(LetterAnswer(**_line(dead_letter), **content))

    @operation(scope="admin", body=ReplayBody, body_required=False, answer=ReplayAnswer, refusals=[404, 507, 503])
    async def replay(self, request: Request) -> Response:
        """Store dead letters as they are, or mended. Each is stored exactly once, however often the request is sent."""
        target = self._auth.existing(self._auth.admit(request, "admin"))
        options = decoded((await self._body.read(request)).strip() or b"{}", ReplayBody, "choice of dead letters")
        edit = options.patch if options.text is None else options.text
        if options.text is not None and (
            options.patch is not None or options.ids is None or len(set(options.ids)) != 1
        ):
            raise Refusal(400, "INVALID_PARAMETER", "`text` replaces one event: give one id in `ids`, and no `patch`")
        replayed: list[Replayed] = await target.replay(options.ids, edit)
        counts = Counter(outcome.status for outcome in replayed)
        lines = [
            ReplayLine(outcome.id, outcome.status, outcome.message_id, outcome.seq, outcome.reason)
            for outcome in replayed
        ]
        answer = ReplayAnswer(counts["stored"], counts["duplicate"], counts["rejected"], counts["missing"], lines)
        return json_response(answer)

    @operation(
        scope="admin",
        parameters=[
            Parameter("id", _ID, "id of a dead letter; may be given several times"),
            Parameter("before", str, "all that were rejected before this moment, ISO 8601"),
        ],
        answer=PurgeAnswer,
        refusals=[400, 404],
    )
    async def purge(self, request: Request) -> Response:
        """Delete dead letters."""
        target = self._auth.existing(self._auth.admit(request, "admin"))
        ids = [_number("id", text, _MAX_ID) for text in request.query_params.getlist("id")]
        before = request.query_params.get("before")
        if bool(ids) == (before is not None):
            raise Refusal(400, "INVALID_PARAMETER", "Name the dead letters: id=, once or more, or before=")
        count: int = await target.purge(ids or None, before=None if before is None else _moment(before))
        return json_response(PurgeAnswer(count))


def _line(dead_letter: DeadLetter) -> dict[str, Any]:
    names = ("id", "received_at", "reason", "source", "key", "message_id", "tries", "tried_at", "size")
    preview = dead_letter.raw[: 4 * _PREVIEW].decode("utf-8", "replace")[:_PREVIEW]
    return {name: getattr(dead_letter, name) for name in names} | {"preview": preview}


def _number(name: str, text: str, maximum: int) -> int:
    return whole_number(name, text, maximum, parameter=name, value=text[:40])


def _moment(text: str) -> datetime:
    try:
        return parse_iso(text)
    except ValueError:
        message = "`before` must be a time such as 2026-01-15T12:00:00Z"
        raise Refusal(400, "INVALID_PARAMETER", message, before=text[:40]) from None
