"""`track`: one event."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from lakebed.cli.exit_codes import Exit, Failure
from lakebed.cli.options import AsJson, Class, Key, Name, Root, Url
from lakebed.cli.output import print_facts

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(track)


def track(
    event: Annotated[str, typer.Argument(help="Its name.")],
    properties: Annotated[str, typer.Argument(help="A JSON object.", metavar="[PROPERTIES]")] = "{}",
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    user_id: Annotated[str, typer.Option()] = "",
    anonymous_id: Annotated[str, typer.Option()] = "",
    group_id: Annotated[str, typer.Option()] = "",
    session_id: Annotated[str, typer.Option()] = "",
    timestamp: Annotated[str, typer.Option(help="When it happened, if not now (ISO 8601).")] = "",
    message_id: Annotated[str, typer.Option(help="Makes a retry store nothing.")] = "",
    as_json: AsJson = False,
) -> None:
    """Store that something happened; returns when it is on disk. The object is made if it does not exist."""
    from lakebed.clients.target import Place

    given = {
        "userId": user_id,
        "anonymousId": anonymous_id,
        "groupId": group_id,
        "sessionId": session_id,
        "timestamp": timestamp,
        "messageId": message_id,
    }
    sent = {name: value for name, value in given.items() if value}
    with Place(root, name, class_name, url, key).target(make=True) as target:
        receipt = target.track({"type": "track", "event": event, "properties": _object(properties), **sent})
    print_facts(receipt, as_json=as_json)
    if receipt["status"] == "rejected":
        raise typer.Exit(Exit.PROBLEMS)


def _object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise Failure(f"the properties are not a JSON object: {error}") from None
