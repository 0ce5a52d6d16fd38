"""The archive's snapshots: finding, listing, naming and forgetting them."""

from __future__ import annotations

import re

from pyiceberg.table import Table, Transaction
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.snapshots import Snapshot as IcebergSnapshot
from pyiceberg.table.update.snapshot import ExpireSnapshots, ManageSnapshots

from lakebed.clock import SECOND_US
from lakebed.errors import InvalidName, SnapshotExpired
from lakebed.tiers.archive.models import Expiry, Snapshot
from lakebed.tiers.archive.table import EventsTable
from lakebed.tiers.archive.transaction import Changes
from lakebed.tiers.archive.watermark import COMMITTED, OPERATION, WATERMARK

__all__ = ["expire", "find", "snapshots", "tag", "untag"]

_TAG = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}$")


def find(table: Table | None, wanted: int | str) -> IcebergSnapshot:
    """The snapshot with the id, or the tag, `wanted`.

    Raises:
        SnapshotExpired: when there is none. (pyiceberg itself would read the newest.)
    """
    found = None
    if table is not None:
        refs = table.metadata.refs
        number = wanted if isinstance(wanted, int) else refs[wanted].snapshot_id if wanted in refs else None
        found = None if number is None else table.metadata.snapshot_by_id(number)
    if found is None:
        raise SnapshotExpired(
            f"snapshot {wanted!r} is not in the archive",
            hint="snapshots() lists those that are; as_of needs none",
            snapshot=wanted,
        )
    return found


def snapshots(events: EventsTable) -> list[Snapshot]:
    """Every snapshot, oldest first."""
    table = events.load()
    if table is None:
        return []
    tags = _tags(table)
    return [_describe(snapshot, tuple(tags.get(snapshot.snapshot_id, ()))) for snapshot in _in_order(table)]


def _tags(table: Table) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for name, ref in sorted(table.metadata.refs.items()):
        if ref.snapshot_ref_type == SnapshotRefType.TAG:
            found.setdefault(ref.snapshot_id, []).append(name)
    return found


def _in_order(table: Table) -> list[IcebergSnapshot]:
    # By sequence number: clocks step back, commits do not.
    return sorted(table.metadata.snapshots, key=lambda snapshot: snapshot.sequence_number or 0)


def _describe(snapshot: IcebergSnapshot, tags: tuple[str, ...]) -> Snapshot:
    summary = snapshot.summary
    facts = {} if summary is None else summary.additional_properties
    own = "unknown" if summary is None else summary.operation.value
    return Snapshot(
        id=snapshot.snapshot_id,
        committed_us=_committed_us(snapshot),
        watermark=int(facts[WATERMARK]) if WATERMARK in facts else None,
        operation=facts.get(OPERATION, own),
        rows=int(facts.get("total-records", 0)),
        tags=tags,
    )


def _committed_us(snapshot: IcebergSnapshot) -> int:
    facts = {} if snapshot.summary is None else snapshot.summary.additional_properties
    return int(facts.get(COMMITTED, snapshot.timestamp_ms * 1000))


def expire(events: EventsTable, *, dry_run: bool) -> Expiry:
    """Forget old snapshots, as the settings say."""
    outcome = Expiry((), 0, dry_run)
    now_us = events.clock.now_us()

    def stage(table: Table) -> Transaction | None:
        nonlocal outcome
        ids = _expired(events, table, now_us)
        outcome = Expiry(tuple(ids), len(table.metadata.snapshots) - len(ids), dry_run)
        if not ids or dry_run:
            return None
        transaction = Changes(table)
        ExpireSnapshots(transaction=transaction).by_ids(ids).commit()
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
    """Name a snapshot, or move a name to it."""
    if not _TAG.match(name) or name == "main":
        raise InvalidName(f"{name!r} cannot be a tag", hint="Use letters, digits, '.', '_' and '-'", value=name)

    def stage(table: Table) -> Transaction:
        current = table.metadata.current_snapshot_id
        chosen = find(table, current if snapshot_id is None and current is not None else snapshot_id or name)
        transaction = Changes(table)
        ManageSnapshots(transaction=transaction).create_tag(chosen.snapshot_id, name).commit()
        return transaction

    if events.load() is None:
        find(None, name if snapshot_id is None else snapshot_id)
    events.amend(stage)


def untag(events: EventsTable, name: str) -> None:
    """Take a name away."""

    def stage(table: Table) -> Transaction:
        if table.metadata.refs[name].snapshot_ref_type != SnapshotRefType.TAG if name in table.metadata.refs else True:
            find(None, name)
        transaction = Changes(table)
        ManageSnapshots(transaction=transaction).remove_tag(name).commit()
        return transaction

    if events.load() is None:
        find(None, name)
    events.amend(stage)
