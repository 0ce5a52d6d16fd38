"""The ids of texts in `storage.db`. Rollups and the identity graph store a text once, and elsewhere the text's id."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lakebed.tiers.storage.storage import Transaction

__all__ = ["identify", "read_text", "stored_text"]


async def identify(tx: Transaction, values: Sequence[str]) -> list[int]:
    """The ids of distinct texts, in the order of `values`. A new text gets the next id: 1, 2, 3 …, up to 32 bits."""
    stored = list(map(stored_text, values))
    # Sorted like the index on value, so that each page of the index is read once, not at random. One JSON parameter
    # costs half of executemany.
    texts = msgspec.json.encode(sorted(stored)).decode()
    known = dict(
        await tx.fetch(
            "SELECT i.value, i.id FROM json_each(?) w CROSS JOIN identifiers i ON i.value = w.value", (texts,)
        )
    )
    new = sorted(value for value in stored if value not in known)
    if new:
        ((last,),) = await tx.fetch("SELECT coalesce(max(id), 0) FROM identifiers")
        await tx.fetch(
            "INSERT INTO identifiers (id, value) SELECT ? + key, value FROM json_each(?)",
            (last + 1, msgspec.json.encode(new).decode()),
        )
        known |= zip(new, range(last + 1, last + 1 + len(new)), strict=True)
    return [known[value] for value in stored]


def stored_text(value: str) -> str:
    """A text as stored in `identifiers`. A text with NUL (SQLite's JSON ends there) or a leading quote becomes JSON."""
    return msgspec.json.encode(value).decode() if "\0" in value or value[:1] == '"' else value


def read_text(stored: str) -> str:
    """The inverse of `stored_text`."""
    return str(msgspec.json.decode(stored)) if stored[:1] == '"' else stored
