"""The sorted index over counter keys, for globs."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Container, Iterator
from itertools import filterfalse

from sortedcontainers import SortedList

__all__ = ["KeyIndex"]

_REBUILD = 16  # with at most this many keys for each added key, the index is sorted anew
_MAX_RUNE = chr(0x10FFFF)
_WILDCARD = re.compile(r"[*?[]")


class KeyIndex:
    """The keys as of the last `update`, in order of code points."""

    def __init__(self) -> None:
        self._keys = SortedList()

    def __len__(self) -> int:
        return len(self._keys)

    def update(self, added: set[str], removed: set[str]) -> None:
        """Add and remove keys. No key of `added` is in the index yet; every key of `removed` is."""
        if len(removed) * _REBUILD > len(self._keys):
            self._keys = SortedList(filterfalse(removed.__contains__, self._keys))
        else:
            for key in removed:
                self._keys.remove(key)
        if len(self._keys) <= _REBUILD * len(added):
            # Python's sort finds the sorted run: half the price of placing the new keys one by one.
            self._keys = SortedList(sorted([*self._keys, *sorted(added)]))
        else:
            self._keys.update(added)

    def retain(self, keys: Container[str]) -> None:
        """Remove all keys that are not in `keys`, in one pass."""
        self._keys = SortedList(filter(keys.__contains__, self._keys))

    def count(self, glob: str) -> int:
        """The number of keys that match `glob`. Costs O(log n) if `glob` is a prefix and `*`."""
        prefix, rest = _split(glob)
        if not rest or rest.strip("*"):
            return sum(1 for _ in self.matches(glob))
        successor = _successor(prefix)
        end = self._keys.bisect_left(successor) if successor else len(self._keys)
        return int(end - self._keys.bisect_left(prefix))

    def matches(self, glob: str) -> Iterator[str]:
        """The keys that match `glob`, in order. Examines only keys that start with the literal prefix of `glob`."""
        prefix, rest = _split(glob)
        if not rest:
            return iter([prefix] if prefix in self._keys else [])
        keys: Iterator[str] = self._keys.irange(prefix, _successor(prefix) or None, inclusive=(True, False))
        return filter(re.compile(fnmatch.translate(glob)).match, keys) if rest.strip("*") else keys


def _split(glob: str) -> tuple[str, str]:
    """The literal prefix of a glob, and the rest, which starts with a wildcard or is empty."""
    wildcard = _WILDCARD.search(glob)
    return (glob[: wildcard.start()], glob[wildcard.start() :]) if wildcard else (glob, "")


def _successor(prefix: str) -> str:
    """The smallest text that is greater than every text with this prefix; empty if there is no such text."""
    prefix = prefix.rstrip(_MAX_RUNE)
    return prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else ""
