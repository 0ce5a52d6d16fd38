"""`track`: one event."""

from __future__ import annotations

from typing import Annotated

import typer

from lakebed.cli.exit_codes import Exit
from lakebed.cli.options import AsJson, json_object
from lakebed.cli.output import print_facts
from lakebed.cli.place import Place, for_object

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(for_object(track))


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
    message = {"type": "track", "event": event, "properties": json_object(properties, "the properties are")}
    message |= {name: value for name, value in fields.items() if value}
    with place.client(make=True) as client:
        receipt = client.track(message)
    facts = {"messageId": receipt.message_id, "status": receipt.status, "seq": receipt.seq}
    print_facts(facts | ({"reason": receipt.reason} if receipt.reason else {}), as_json=as_json)
    if receipt.status == "rejected":
        raise typer.Exit(Exit.PROBLEMS)
