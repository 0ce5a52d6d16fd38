"""Exit codes, and the one line that a command prints about an error, such as an optional dependency that is missing."""

from __future__ import annotations

import importlib.util
import sqlite3
from collections.abc import Sequence
from enum import IntEnum

from lakebed import errors

__all__ = ["EXPECTED", "Exit", "Failure", "code_of", "message_of", "need"]


class Exit(IntEnum):
    """The meaning of the exit code of every command."""

    OK = 0
    """done, without problems"""
    PROBLEMS = 1
    """done, with problems: `check` found some, or events were rejected"""
    USAGE = 2
    """the command is not valid: an option, a name, SQL, a key"""
    UNAVAILABLE = 3
    """not now or not from here: the object is open elsewhere, the server does not answer, the disk is full"""
    DAMAGED = 4
    """files on disk do not read back, or were written by a newer Lakebed"""
    INTERRUPTED = 130
    """stopped by Ctrl-C"""
    CLOSED = 141
    """the reader of the output closed it, as `head` does"""


class Failure(Exception):
    """An error of the command line itself: what is wrong and, if there is one, the next step."""

    def __init__(self, message: str, *, hint: str = "", code: Exit = Exit.USAGE) -> None:
        super().__init__(f"{message}. {hint}" if hint else message)
        self.code = code


# The entry of the nearest base class of an error counts.
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
    errors.Unreachable: Exit.UNAVAILABLE,
    errors.QueryTimeout: Exit.USAGE,
    errors.LakebedError: Exit.USAGE,
    sqlite3.Error: Exit.UNAVAILABLE,
    OSError: Exit.UNAVAILABLE,
}

EXPECTED = (Failure, errors.LakebedError, sqlite3.Error, OSError)
"""Errors that one line explains; all others are bugs."""

_LOCKED = (
    "If that is a server, ask it: --url http://127.0.0.1:8080 --key … (LAKEBED_URL, LAKEBED_KEY). Or stop it first"
)


def code_of(error: BaseException) -> Exit:
    """The exit code for an error that ended a command."""
    if isinstance(error, Failure):
        return error.code
    return next(_CODES[base] for base in type(error).__mro__ if base in _CODES)


def message_of(error: BaseException) -> str:
    """The line to print for an error. If a server may have the object open, it names the options to ask that server."""
    return f"{error.message}. {_LOCKED}" if isinstance(error, errors.ObjectLocked) else str(error)


def need(feature: str, modules: Sequence[str], extra: str) -> None:
    """Check that all `modules`, which `feature` needs, are installed.

    Raises:
        Failure: names the modules that are missing, and the extra that installs them.
    """
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise Failure(f"{feature} needs {' and '.join(missing)}", hint=f"pip install 'lakebed[{extra}]'")
