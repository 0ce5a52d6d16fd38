"""Commands for events: `track` stores one; `import` and `export` read and write the files of other tools."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Any

import msgspec
import typer

from lakebed.cli.exit_codes import Exit, Failure
from lakebed.cli.options import AsJson, AsOf, DryRun, json_object
from lakebed.cli.output import Progress, note, print_facts
from lakebed.cli.place import Place, for_local_object, for_object
from lakebed.clock import parse_iso
from lakebed.concurrency import Worker

__all__ = ["moment", "register"]


def track(
    place: Place,
    event: Annotated[str, typer.Argument(help="Its name.")],
    properties: Annotated[str, typer.Argument(help="A JSON object.", metavar="[PROPERTIES]")] = "{}",
    user_id: Annotated[str, typer.Option()] = "",
    anonymous_id: Annotated[str, typer.Option()] = "",
    group_id: Annotated[str, typer.Option()] = "",
    session_id: Annotated[str, typer.Option()] = "",
    timestamp: Annotated[str, typer.Option(help="When it happened, if not now (ISO 8601).")] = "",
    message_id: Annotated[str, typer.Option(help="Makes a retry store nothing.")] = "",
    as_json: AsJson = False,
) -> None:
    """Store that something happened; returns when it is on disk. The object is made if it does not exist."""
    fields = {
        "userId": user_id,
        "anonymousId": anonymous_id,
        "groupId": group_id,
        "sessionId": session_id,
        "timestamp": timestamp,
        "messageId": message_id,
    }
    message = {"type": "track", "event": event, "properties": json_object(properties, "the properties")}
    message |= {name: value for name, value in fields.items() if value}
    with place.client(make=True) as client:
        receipt = client.track(message)
    facts = {"messageId": receipt.message_id, "status": receipt.status, "seq": receipt.seq}
    print_facts(facts | ({"reason": receipt.reason} if receipt.reason else {}), as_json=as_json)
    if receipt.status == "rejected":
        raise typer.Exit(Exit.PROBLEMS)


_SHOWN = 10


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(for_object(track))
    app.command("import")(for_local_object(import_))
    app.command("export")(for_local_object(export))


def import_(
    place: Place,
    paths: Annotated[list[Path], typer.Argument(help="Files, or directories with all that is in them; - is stdin.")],
    format_name: Annotated[
        str, typer.Option("--format", help="ndjson, csv, tsv, parquet or apache; by default found out.")
    ] = "",
    columns: Annotated[
        list[str] | None, typer.Option("--map", help="Which column is which field.", metavar="FIELD=COLUMN[:TYPE]")
    ] = None,
    properties: Annotated[
        list[str] | None,
        typer.Option("--property", help="A property; by default all other columns.", metavar="[NAME=]COLUMN[:TYPE]"),
    ] = None,
    event: Annotated[str, typer.Option(help="Name of the events that have none.")] = "",
    kind: Annotated[str, typer.Option("--type", help="Their type: track, page, identify …")] = "",
    timestamp_format: Annotated[str, typer.Option(help="iso, unix, unix_ms, or as strptime has it.")] = "iso",
    timezone: Annotated[str, typer.Option(help="Time zone of times that name none.")] = "UTC",
    encoding: Annotated[str, typer.Option(help="Encoding of CSV.")] = "utf-8-sig",
    rejects: Annotated[
        Path | None, typer.Option(help="File for refused rows, with why; by default they are dead letters.")
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Import events: NDJSON, CSV, Parquet, Segment's archives, access logs; gzip and zstd are read as they are.

    Each row is stored once, also if an import is stopped, killed or run again: it continues where it ended. Times are
    taken as they are in the rows. received = stored + duplicate + rejected.
    """
    from lakebed.transfer.mapping import RowMapping
    from lakebed.transfer.source import FORMATS, inputs

    if format_name and format_name not in FORMATS:
        raise Failure(f"--format {format_name!r} is none of {', '.join(FORMATS)}")
    mapping = RowMapping(
        columns or (), properties or (), event=event, kind=kind, time_format=timestamp_format, zone=timezone
    )
    files = inputs(paths)
    choices = [format_name, columns or [], properties or [], event, kind, timestamp_format, timezone, encoding]
    mapping_id = hashlib.sha256(msgspec.json.encode(choices)).hexdigest()[:32]
    if dry_run:
        _show(files, format_name, encoding, mapping)
        return
    work = _Import(files, format_name, encoding, mapping, mapping_id, rejects)
    asyncio.run(work.into(place))
    tally = work.tally
    print_facts(msgspec.to_builtins(tally) | {"files": len(files)}, as_json=as_json)
    if tally.rejected:
        if rejects is None and not as_json:
            note("`lakebed deadletters` has refused rows, at most 1,000 of a file; --rejects FILE keeps all in a file.")
        raise typer.Exit(Exit.PROBLEMS)


def _show(files: list[Path], format_name: str, encoding: str, mapping: Any) -> None:
    """Print the first events of each file, as an import would store them. Nothing is stored."""
    from lakebed.transfer.packing import Packer
    from lakebed.transfer.source import Chain, Source

    for path in files:
        with closing(Source(path, format_name, encoding)) as source:
            packer = Packer(source, mapping, Chain())
            chunk = next(source.chunks(), None)
            if chunk is None:
                continue
            packed_rows = packer.pack(chunk)
            for item in islice(msgspec.json.decode(packed_rows.sent(frozenset())[0]), _SHOWN):
                print(msgspec.json.encode(item).decode())
            for row, reason in islice(packed_rows.refused.items(), _SHOWN):
                note(f"{path}, row {row + 1}: {reason}")


class _Import:
    """The import of several files into one object."""

    def __init__(
        self, files: list[Path], format_name: str, encoding: str, mapping: Any, mapping_id: str, rejects: Path | None
    ) -> None:
        from lakebed.transfer.importer import Tally

        self._files = files
        self._source_options = (format_name, encoding)
        self._mapping = mapping
        self._mapping_id = mapping_id
        self._rejects = rejects
        self.tally = Tally()

    async def into(self, place: Place) -> None:
        """Import all files, one after another."""
        object_class = place.object_class(make=True)
        async with await object_class(place.name, root=place.root).open() as analytics:
            await self._import_all(analytics)

    async def _import_all(self, analytics: Any) -> None:
        from lakebed.transfer.positions import Positions, Rejects

        total = sum(path.stat().st_size for path in self._files if path.exists())
        with (
            Worker("import") as worker,
            closing(await worker.run(Rejects, self._rejects)) as rejects,
            Progress("Importing", total) as progress,
        ):
            positions = await worker.run(Positions, analytics.directory)
            try:
                before = 0
                for path in self._files:
                    await self._import_file(path, analytics, positions, worker, rejects, progress, before)
                    before += path.stat().st_size if path.exists() else 0
            finally:
                await worker.run(positions.close)

    async def _import_file(
        self, path: Path, analytics: Any, positions: Any, worker: Worker, rejects: Any, progress: Progress, before: int
    ) -> None:
        from lakebed.transfer.importer import Importer
        from lakebed.transfer.source import Source

        source = await worker.run(Source, path, *self._source_options)
        earlier = self.tally
        importer = Importer(
            analytics,
            source,
            self._mapping,
            self._mapping_id,
            positions=positions,
            worker=worker,
            rejects=rejects,
            moved=lambda source, tally: progress.move(before + source.done, earlier.received + tally.received),
        )
        try:
            await importer.run()
        finally:
            self.tally = earlier + importer.tally
            await worker.run(source.close)


_STEP = 50_000


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
        raise Failure("--start and --end cannot be used with a query", hint="Put the times in its WHERE")
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
    """All events that are stored now, in pieces. Events that arrive during the export are left out."""
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
        raise Failure(f"{text!r} is not a time", hint="Write it as 2026-01-31 or 2026-01-31T12:00:00Z") from None


@contextmanager
def _whole(path: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name only when its whole content is on disk."""
    if path == Path("-"):
        # With PYTHONUNBUFFERED, stdout is a raw file, whose `write` may write only a part, and returns its length.
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
