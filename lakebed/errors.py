"""Every exception that Lakebed raises, grouped by who must act: the caller or the operator.

Each error carries its facts as attributes (`path`, `limit`, `value` …) and ends its message with a next step.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = [
    "AccessDenied",
    "ArchiveConflict",
    "ArchiveUnavailable",
    "Backpressure",
    "DiskFull",
    "FontMissing",
    "FormatTooNew",
    "InvalidAsOf",
    "InvalidBilling",
    "InvalidDefinition",
    "InvalidEvent",
    "InvalidImport",
    "InvalidMerge",
    "InvalidName",
    "InvalidRollup",
    "InvalidSchedule",
    "InvalidSettings",
    "KeysUnavailable",
    "LakebedError",
    "LogBehind",
    "LogCorrupted",
    "LogUnavailable",
    "NotReachable",
    "ObjectClosed",
    "ObjectLocked",
    "ObjectUnavailable",
    "PromotionConflict",
    "QueryBusy",
    "QueryCrashed",
    "QueryError",
    "QueryRefused",
    "QueryTimeout",
    "QueryTooLarge",
    "SnapshotExpired",
    "StorageUnavailable",
    "UnknownDeadLetter",
    "UnknownKey",
    "Unreachable",
    "WrongObject",
]


class LakebedError(Exception):
    """The base class. `facts` holds the values in the message, for logs and for JSON."""

    def __init__(self, message: str, *, hint: str = "", **facts: Any) -> None:
        self.message = message
        self.hint = hint
        self.facts = facts
        super().__init__(f"{message}. {hint}" if hint else message)

    def __getattr__(self, name: str) -> Any:
        facts = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        raise AttributeError(name)


# The caller must act: the call asked for something that is not possible.


class InvalidEvent(LakebedError, ValueError):
    """When an event breaks a limit. `reason` says which limit; `batch` puts the reason in the receipt."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, hint="Nothing was stored", reason=reason)


class InvalidBilling(LakebedError, ValueError):
    """When a quantity, a price book, a period or a quota is not valid. The message names the field."""


class InvalidDefinition(LakebedError, ValueError):
    """When a document is not JSON or too large, when its name is not valid, or when no document has the name."""


class InvalidImport(LakebedError, ValueError):
    """When a file cannot be imported as asked: it is missing or unreadable, or an option does not fit it."""


class InvalidMerge(LakebedError, ValueError):
    """When two ids to be merged are one person already, or a merge to be taken back does not exist."""


class InvalidName(LakebedError, ValueError):
    """When an object's name is not `^[a-z0-9][a-z0-9_-]{0,62}$`: names become paths."""


class InvalidSettings(LakebedError, ValueError):
    """When a setting is unknown, has the wrong type or lies outside its range."""


class InvalidRollup(LakebedError, ValueError):
    """When a `Rollup` declares a measure, grain or dimension that cannot be computed."""


class InvalidSchedule(LakebedError, ValueError):
    """When `every` is given a time, weekday or interval that cannot be read."""


class InvalidAsOf(LakebedError, ValueError):
    """When `as_of` cannot be read, or lies in the future: such an answer could still change."""


class PromotionConflict(LakebedError, ValueError):
    """When a property is promoted with another type than it already has in this object."""


class ObjectClosed(LakebedError, RuntimeError):
    """When a call reaches an object that your code has closed, or has not opened yet."""


class NotReachable(LakebedError, AttributeError):
    """When a stub or connection is asked for a member that its object does not have, or that is not public."""


class AccessDenied(LakebedError, PermissionError):
    """When a server does not accept the key that was sent, or the key's scope does not allow the call."""


class UnknownKey(LakebedError, LookupError):
    """When no key has that id, or it is revoked, which is final."""


class UnknownDeadLetter(LakebedError, LookupError):
    """When no dead letter has that id: it was replayed, purged or dropped, or never existed."""


class WrongObject(LakebedError, TypeError):
    """When a directory holds an object of an unrelated class. It was not touched."""


class QueryError(LakebedError):
    """When DuckDB could not run the query; the message is DuckDB's."""


class QueryRefused(QueryError, ValueError):
    """When the SQL is not exactly one read-only SELECT, or names a table that does not exist."""


class QueryTooLarge(QueryError):
    """When a result exceeds `query_max_rows` or a query `query_memory_bytes`. No partial result is given."""


class QueryTimeout(QueryError, TimeoutError):
    """When a query ran longer than its `timeout`. It was stopped; nothing was changed."""


class QueryBusy(QueryError):
    """When the maximum of untrusted queries runs already: of this object or, as `scope` says, of the whole server."""


class QueryCrashed(QueryError):
    """When the process of an untrusted query ended without an answer: too much memory, or too deeply nested SQL."""


class SnapshotExpired(QueryError, LookupError):
    """When the table does not have, or no longer has, an Iceberg snapshot or tag. `as_of` needs no snapshot."""


# The operator must act: the cause is the machine, the disk or another process.


class ObjectLocked(LakebedError):
    """When the object's directory is open in another process. `pid` is that process."""


class Unreachable(LakebedError, ConnectionError):
    """When a server or client at the other end of a connection does not answer. A call may have been carried out."""


class ObjectUnavailable(LakebedError, OSError):
    """When an object's directory cannot be created, locked or read: read-only, no permission, no free descriptors."""


class FontMissing(LakebedError, LookupError):
    """When a chart is to be drawn as a PNG image and no font is found for its text. Nothing was drawn."""


class DiskFull(LakebedError, OSError):
    """When free space is under the headroom. Tracking is refused; reads, recovery and checkpoints still work."""


class LogUnavailable(LakebedError, OSError):
    """When the log could not be written, synced or read. Events of this call were not acknowledged; a retry is safe."""


class Backpressure(LakebedError):
    """When events arrive faster than they can be stored, for longer than the caller may wait."""


class LogCorrupted(LakebedError):
    """When acknowledged bytes of the log do not read back. Nothing is skipped: the object does not open."""

    def __init__(self, message: str, *, path: Path, offset: int, hint: str = "") -> None:
        hint = hint or "Restore this file from a backup; docs/guarantees.md says what each tier still holds"
        super().__init__(f"{message} ({path}, offset {offset})", hint=hint, path=path, offset=offset)


class LogBehind(LogCorrupted):
    """When a consumer's checkpoint lies past the log's end: the log, or a part of it, was replaced or lost."""


class FormatTooNew(LakebedError):
    """When a file was written by a newer Lakebed. It was not touched."""


class StorageUnavailable(LakebedError, OSError):
    """When SQLite could not commit. State and checkpoint were rolled back together; the log still has the events."""


class KeysUnavailable(LakebedError, OSError):
    """When `keys.db` cannot be read or written. Until it can be, every request is refused; nothing was changed."""


class ArchiveUnavailable(LakebedError, OSError):
    """When the catalog or the warehouse did not answer, or the outcome is unknown even after a second request."""


class ArchiveConflict(LakebedError):
    """When the archive's watermark is not where this object left it: another process has committed to the table."""
