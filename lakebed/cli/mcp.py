"""`mcp`: an object as tools of an assistant."""

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
from pathlib import Path
from typing import Annotated

import typer

from lakebed.cli.exit_codes import Failure
from lakebed.cli.options import Class, Key, Name, Root, Url
from lakebed.cli.output import note

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(mcp)


def mcp(
    root: Root = Path("data"),
    name: Name = "default",
    class_name: Class = "",
    url: Url = "",
    key: Key = "",
    http: Annotated[
        str,
        typer.Option(help="Serve at this address of this machine instead of stdio, under /mcp.", metavar="HOST:PORT"),
    ] = "",
) -> None:
    """Read-only tools for an assistant (Model Context Protocol), on stdio; of an object here or of a server."""
    missing = [module for module in ("mcp", "starlette", "uvicorn") if importlib.util.find_spec(module) is None]
    if missing:
        raise Failure(f"mcp needs {' and '.join(missing)}", hint="pip install 'lakebed[mcp]'")
    from lakebed.clients.target import Place
    from lakebed.mcp.server import make_app, run_stdio

    host, port = _address(http) if http else ("", 0)
    with Place(root, name, class_name, url, key).target(trusting=False) as target:
        if not http:
            asyncio.run(run_stdio(target))
            return
        import uvicorn

        note(f"lakebed: tools at http://{http}/mcp")
        uvicorn.run(make_app(target, [http, f"localhost:{port}"]), host=host, port=port, log_level="warning")


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) <= 65_535:  # noqa: PLR2004 - what ports there are
        raise Failure(f"--http is {text!r}", hint="Say it as 127.0.0.1:8081")
    try:
        is_here = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        is_here = False
    if not is_here:
        raise Failure(
            f"--http {text}: the tools ask for no key, so they are served to this machine only",
            hint="Use 127.0.0.1, and a proxy that authenticates in front of it",
        )
    return host.strip("[]"), int(port)
