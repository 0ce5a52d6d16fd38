"""`init` and `serve`: a directory to begin with, and the server over it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Any

import typer

from lakebed.cli.failure import Failure
from lakebed.cli.options import Class, Root

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(serve)


def serve(
    root: Root = Path("data"),
    class_name: Class = "",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
) -> None:
    """Serve the objects of a directory over HTTP until Ctrl-C or SIGTERM."""
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise Failure(f"serve needs {' and '.join(missing)}", hint="pip install 'lakebed[server]'")
    from lakebed.api import create_app
    from lakebed.api import serve as serve_app
    from lakebed.cli.target import imported
    from lakebed.namespace import Namespace

    object_class: type[Any] | None = imported(class_name) if class_name else None
    serve_app(create_app(Namespace(root, object_class)), host, port)
