"""Renews state that an older Lakebed wrote, which counted documents like events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lakebed.events.documents import DocumentPositions
from lakebed.rollups.fold import Fold
from lakebed.tiers.storage.storage import Storage, Transaction

__all__ = ["renew"]


async def renew(
    storage: Storage, folds: Sequence[Fold], positions: Mapping[str, int], documents: DocumentPositions
) -> None:
    """Reset each of `folds` whose state counts documents; accept the state of the others unchanged.

    Done in one transaction, so after a crash it is done completely or not at all. Most objects have no documents and
    keep their state. Rejected: subtracting the documents from the state. Only counts and sums allow that, and
    computing the rollup again takes 3 s for a million events, once.

    Args:
        folds: rollups whose stored fingerprint is `older_fingerprint`.
        positions: the checkpoint of each.
    """

    async def transaction(tx: Transaction) -> None:
        for fold in folds:
            if documents.within(0, positions[fold.name]):
                await tx.define(fold.name, fold.fingerprint)
                await tx.drop_checkpoint(fold.consumer)
            else:
                await tx.keep_state(fold.name, fold.fingerprint)

    await storage.transact(transaction)
