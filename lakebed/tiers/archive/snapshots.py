"""The archive's snapshots: finding, listing, tagging and expiring them."""

from __future__ import annotations

import re

from pyiceberg.table import Table, Transaction

from lakebed.clock import SECOND_US
from lakebed.errors import InvalidName, SnapshotExpired
from lakebed.tiers.archive.models import Expiry, Snapshot
from lakebed.tiers.archive.pyiceberg_internals import (
    CachedTransaction,
    create_tag,
    delete_tag,
    expire_snapshots,
    snapshot_id_of_ref,
    tags_of,
)
from lakebed.tiers.archive.pyiceberg_internals import Snapshot as IcebergSnapshot
from lakebed.tiers.archive.table import EventsTable
from lakebed.tiers.archive.watermark import COMMITTED, OPERATION, WATERMARK

__all__ = ["expire", "find", "list_snapshots", "tag", "untag"]

_TAG = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")


def find(table: Table | None, reference: int | str) -> IcebergSnapshot:
    """The snapshot with the id, or the tag, `reference`.

    Raises:
        SnapshotExpired: there is no such snapshot. (pyiceberg itself would read the newest one.)
    """
    snapshot = None
    if table is not None:
        snapshot_id = reference if isinstance(reference, int) else snapshot_id_of_ref(table, reference)
        snapshot = None if snapshot_id is None else table.metadata.snapshot_by_id(snapshot_id)
    if snapshot is None:
        raise SnapshotExpired(
            f"snapshot {reference!r} is not in the archive",
            hint="snapshots() lists the existing ones; as_of needs none",
            snapshot=reference,
        )
    return snapshot


def list_snapshots(events: EventsTable) -> list[Snapshot]:
    """Every snapshot, oldest first."""
    table = events.load()
    if table is None:
        return []
    tags: dict[int, list[str]] = {}
    for name, snapshot_id in tags_of(table).items():
        tags.setdefault(snapshot_id, []).append(name)
    return [_describe(snapshot, tuple(tags.get(snapshot.snapshot_id, ()))) for snapshot in _in_order(table)]


def _in_order(table: Table) -> list[IcebergSnapshot]:
    # By sequence number: a clock may step back, sequence numbers do not.
    return sorted(table.metadata.snapshots, key=lambda snapshot: snapshot.sequence_number or 0)


def _describe(snapshot: IcebergSnapshot, tags: tuple[str, ...]) -> Snapshot:
    summary = snapshot.summary
    properties = {} if summary is None else summary.additional_properties
    iceberg_operation = "unknown" if summary is None else summary.operation.value
    return Snapshot(
        id=snapshot.snapshot_id,
        committed_us=_committed_us(snapshot),
        watermark=int(properties[WATERMARK]) if WATERMARK in properties else None,
        operation=properties.get(OPERATION, iceberg_operation),
        rows=int(properties.get("total-records", 0)),
        tags=tags,
    )


def _committed_us(snapshot: IcebergSnapshot) -> int:
    properties = {} if snapshot.summary is None else snapshot.summary.additional_properties
    return int(properties.get(COMMITTED, snapshot.timestamp_ms * 1000))


def expire(events: EventsTable, *, dry_run: bool) -> Expiry:
    """Remove old snapshots, by `snapshots_keep` and `snapshots_age_s`. Blocks."""
    outcome = Expiry((), 0, dry_run)
    now_us = events.clock.now_us()

    def stage(table: Table) -> Transaction | None:
        nonlocal outcome
        ids = _expired(events, table, now_us)
        outcome = Expiry(tuple(ids), len(table.metadata.snapshots) - len(ids), dry_run)
        if not ids or dry_run:
            return None
        transaction = CachedTransaction(table)
        expire_snapshots(transaction, ids)
        return transaction

    events.amend(stage)
    return outcome


def _expired(events: EventsTable, table: Table, now_us: int) -> list[int]:
    settings = events.settings
    needed = {ref.snapshot_id for ref in table.metadata.refs.values()} | {table.metadata.current_snapshot_id}
    before_us = now_us - round(settings.snapshots_age_s * SECOND_US)
    return [
        snapshot.snapshot_id
        for snapshot in _in_order(table)[: -settings.snapshots_keep]
        if snapshot.snapshot_id not in needed and _committed_us(snapshot) <= before_us
    ]


def tag(events: EventsTable, name: str, snapshot_id: int | None) -> None:
    """Tag a snapshot, the newest if `snapshot_id` is None. An existing tag with this name is moved. Blocks."""
    if not _TAG.match(name) or name == "main":
        raise InvalidName(f"{name!r} cannot be a tag", hint="Use letters, digits, '.', '_' and '-'", value=name)

    def stage(table: Table) -> Transaction:
        current = table.metadata.current_snapshot_id
        snapshot = find(table, current if snapshot_id is None and current is not None else snapshot_id or name)
        transaction = CachedTransaction(table)
        create_tag(transaction, snapshot.snapshot_id, name)
        return transaction

    if events.load() is None:
        find(None, name if snapshot_id is None else snapshot_id)
    events.amend(stage)


def untag(events: EventsTable, name: str) -> None:
    """Remove a tag. Blocks. Raises SnapshotExpired if there is no such tag."""

    def stage(table: Table) -> Transaction:
        if name not in tags_of(table):
            find(None, name)  # raises
        transaction = CachedTransaction(table)
        delete_tag(transaction, name)
        return transaction

    if events.load() is None:
        find(None, name)
    events.amend(stage)
