"""Exit codes, and how what went wrong is said."""

from __future__ import annotations

import sqlite3
from enum import IntEnum

from lakebed import errors

__all__ = ["SAID", "Exit", "Failure", "code_of"]


class Exit(IntEnum):
    """What the exit code of every command means."""

    OK = 0
    """done, and nothing to complain about"""
    PROBLEMS = 1
    """done, and there is something to look at: problems found, events rejected"""
    USAGE = 2
    """the command asks for something that cannot be: an option, a name, SQL, a key"""
    UNAVAILABLE = 3
    """not now or not from here: the object is open elsewhere, the server does not answer, the disk is full"""
    DAMAGED = 4
    """what is on disk does not read back, or was written by a newer Lakebed"""
    INTERRUPTED = 130
    """stopped by Ctrl-C"""
    CLOSED = 141
    """whoever read the output went away, as `head` does"""


class Failure(Exception):
    """A command that cannot go on. What is said of it is `message` and, where there is one, the next step."""

    def __init__(self, message: str, *, hint: str = "", code: Exit = Exit.USAGE) -> None:
        super().__init__(f"{message}. {hint}" if hint else message)
        self.code = code


# The nearest class of an error's bases counts.
_CODES: dict[type[BaseException], Exit] = {
    errors.ObjectClosed: Exit.UNAVAILABLE,
    errors.ObjectLocked: Exit.UNAVAILABLE,
    errors.Backpressure: Exit.UNAVAILABLE,
    errors.LogCorrupted: Exit.DAMAGED,
    errors.FormatTooNew: Exit.DAMAGED,
    errors.ArchiveConflict: Exit.DAMAGED,
    errors.ObjectUnavailable: Exit.UNAVAILABLE,
    errors.DiskFull: Exit.UNAVAILABLE,
    errors.LogUnavailable: Exit.UNAVAILABLE,
    errors.StorageUnavailable: Exit.UNAVAILABLE,
    errors.ArchiveUnavailable: Exit.UNAVAILABLE,
    errors.QueryTimeout: Exit.USAGE,
    errors.LakebedError: Exit.USAGE,
    sqlite3.Error: Exit.UNAVAILABLE,
    OSError: Exit.UNAVAILABLE,
}

SAID = (Failure, errors.LakebedError, sqlite3.Error, OSError)
"""Errors of which one line says enough; all others are bugs."""


def code_of(error: BaseException) -> Exit:
    """The exit code for an error that a command met."""
    if isinstance(error, Failure):
        return error.code
    return next(_CODES[base] for base in type(error).__mro__ if base in _CODES)
