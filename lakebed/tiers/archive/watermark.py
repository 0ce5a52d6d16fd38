"""The archive's watermark, as recorded in the summary of every snapshot that Lakebed writes.

The summary is used, not the table's properties, because a snapshot's summary is committed together with its rows.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import msgspec

from lakebed.errors import ArchiveConflict

__all__ = ["BATCH", "COMMITTED", "OPERATION", "WATERMARK", "Progress"]

WATERMARK = "lakebed.watermark"
BATCH = "lakebed.batch-id"
OPERATION = "lakebed.operation"
COMMITTED = "lakebed.committed-us"
_START = "lakebed.start"
_END = "lakebed.end"
_ERASED = "lakebed.erased"


class Progress(msgspec.Struct, frozen=True):
    """The progress of the archive at one snapshot.

    Attributes:
        watermark: every event with a lower `seq` was archived.
        erased: the number of archived events that have been erased.
        batch_id: the id of the commit. If the response of the catalog is lost, the id shows whether it was applied.
    """

    watermark: int = 0
    erased: int = 0
    batch_id: str = ""

    @classmethod
    def of(cls, snapshot: Any | None) -> Progress:
        """The progress at a pyiceberg snapshot; zero for None, which means that nothing was archived yet.

        Raises:
            ArchiveConflict: the summary has no watermark, because another program committed. A guess would lose or
                duplicate events.
        """
        if snapshot is None:
            return cls()
        summary: Mapping[str, str] = snapshot.summary.additional_properties if snapshot.summary is not None else {}
        try:
            return cls(int(summary[WATERMARK]), int(summary.get(_ERASED, 0)), summary.get(BATCH, ""))
        except (KeyError, ValueError):
            raise ArchiveConflict(
                f"snapshot {snapshot.snapshot_id} of the archive has no watermark in its summary",
                hint="Another program wrote it. Roll the table back to the newest snapshot that has "
                f"{WATERMARK} in its summary, or repeat that commit with it",
                snapshot=snapshot.snapshot_id,
            ) from None

    def next(self, *, watermark: int | None = None, erased: int = 0) -> Progress:
        """The progress after the next commit, with a new batch id."""
        end = self.watermark if watermark is None else watermark
        return Progress(end, self.erased + erased, uuid.uuid4().hex)

    def summary(self, operation: str, committed_us: int, start: int, sha256: str = "") -> dict[str, str]:
        """The summary of a commit that moves the watermark from `start` to `watermark`."""
        summary = {
            WATERMARK: str(self.watermark),
            BATCH: self.batch_id,
            OPERATION: operation,
            COMMITTED: str(committed_us),
            _START: str(start),
            _END: str(self.watermark),
            _ERASED: str(self.erased),
        }
        return summary | ({"lakebed.sha256": sha256} if sha256 else {})
