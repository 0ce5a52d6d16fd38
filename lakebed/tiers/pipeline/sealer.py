"""Sealing in the background, and deleting sealed files. Both run on one thread, apart from the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from lakebed.concurrency import Worker
from lakebed.disk import Disk
from lakebed.events.promotions import Promotion
from lakebed.sql_engine import SqlEngine
from lakebed.tiers.pipeline.dedupe import SealedIds
from lakebed.tiers.pipeline.log_view import SealedFiles, Tail, TailPart
from lakebed.tiers.pipeline.sealing import SealedFile, remove_sealed, seal
from lakebed.tiers.pipeline.segment import log_path

__all__ = ["Sealer"]


class Sealer:
    """Turns the closed parts of a tail into sealed files, oldest first. Belongs to the loop's thread.

    Args:
        tail: the source; a part is dropped from the tail when the part is sealed.
        files: the destination; each sealed file is added.
        problems: holds a failure under "seal", until an attempt succeeds.
        on_sealed: awaited with the first seq and the ids of a sealed segment, before the tail drops the part.
        on_stop: called when no closed part is left, and when sealing has failed.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        disk: Disk,
        promotions: Sequence[Promotion],
        engine: SqlEngine,
        tail: Tail,
        files: SealedFiles,
        problems: dict[str, str],
        on_sealed: Callable[[int, SealedIds], Awaitable[None]],
        on_stop: Callable[[], None],
    ) -> None:
        self._directory = directory
        self._disk = disk
        self._promotions = promotions
        self._engine = engine
        self._tail = tail
        self._files = files
        self._problems = problems
        self._on_sealed = on_sealed
        self._on_stop = on_stop
        self._thread = Worker(f"seal-{name}")
        self._task: asyncio.Task[None] | None = None

    @property
    def is_running(self) -> bool:
        """Whether a part is being sealed."""
        return self._task is not None

    def start(self) -> None:
        """Seal in the background, if a part is closed and no part is being sealed."""
        if self._task is None and self._tail.closed_part() is not None:
            self._task = asyncio.get_running_loop().create_task(self._seal_closed())

    async def wait(self) -> None:
        """Return when no part is being sealed. Cancelling the caller does not stop the sealing."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def _seal_closed(self) -> None:
        """Seal the closed parts. After a failure the next `start` tries again."""
        try:
            while (part := self._tail.closed_part()) is not None:
                file, ids = await self._thread.run(self._seal, part)
                await self._on_sealed(part.first_seq, ids)
                self._files.add(file)
                self._tail.drop(part)
            self._problems.pop("seal", None)
        except Exception as error:  # noqa: BLE001 - an error of any kind (DuckDB's, Arrow's): `check` reports it
            self._problems["seal"] = f"{self._directory}: {error}"
        finally:
            self._task = None
            self._on_stop()

    def _seal(self, part: TailPart) -> tuple[SealedFile, SealedIds]:
        log = log_path(self._directory, part.first_seq)
        file = seal(self._disk, log, part.batches, self._promotions, self._engine)
        ids = SealedIds.of_batches(file.path, file.last_received, part.batches)
        ids.save()
        return file, ids

    async def remove(self, files: Sequence[SealedFile]) -> None:
        """Delete sealed files. Raises OSError; some of the files may then still exist."""
        await self._thread.run(remove_sealed, self._disk, self._directory, files)

    def close(self) -> None:
        """Release the thread. The caller ensures that no part is being sealed."""
        self._thread.close()
