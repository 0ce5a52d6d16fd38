"""`mcp`: the tools of an assistant for one object."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import Annotated

import typer

from lakebed.cli.exit_codes import Failure, need
from lakebed.cli.output import note
from lakebed.cli.place import Place, for_object

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(for_object(mcp))


def mcp(
    place: Place,
    http: Annotated[
        str,
        typer.Option(help="Serve at this address of this machine instead of stdio, under /mcp.", metavar="HOST:PORT"),
    ] = "",
) -> None:
    """Read-only tools for an assistant (Model Context Protocol), on stdio, for an object here or on a server."""
    need("mcp", ("mcp", "starlette", "uvicorn"), "mcp")
    from lakebed.mcp.server import make_app, run_stdio

    host, port = _address(http) if http else ("", 0)
    with place.client(trusted=False) as client:
        if not http:
            asyncio.run(run_stdio(client))
            return
        import uvicorn

        note(f"lakebed: tools at http://{http}/mcp")
        uvicorn.run(make_app(client, [http, f"localhost:{port}"]), host=host, port=port, log_level="warning")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) <= 65_535:  # noqa: PLR2004 - the range of ports
        raise Failure(f"--http {text!r} is not an address with a port", hint="Write it as 127.0.0.1:8081")
    try:
        is_local = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        is_local = False
    if not is_local:
        raise Failure(
            f"--http {text}: the tools need no key, so they are served to this machine only",
            hint="Use 127.0.0.1, and a proxy that authenticates in front of it",
        )
    return host.strip("[]"), int(port)
