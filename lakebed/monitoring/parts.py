"""MonitoredParts: the parts of one open object that monitoring reads. Monitoring changes none of them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from lakebed.events.documents import DocumentPositions
from lakebed.identity.identity import Identity
from lakebed.ingest.ingest import Ingest
from lakebed.maintenance.maintenance import CatchUp, Maintenance
from lakebed.query.queries import Queries
from lakebed.rollups.rollups import Rollups
from lakebed.scheduling.scheduler import Scheduler
from lakebed.settings import Settings
from lakebed.tiers.archive.archive import Archive
from lakebed.tiers.counters.counters import Counters
from lakebed.tiers.pipeline.pipeline import Pipeline
from lakebed.tiers.storage.dead_letters import DeadLetters
from lakebed.tiers.storage.storage import Storage

__all__ = ["MonitoredParts"]


class MonitoredParts(msgspec.Struct, frozen=True, kw_only=True):
    """Attributes: the parts by name; `opened_at_seq`: the end of the log when the object was opened."""

    directory: Path
    settings: Settings
    counters: Counters
    documents: DocumentPositions
    pipeline: Pipeline
    storage: Storage
    archive: Archive
    dead_letters: DeadLetters
    ingest: Ingest
    rollups: Rollups
    identity: Identity
    queries: Queries
    catch_up: CatchUp
    maintenance: Maintenance
    scheduler: Scheduler
    opened_at_seq: int
