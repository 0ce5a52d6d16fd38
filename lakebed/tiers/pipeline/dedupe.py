"""The message ids that the log already has: exact, in bounded memory.

Ids of unsealed events are kept as they are. Ids of sealed segments are kept as two roaring bitmaps of independent
32-bit hashes, about 5 bytes an id: a miss is certain, a hit is verified in the segment itself, so no false positive
ever drops an event. A dict of all ids was rejected: 150 bytes each, a gigabyte for a day of 80 events a second.
"""

from __future__ import annotations

import itertools
import zlib
from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import google_crc32c
import msgspec
import pyarrow as pa
from pyroaring import BitMap

from lakebed.tiers.pipeline.sealing import read_sealed

__all__ = ["Dedupe", "SealedIds"]

_FORMAT = 1
_SLICE = 4096  # ids that are processed in one call
_STEP = 32_768  # ids that one commit moves into a dict after opening: some 10 ms
_SUFFIX = ".ids"


_low, _high = google_crc32c.value, zlib.crc32  # of an id's UTF-8: 32 bits each, independent of each other


class _Sidecar(msgspec.Struct, array_like=True):
    format: int
    count: int
    low: bytes
    high: bytes


class SealedIds(msgspec.Struct, frozen=True):
    """The ids of one sealed segment, as a filter. Immutable; may be created in any thread."""

    path: Path
    last_received: int
    count: int
    low: BitMap
    high: BitMap

    @classmethod
    def of(cls, path: Path, last_received: int, message_ids: Iterable[str]) -> SealedIds:
        """The filter of `message_ids`, which are all message ids of the segment at `path`."""
        rest, low, high = iter(message_ids), array("I"), array("I")
        # In slices: one call over 200,000 ids would hold the interpreter, and so every `track`, for 0.2 s.
        while ids := list(itertools.islice(rest, _SLICE)):
            encoded = list(map(str.encode, ids))
            low.extend(map(_low, encoded))
            high.extend(map(_high, encoded))
        return cls(path, last_received, len(low), _bitmap(low), _bitmap(high))

    @classmethod
    def of_batches(cls, path: Path, last_received: int, batches: Iterable[pa.RecordBatch]) -> SealedIds:
        """The filter of the events in `batches`, which are all events of the segment at `path`."""
        columns = (batch.column("message_id") for batch in batches)
        slices = (column.slice(start, _SLICE) for column in columns for start in range(0, len(column), _SLICE))
        return cls.of(path, last_received, itertools.chain.from_iterable(ids.to_pylist() for ids in slices))

    @classmethod
    def load(cls, path: Path, last_received: int) -> SealedIds:
        """Read the filter from the file beside the segment; from the segment if that file is missing or damaged."""
        try:
            data = path.with_suffix(_SUFFIX).read_bytes()
            if google_crc32c.value(data[4:]) == int.from_bytes(data[:4], "little"):
                sidecar = msgspec.msgpack.decode(data[4:], type=_Sidecar)
                if sidecar.format == _FORMAT:
                    low, high = BitMap.deserialize(sidecar.low), BitMap.deserialize(sidecar.high)
                    return cls(path, last_received, sidecar.count, low, high)
        except (OSError, msgspec.DecodeError):
            pass  # derived data: rebuilt below
        return cls.of(path, last_received, read_sealed(path, ["message_id"])["message_id"].to_pylist())

    def save(self) -> None:
        """Write the filter to the file beside the segment. Does not sync: the file has a CRC and can be rebuilt."""
        packed = msgspec.msgpack.encode(_Sidecar(_FORMAT, self.count, self.low.serialize(), self.high.serialize()))
        crc = google_crc32c.value(packed).to_bytes(4, "little")
        self.path.with_suffix(_SUFFIX).write_bytes(crc + packed)

    def remove(self) -> None:
        """Delete the filter's file beside the segment."""
        self.path.with_suffix(_SUFFIX).unlink(missing_ok=True)

    def seqs(self, message_ids: list[str], since_us: int) -> dict[str, int]:
        """The seq by message id, for events of the segment received at or after `since_us`. Reads the segment."""
        rows = read_sealed(self.path, ["message_id", "seq", "received_at"], message_ids)
        ids, seqs = rows["message_id"].to_pylist(), rows["seq"].to_pylist()
        received = rows["received_at"].cast("int64").to_pylist()
        return {name: seq for name, seq, at_us in zip(ids, seqs, received, strict=True) if at_us >= since_us}


def _bitmap(hashes: array[int]) -> BitMap:
    """The set of `hashes`. Arrow sorts the hashes first; other threads can run during the sort.

    Unsorted, 200,000 hashes took 0.3 s; the loop got the interpreter back only for an instant every 5 ms, and clients
    waited for up to 0.4 s. Sorted and in slices, the hashes take 40 ms, with at most 1 ms in one call.
    """
    column = pa.Array.from_buffers(pa.uint32(), len(hashes), [None, pa.py_buffer(hashes)])
    ordered = array("I", column.sort().buffers()[1].to_pybytes())
    bitmap = BitMap()
    for start in range(0, len(hashes), _SLICE):
        bitmap |= BitMap(ordered[start : start + _SLICE])
    return bitmap


class _UnreadGroup(msgspec.Struct, frozen=True):
    """A group of an unsealed segment that was found at opening. The ids of the group are not in a dict yet."""

    segment: int
    first_seq: int
    ids: pa.StringArray


class Dedupe:
    """The message ids of a time window. Belongs to the commit thread.

    Args:
        window_us: the microseconds for which an id is remembered, from the event's `received_at` on.
        max_ids: the limit of remembered ids. Above this limit, the oldest sealed segments are forgotten early.
    """

    def __init__(self, window_us: int, max_ids: int) -> None:
        self._window_us = window_us
        self._max_ids = max_ids
        self._open: dict[int, dict[str, int]] = {}  # by first seq of an unsealed segment
        # The unsealed segments found at opening, older than all in `_open`. A dict of a million ids takes a second, so
        # it is filled step by step as groups are committed; until then ids are searched in the columns.
        self._restored: dict[int, dict[str, int]] = {}
        self._unread: deque[_UnreadGroup] = deque()
        self._starts: list[int] = []  # the first seq of each group of the unsealed segments …
        self._received: list[int] = []  # … and when it was received
        self._sealed: list[SealedIds] = []  # oldest first
        self._any_low = BitMap()  # union of the sealed lows: one look-up instead of one for each segment

    def __len__(self) -> int:
        whole = sum(map(len, [*self._open.values(), *self._restored.values(), *(group.ids for group in self._unread)]))
        return whole + sum(sealed.count for sealed in self._sealed)

    def restore(self, segment: int, ids: pa.StringArray, first_seq: int, received_at: int) -> None:
        """Remember a group found at opening. The group's segment starts at seq `segment`. Call in seq order."""
        self._unread.append(_UnreadGroup(segment, first_seq, ids))
        self._starts.append(first_seq)
        self._received.append(received_at)

    def add(self, segment: int, ids: Iterable[tuple[str, int]], first_seq: int, received_at: int) -> None:
        """Remember a committed group of the unsealed segment that starts at seq `segment`."""
        self._open.setdefault(segment, {}).update(ids)
        self._starts.append(first_seq)
        self._received.append(received_at)

    def seal(self, segment: int, sealed: SealedIds) -> None:
        """Replace the ids of the segment that starts at seq `segment` by its filter."""
        self._open.pop(segment, None)
        self._restored.pop(segment, None)
        self._unread = deque(group for group in self._unread if group.segment != segment)
        first_open = min([*self._open, *self._restored, *(group.segment for group in self._unread)], default=None)
        count = len(self._starts) if first_open is None else bisect_right(self._starts, first_open) - 1
        del self._starts[:count], self._received[:count]
        self._sealed.append(sealed)
        self._any_low |= sealed.low

    def find(self, message_ids: list[str], now_us: int) -> dict[str, int]:
        """The seq by message id, for `message_ids` received in the window before `now_us`. May read sealed files."""
        since = now_us - self._window_us
        self._forget_before(since)
        self._restore_some()
        seqs: dict[str, int] = {}
        for ids in self._restored.values():
            self._find_in_dict(ids, message_ids, since, seqs)
        if self._unread:
            self._find_unread(message_ids, since, seqs)
        for ids in self._open.values():
            self._find_in_dict(ids, message_ids, since, seqs)
        if self._sealed:
            self._find_sealed([message_id for message_id in message_ids if message_id not in seqs], since, seqs)
        return seqs

    # The methods below add the seqs that they find to `seqs`.

    def _find_in_dict(self, ids: dict[str, int], message_ids: list[str], since: int, seqs: dict[str, int]) -> None:
        if any(map(ids.__contains__, message_ids)):
            for message_id in message_ids:
                seq = ids.get(message_id)
                if seq is not None and self._received_at(seq) >= since:
                    seqs[message_id] = seq

    def _received_at(self, seq: int) -> int:
        return self._received[bisect_right(self._starts, seq) - 1]

    def _find_unread(self, message_ids: list[str], since: int, seqs: dict[str, int]) -> None:
        import pyarrow.compute as pc  # a quarter of what pyarrow costs to import

        ids = pa.chunked_array([group.ids for group in self._unread])
        for row in pc.indices_nonzero(pc.is_in(ids, value_set=pa.array(message_ids, pa.string()))).to_pylist():
            seq = self._unread[0].first_seq + row  # groups are contiguous
            if self._received_at(seq) >= since:
                seqs[ids[row].as_py()] = seq

    def _restore_some(self) -> None:
        """Move up to about `_STEP` more ids of groups found at opening into dicts."""
        count = 0
        while self._unread and count < _STEP:
            group = self._unread.popleft()
            count += len(group.ids)
            seqs = range(group.first_seq, group.first_seq + len(group.ids))
            self._restored.setdefault(group.segment, {}).update(zip(group.ids.to_pylist(), seqs, strict=True))

    def _find_sealed(self, message_ids: list[str], since: int, seqs: dict[str, int]) -> None:
        any_low = self._any_low
        lows = zip(message_ids, map(_low, map(str.encode, message_ids)), strict=True)
        hashes = {m: (low, _high(m.encode())) for m, low in lows if low in any_low}
        for sealed in reversed(self._sealed if hashes else []):
            hits = [m for m, (low, high) in hashes.items() if low in sealed.low and high in sealed.high]
            if hits:
                for message_id, seq in sealed.seqs(hits, since).items():
                    seqs[message_id] = seq
                    hashes.pop(message_id, None)

    def forget(self, paths: set[Path]) -> None:
        """Forget the sealed segments at `paths`, which will be deleted."""
        self._set_sealed([sealed for sealed in self._sealed if sealed.path not in paths])

    def _forget_before(self, since: int) -> None:
        forgotten, count = 0, len(self)
        for sealed in self._sealed:
            if sealed.last_received >= since and count <= self._max_ids:
                break
            forgotten, count = forgotten + 1, count - sealed.count
        if forgotten:
            self._set_sealed(self._sealed[forgotten:])

    def _set_sealed(self, segments: list[SealedIds]) -> None:
        self._sealed = segments
        self._any_low = BitMap.union(BitMap(), *(ids.low for ids in segments))
