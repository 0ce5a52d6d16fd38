"""`export`: events, or the rows of a query, into a file that other tools read."""

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
from lakebed.cli.options import AsJson, AsOf, Class, Name, Root
from lakebed.cli.output import print_facts
from lakebed.cli.progress import Progress
from lakebed.moments import parse_iso

__all__ = ["moment", "register"]

_STEP = 50_000


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export")(export)


def export(
    file: Annotated[
        Path,
        typer.Argument(help="Where to; - is stdout. It is there whole, or not at all."),
    ],
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
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
    from lakebed.clients.target import Place
    from lakebed.transfer.writers import FORMATS, writer

    chosen = format_name or {".csv": "csv", ".parquet": "parquet"}.get(file.suffix, "ndjson")
    if chosen not in FORMATS:
        raise Failure(f"--format {chosen!r} is none of {', '.join(FORMATS)}")
    if sql and (start or end):
        raise Failure("--start and --end are for events", hint="Say them in the SQL")
    rows = 0
    with Place(root, name, class_name).local() as found, _whole(file) as out:
        count = found.stats().next_seq
        tables = iter([found.query(sql, as_of=as_of or None).arrow()]) if sql else _events(found, start, end, as_of)
        with writer(chosen, out, as_events=not sql) as write, Progress("Exporting", 0 if sql else count) as progress:
            for table in tables:
                write(table)
                rows += table.num_rows
                progress.move(int(table["seq"][-1].as_py()) if not sql and table.num_rows else 0, rows)
    if file != Path("-"):
        print_facts({"file": str(file), "rows": rows, "format": chosen}, as_json=as_json)


def _events(found: Any, start: str, end: str, as_of: str) -> Iterator[Any]:
    """All events that are there now, a piece at a time. What comes while this runs is left out."""
    from lakebed.events.event import BASE_COLUMNS

    conditions = ["seq >= $first", "seq < $stop"]
    params: dict[str, Any] = {}
    for text, condition, parameter in ((start, "timestamp >= $start", "start"), (end, "timestamp < $end", "end")):
        if text:
            conditions.append(condition)
            params[parameter] = moment(text)
    sql = f"SELECT {', '.join(BASE_COLUMNS)} FROM events WHERE {' AND '.join(conditions)} ORDER BY seq"
    stop = found.stats().next_seq
    for first in range(0, stop, _STEP):
        piece = params | {"first": first, "stop": min(first + _STEP, stop)}
        yield found.query(sql, piece, as_of=as_of or None, limit=_STEP).arrow()


def moment(text: str) -> datetime:
    """The instant that `text` is; UTC where it does not say a zone. Raises Failure where it is none."""
    try:
        return parse_iso(text)
    except ValueError:
        raise Failure(f"{text!r} is not a time", hint="Say it as 2026-01-31 or 2026-01-31T12:00:00Z") from None


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name when all of it is on disk."""
    if path == Path("-"):
        # With PYTHONUNBUFFERED it is a raw file, whose write may take a part and say so.
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
