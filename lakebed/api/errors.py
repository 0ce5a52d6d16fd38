"""Every status code, and the JSON body of every error: `{"error": {"code", "message", "details"}}`.

Under `/v1/`, `code` and `message` also stand beside `error`, as in Segment's API: a client that does not find them
there (analytics-python 1.4, rudder-sdk-python) treats a final answer as a broken connection, and sends the batch again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from lakebed import errors

__all__ = [
    "ARGUMENT_ERRORS",
    "ErrorSummary",
    "Refusal",
    "definition_errors",
    "error_handlers",
    "error_response",
    "error_summary",
    "hints_included",
    "refusal_with_hint",
]

_log = logging.getLogger("lakebed.api")
_INTERNAL = 500


class _Answer(msgspec.Struct, frozen=True):
    """The response to an error. `message` replaces the error's own message, which may name paths and processes."""

    status: int
    code: str
    message: str = ""
    retry_after: int | None = None


# The entry of the nearest base class of an error counts. An error that the client can fix carries its own message; for
# an error that only the operator can fix, the client learns just when to try again.
_ANSWERS: dict[type[Exception], _Answer] = {
    errors.InvalidEvent: _Answer(400, "INVALID_EVENT"),
    errors.InvalidBilling: _Answer(400, "INVALID_BILLING"),
    errors.InvalidDefinition: _Answer(400, "INVALID_DEFINITION"),
    errors.InvalidMerge: _Answer(409, "INVALID_MERGE"),
    errors.InvalidName: _Answer(400, "INVALID_NAME"),
    errors.InvalidAsOf: _Answer(400, "INVALID_AS_OF"),
    errors.NotReachable: _Answer(404, "NOT_FOUND"),
    errors.UnknownDeadLetter: _Answer(404, "NOT_FOUND"),
    errors.AccessDenied: _Answer(403, "FORBIDDEN"),
    errors.Unreachable: _Answer(400, "UNREACHABLE"),  # the client that an RPC would call is gone or takes no calls
    errors.WrongObject: _Answer(409, "WRONG_OBJECT", "The object is of another class"),
    errors.QueryRefused: _Answer(400, "QUERY_REFUSED"),
    errors.QueryBusy: _Answer(429, "QUERY_BUSY", retry_after=1),
    errors.QueryCrashed: _Answer(422, "QUERY_CRASHED"),
    errors.QueryTooLarge: _Answer(422, "QUERY_TOO_LARGE"),
    errors.QueryTimeout: _Answer(504, "QUERY_TIMEOUT", "The query took too long and was stopped"),
    errors.SnapshotExpired: _Answer(410, "SNAPSHOT_EXPIRED"),
    errors.QueryError: _Answer(400, "QUERY_ERROR"),
    errors.Backpressure: _Answer(429, "BACKPRESSURE", "Events arrive faster than they can be stored", 1),
    errors.DiskFull: _Answer(507, "DISK_FULL", "There is no room for more events", 60),
    errors.LogUnavailable: _Answer(
        503, "LOG_UNAVAILABLE", "It was not acknowledged; send it again with the same messageId", 5
    ),
    errors.ObjectLocked: _Answer(503, "OBJECT_LOCKED", "The object is open in another process", 5),
    errors.ObjectUnavailable: _Answer(503, "OBJECT_UNAVAILABLE", "The object cannot be opened now", 5),
    errors.ObjectClosed: _Answer(503, "OBJECT_CLOSED", "The object is not open", 5),
    errors.StorageUnavailable: _Answer(503, "STORAGE_UNAVAILABLE", "The rollups cannot be read or written now", 5),
    errors.KeysUnavailable: _Answer(503, "KEYS_UNAVAILABLE", "Keys cannot be checked now, so no request is let in", 5),
    errors.ArchiveUnavailable: _Answer(503, "ARCHIVE_UNAVAILABLE", "The archive does not answer", 30),
    errors.ArchiveConflict: _Answer(500, "ARCHIVE_CONFLICT", "The archive is not as this object left it"),
    errors.LogCorrupted: _Answer(500, "LOG_CORRUPTED", "The object's log does not read back"),
    errors.FormatTooNew: _Answer(500, "FORMAT_TOO_NEW", "The object was written by a newer Lakebed"),
    errors.LakebedError: _Answer(_INTERNAL, "INTERNAL", "The request could not be carried out"),
    Exception: _Answer(_INTERNAL, "INTERNAL", "The request could not be carried out"),
}
_HTTP_CODES = {400: "BAD_REQUEST", 404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}


class Refusal(Exception):
    """A request that the server itself refuses.

    Args:
        status: the HTTP status.
        code: the name of the error, for programs.
        message: the explanation, for people.
        details: facts about the error, as JSON values.
        headers: additional headers of the response.
    """

    def __init__(
        self, status: int, code: str, message: str, *, headers: Mapping[str, str] | None = None, **details: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.headers = headers


def error_response(
    status: int,
    code: str,
    message: str,
    details: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An error as a response, in the one form that all errors have."""
    body = {"error": {"code": code, "message": message, "details": dict(details or {})}}
    return Response(msgspec.json.encode(body, enc_hook=str), status, headers, "application/json")


def _response(
    request: Request, status: int, code: str, message: str, *details_and_headers: Mapping[str, Any] | None
) -> Response:
    """The `error_response`, with `code` and `message` also beside `error` if the path is Segment's."""
    response = error_response(status, code, message, *details_and_headers)
    if "/v1/" in request.url.path:
        segment_fields = msgspec.json.encode({"code": code, "message": message})
        response.body = segment_fields[:-1] + b"," + bytes(response.body)[1:]
        response.headers["content-length"] = str(len(response.body))
    return response


def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # noqa: S101 - Starlette calls it for nothing else
    return _response(request, error.status, error.code, error.message, error.details, error.headers)


def _on_http(request: Request, error: Exception) -> Response:
    """Respond to an error of Starlette itself: no such route, wrong method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - the same
    code = _HTTP_CODES.get(error.status_code, f"HTTP_{error.status_code}")
    return _response(request, error.status_code, code, error.detail, None, error.headers)


def _on_disconnect(_request: Request, _error: Exception) -> Response:
    return error_response(400, "DISCONNECTED", "The body did not arrive")  # no client reads this, and nothing failed


class ErrorSummary(msgspec.Struct, frozen=True):
    """The part of an error that a client may see. The facts are empty unless the client can fix the error."""

    status: int
    code: str
    message: str
    facts: dict[str, Any]
    retry_after: int | None


def error_summary(error: BaseException) -> ErrorSummary:
    """The part of `error` that a client may see, over HTTP or RPC. Callers log errors that the client cannot fix."""
    answer = next(_ANSWERS[base] for base in type(error).__mro__ if base in _ANSWERS)
    if answer.message:
        return ErrorSummary(answer.status, answer.code, answer.message, {}, answer.retry_after)
    # LakebedError: the message with its facts; the hint is for Python.
    facts = {name: fact for name, fact in getattr(error, "facts", {}).items() if isinstance(fact, (str, int, float))}
    return ErrorSummary(answer.status, answer.code, getattr(error, "message", str(error)), facts, answer.retry_after)


ARGUMENT_ERRORS = (errors.InvalidAsOf, errors.InvalidBilling, errors.InvalidDefinition, errors.QueryRefused)
"""Errors caused by an argument. Their hint says what to write instead."""


def refusal_with_hint(error: Exception) -> Refusal:
    """The refusal for one of `ARGUMENT_ERRORS`, with the hint in its message, as in Python."""
    summary = error_summary(error)
    return Refusal(summary.status, summary.code, str(error))


@contextmanager
def hints_included() -> Iterator[None]:
    """Turn each of `ARGUMENT_ERRORS` into a `refusal_with_hint`."""
    try:
        yield
    except ARGUMENT_ERRORS as error:
        raise refusal_with_hint(error) from error


@contextmanager
def definition_errors() -> Iterator[None]:
    """Turn InvalidDefinition into a Refusal: 409 for a cohort that others refer to, else 404, no such definition."""
    try:
        yield
    except errors.InvalidDefinition as error:
        if "used_by" in error.facts:
            raise Refusal(409, "COHORT_IN_USE", str(error), used_by=error.facts["used_by"]) from error
        raise Refusal(404, "NOT_FOUND", str(error)) from error


def _on_error(request: Request, error: Exception) -> Response:
    summary = error_summary(error)
    headers = None if summary.retry_after is None else {"Retry-After": str(summary.retry_after)}
    if summary.status >= _INTERNAL:
        # The route, not the path: a path may contain a key.
        route = getattr(request.scope.get("route"), "path", "a path without a route")
        _log.error("%s %s: %s", request.method, route, error, exc_info=error)
    return _response(request, summary.status, summary.code, summary.message, summary.facts, headers)


error_handlers: dict[Any, Any] = {
    Refusal: _on_refusal,
    HTTPException: _on_http,
    ClientDisconnect: _on_disconnect,
    errors.LakebedError: _on_error,
    Exception: _on_error,  # answered by Starlette's outermost layer, which raises the error again for the server's log
}
