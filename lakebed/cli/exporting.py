"""`export`: events, or the rows of a query, into a file for other tools."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from lakebed.cli.exit_codes import Failure
from lakebed.cli.options import AsJson, AsOf
from lakebed.cli.output import print_facts
from lakebed.cli.place import Place, for_local_object
from lakebed.cli.progress import Progress
from lakebed.clock import parse_iso

__all__ = ["moment", "register"]

_STEP = 50_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export")(for_local_object(export))


def export(
    place: Place,
    file: Annotated[Path, typer.Argument(help="The file; - is stdout. It appears when it is complete, or not at all.")],
    sql: Annotated[str, typer.Option(help="The rows of this SELECT; by default all events.")] = "",
    start: Annotated[str, typer.Option(help="Events from this time on (ISO 8601).", metavar="TIME")] = "",
    end: Annotated[str, typer.Option(help="Events before this time.", metavar="TIME")] = "",
    as_of: AsOf = "",
    format_name: Annotated[str, typer.Option("--format", help="ndjson, csv or parquet; by default by the name.")] = "",
    as_json: AsJson = False,
) -> None:
    """Write events, in the order in which they were stored, or the rows of a query.

    NDJSON of events is in Segment's form: `lakebed import` and every tool that takes Segment's archives read it. Events
    are read 50,000 at a time, however many there are; a query's rows are limited by `query_max_rows`.
    """
    from lakebed.transfer.writers import FORMATS, writer

    file_format = format_name or {".csv": "csv", ".parquet": "parquet"}.get(file.suffix, "ndjson")
    if file_format not in FORMATS:
        raise Failure(f"--format {file_format!r} is none of {', '.join(FORMATS)}")
    if sql and (start or end):
        raise Failure("--start and --end are for events", hint="Say them in the SQL")
    rows = 0
    with place.connection() as connection, _whole(file) as out:
        count = connection.stats().next_seq
        if sql:
            tables = iter([connection.query(sql, as_of=as_of or None).arrow()])
        else:
            tables = _events(connection, start, end, as_of)
        total = 0 if sql else count
        with writer(file_format, out, as_events=not sql) as write, Progress("Exporting", total) as progress:
            for table in tables:
                write(table)
                rows += table.num_rows
                progress.move(int(table["seq"][-1].as_py()) if not sql and table.num_rows else 0, rows)
    if file != Path("-"):
        print_facts({"file": str(file), "rows": rows, "format": file_format}, as_json=as_json)


def _events(connection: Any, start: str, end: str, as_of: str) -> Iterator[Any]:
    """All events that are stored now, in pieces. Events that arrive meanwhile are left out."""
    from lakebed.events.event import BASE_COLUMNS

    conditions = ["seq >= $first", "seq < $stop"]
    params: dict[str, Any] = {}
    for text, condition, parameter in ((start, "timestamp >= $start", "start"), (end, "timestamp < $end", "end")):
        if text:
            conditions.append(condition)
            params[parameter] = moment(text)
    sql = f"SELECT {', '.join(BASE_COLUMNS)} FROM events WHERE {' AND '.join(conditions)} ORDER BY seq"
    stop = connection.stats().next_seq
    for first in range(0, stop, _STEP):
        piece = params | {"first": first, "stop": min(first + _STEP, stop)}
        yield connection.query(sql, piece, as_of=as_of or None, limit=_STEP).arrow()


def moment(text: str) -> datetime:
    """The instant that `text` names; UTC if it has no time zone. Raises Failure if it is not a time."""
    try:
        return parse_iso(text)
    except ValueError:
        raise Failure(f"{text!r} is not a time", hint="Say it as 2026-01-31 or 2026-01-31T12:00:00Z") from None


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name when all of it is on disk."""
    if path == Path("-"):
        # With PYTHONUNBUFFERED it is a raw file, whose write may write a part and return its length.
        out: Any = sys.stdout.buffer
        whole = io.BufferedWriter(out) if isinstance(out, io.RawIOBase) else out
        yield whole
        whole.flush()
        if whole is not out:
            whole.detach()
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with draft.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
