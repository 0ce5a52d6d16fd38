"""Limits: what one session may cost the side that answers it."""

from __future__ import annotations

import msgspec

__all__ = ["Limits"]


class Limits(msgspec.Struct, frozen=True):
    """Passing `message_bytes`, `depth`, `digits` or `entries` aborts the session; the others reject one call.

    Attributes:
        message_bytes: characters of one incoming message.
        depth: levels of nesting in a value.
        digits: digits of a bigint.
        entries: entries of the import and export tables together: results and references that are not yet released.
        pending: calls under way. No further message is read meanwhile, unless a call waits for the peer itself; at
            four times as many a call is rejected.
        steps: instructions that one `.map()` may carry out, over all elements.
        argument_size: size of the arguments of one call: values and characters, each counted wherever it appears.
        result_size: size of one answer, counted likewise, tables by their bytes.
        held_size: size of all results that are not released. Passing it aborts the session.
        batch_size: characters of all answers to an HTTP batch; passing it rejects the calls that are not answered yet.
        batch_messages: messages of one HTTP batch.
        mistakes: wrong keys that a session may show.
    """

    message_bytes: int = 1 << 20
    depth: int = 64
    digits: int = 1000
    entries: int = 10_000
    pending: int = 1000
    steps: int = 10_000
    argument_size: int = 2 << 20
    result_size: int = 8 << 20
    held_size: int = 16 << 20
    batch_size: int = 64 << 20
    batch_messages: int = 5000
    mistakes: int = 3
