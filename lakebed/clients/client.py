"""Client: the verbs of one object as blocking calls, with answers as tables. LocalClient: of an object open here."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, Self

import msgspec

from lakebed.interface.signature import camel_keys
from lakebed.interface.verbs import VERBS

__all__ = ["Client", "LocalClient", "Table", "dead_letter_line", "table_of", "to_json"]


class Table(msgspec.Struct, frozen=True):
    """Rows under named columns.

    Attributes:
        columns: the names of the columns.
        rows: the values, in the order of the columns.
        origin: one line that names the tiers of the rows and the time that the answer took; empty if unknown.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    origin: str = ""

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> Self:
        """A table with these `columns` of records; a cell is None if the record lacks the column."""
        return cls(columns, [[record.get(column) for column in columns] for record in records])

    @classmethod
    def answered(
        cls, columns: Sequence[str], rows: Sequence[Sequence[Any]], tiers: Sequence[str], elapsed_ms: float
    ) -> Self:
        """The table of an answer that was read from `tiers` in `elapsed_ms`."""
        noun = "row" if len(rows) == 1 else "rows"
        origin = f"{len(rows):,} {noun} from {' + '.join(tiers) or 'no tier'} in {elapsed_ms:.0f} ms"
        return cls(columns, rows, origin)

    def records(self) -> list[dict[str, Any]]:
        """The rows as mappings."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def to_json(value: Any) -> str:
    """`value` as JSON on one line. Times are ISO 8601; values of types that JSON lacks become text."""
    return msgspec.json.encode(value, enc_hook=str).decode()


_LINE = ("id", "received_at", "reason", "source", "key", "message_id", "tries", "tried_at", "size")
_PREVIEW = 200


class Client(Protocol):
    """The verbs of one object. Calls block; several threads may not share a client."""

    def call(self, verb: str, *positional: Any, **named: Any) -> Any:
        """The answer of a verb of the catalogue, as the object's method gives it."""
        ...

    def table(self, verb: str, *positional: Any, **named: Any) -> Table:
        """All rows of `query`, `template` or a report, however many. The arguments of a report are passed by name."""
        ...

    def track(self, event: Mapping[str, Any]) -> Any:
        """Store one event, in Segment's names. Returns its `Receipt`; a rejected event is not an error."""
        ...

    def dead_letters(self, *, limit: int, before: int | None, reason: str | None) -> list[dict[str, Any]]:
        """Dead letters, newest first, with HTTP's field names, and the first 200 characters of each event as sent."""
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
        """Implements `Client.call`."""
        name = VERBS[verb].name if self._trusted else VERBS[verb].untrusted or verb
        if name == "report_untrusted":
            return self._connection.report_untrusted(verb, named)
        return operator.attrgetter(name)(self._connection)(*positional, **named)

    def table(self, verb: str, *positional: Any, **named: Any) -> Table:
        """Implements `Client.table`."""
        return table_of(self.call(verb, *positional, **named))

    def track(self, event: Mapping[str, Any]) -> Any:
        """Implements `Client.track`."""
        return self._connection.batch([event], source="cli")[0]

    def dead_letters(self, *, limit: int, before: int | None, reason: str | None) -> list[dict[str, Any]]:
        """Implements `Client.dead_letters`."""
        return list(map(dead_letter_line, self.call("dead_letters", limit=limit, before=before, reason=reason)))


def table_of(result: Any) -> Table:
    """The table of a `Result`."""
    return Table.answered(result.columns, [tuple(row) for row in result], result.tiers, result.elapsed_ms)


def dead_letter_line(dead_letter: Any) -> dict[str, Any]:
    """A dead letter as the HTTP API lists it: its fields, and the first 200 characters of the event as it was sent."""
    preview = dead_letter.raw[: 4 * _PREVIEW].decode("utf-8", "replace")[:_PREVIEW]
    return camel_keys({name: getattr(dead_letter, name) for name in _LINE}) | {"preview": preview}
