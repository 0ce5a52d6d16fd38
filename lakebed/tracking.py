"""Tracking: the verbs that store events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lakebed.assembled import Assembled, Moment
from lakebed.events.event import Event, Receipt
from lakebed.events.validation import from_call
from lakebed.ingest.ingest import Ack, Keyed

__all__ = ["Tracking"]

Properties = Mapping[str, Any] | None


class Tracking(Assembled):
    """What an Analytics object takes.

    Tracking calls are plain functions that return an awaitable. Awaiting it means that the event is durable; not
    awaiting it is fire-and-forget, whose failure goes to `on_error` and `check()`.
    """

    def track(
        self,
        event: str,
        properties: Properties = None,
        *,
        user_id: str | None = None,
        anonymous_id: str | None = None,
        group_id: str | None = None,
        session_id: str | None = None,
        timestamp: Moment | float | None = None,
        message_id: str | None = None,
        context: Properties = None,
    ) -> Ack[Receipt]:
        """Store that `event` happened. Awaiting the result raises InvalidEvent, DiskFull, LogUnavailable, Backpressure.

        Args:
            event: its name, at most 200 characters.
            properties: JSON values; the event has at most 32 KB.
            timestamp: when it happened, if not now; any past, at most 24 hours ahead. Naive means UTC.
            message_id: a retry with the same one within 24 hours stores nothing and gets status "duplicate".
        """
        return self._track(
            "track",
            properties,
            event=event,
            user_id=user_id,
            anonymous_id=anonymous_id,
            group_id=group_id,
            session_id=session_id,
            timestamp=timestamp,
            message_id=message_id,
            context=context,
        )

    def page(
        self, category: str | None = None, name: str | None = None, properties: Properties = None, **ids: Any
    ) -> Ack[Receipt]:
        """Store a page view. `ids` are `track`'s keywords; with one positional argument it is the name."""
        name, category = (category, None) if name is None else (name, category)
        return self._track("page", properties, name=name, category=category, **ids)

    def screen(
        self, category: str | None = None, name: str | None = None, properties: Properties = None, **ids: Any
    ) -> Ack[Receipt]:
        """Store a screen view; arguments as for `page`."""
        name, category = (category, None) if name is None else (name, category)
        return self._track("screen", properties, name=name, category=category, **ids)

    def identify(self, user_id: str | None = None, traits: Properties = None, **ids: Any) -> Ack[Receipt]:
        """Store what is known of a person. Needs a `user_id` or an `anonymous_id`."""
        return self._track("identify", traits, user_id=user_id, **ids)

    def group(self, group_id: str, traits: Properties = None, **ids: Any) -> Ack[Receipt]:
        """Store that a person belongs to a group, and what is known of it."""
        return self._track("group", traits, group_id=group_id, **ids)

    def alias(self, user_id: str, previous_id: str, **ids: Any) -> Ack[Receipt]:
        """Store that `previous_id` and `user_id` are one person."""
        return self._track("alias", None, user_id=user_id, previous_id=previous_id, **ids)

    def _track(self, kind: str, properties: Properties, **fields: Any) -> Ack[Receipt]:
        tiers = self._up
        return tiers.intake.one(lambda: from_call(kind, properties, **fields))

    def batch(
        self,
        items: Iterable[Mapping[str, Any] | Event] | bytes | str,
        *,
        source: str | None = "python",
        keep_refused: bool = False,
        key: Keyed = None,
    ) -> Ack[list[Receipt]]:
        """Store many events: mappings (Segment's names or ours), or JSON or NDJSON bytes.

        Awaiting gives one Receipt an item, in order. A bad item is "rejected" with a reason; the others are stored.

        Args:
            source: what the `source` of events is that do not say it themselves.
            keep_refused: what is refused is kept as a dead letter, durably, before the result is there.
            key: the id of the key with which they were sent, for dead letters; or one for each item.

        Raises:
            InvalidEvent: when the bytes as a whole are no JSON: at once, or when it is awaited if `keep_refused`.
        """
        return self._up.intake.batch(items, source, keep_refused=keep_refused, key=key)

    async def flush(self) -> None:
        """Return when all events handed over so far are durable or have failed."""
        await self._up.pipeline.flush()
