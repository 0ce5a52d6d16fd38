"""Client: the verbs of one object, for code that blocks; the object is open here (LocalClient) or on a server."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, Protocol

from lakebed.clients.table import Table
from lakebed.interface.signature import camel_keys
from lakebed.interface.verbs import VERBS

__all__ = ["Client", "LocalClient", "dead_letter_line", "table_of"]

_LINE = ("id", "received_at", "reason", "source", "key", "message_id", "tries", "tried_at", "size")
_PREVIEW = 200


class Client(Protocol):
    """The verbs of one object. Calls block; several threads may not share a client."""

    def call(self, verb: str, *positional: Any, **named: Any) -> Any:
        """The answer of a verb of the catalogue, as the object's method gives it."""
        ...

    def table(self, verb: str, *positional: Any, **named: Any) -> Table:
        """The rows of `query`, `template` or a report, however many. Arguments of a report have names."""
        ...

    def track(self, event: Mapping[str, Any]) -> Any:
        """Store one event, in Segment's names. Gives its `Receipt`; a rejected event is not an error."""
        ...

    def dead_letters(self, *, limit: int, before: int | None, reason: str | None) -> list[dict[str, Any]]:
        """Dead letters, newest first, in HTTP's names, each with the first 200 characters that were sent."""
        ...


class LocalClient:
    """The verbs of an object that is open in this process.

    Args:
        connection: the object, as `connect` gives it.
        trusted: whether SQL is the user's own; if not, it runs in the sandbox.
    """

    def __init__(self, connection: Any, *, trusted: bool = True) -> None:
        self._connection = connection
        self._trusted = trusted

    def call(self, verb: str, *positional: Any, **named: Any) -> Any:
        """As `Client.call`."""
        name = VERBS[verb].name if self._trusted else VERBS[verb].untrusted or verb
        if name == "report_untrusted":
            return self._connection.report_untrusted(verb, named)
        return operator.attrgetter(name)(self._connection)(*positional, **named)

    def table(self, verb: str, *positional: Any, **named: Any) -> Table:
        """As `Client.table`."""
        return table_of(self.call(verb, *positional, **named))

    def track(self, event: Mapping[str, Any]) -> Any:
        """As `Client.track`."""
        return self._connection.batch([event], source="cli")[0]

    def dead_letters(self, *, limit: int, before: int | None, reason: str | None) -> list[dict[str, Any]]:
        """As `Client.dead_letters`."""
        return list(map(dead_letter_line, self.call("dead_letters", limit=limit, before=before, reason=reason)))


def table_of(result: Any) -> Table:
    """The table of a `Result`."""
    return Table.answered(result.columns, [tuple(row) for row in result], result.tiers, result.elapsed_ms)


def dead_letter_line(dead_letter: Any) -> dict[str, Any]:
    """A dead letter as HTTP lists it: its facts, and the first 200 characters that were sent."""
    preview = dead_letter.raw[: 4 * _PREVIEW].decode("utf-8", "replace")[:_PREVIEW]
    return camel_keys({name: getattr(dead_letter, name) for name in _LINE}) | {"preview": preview}
