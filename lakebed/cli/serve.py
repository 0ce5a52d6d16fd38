"""`init` makes a directory to begin with; `serve` starts the server for it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lakebed.cli.exit_codes import Failure, need
from lakebed.cli.options import AsJson, Class, Name, Root
from lakebed.cli.output import note, print_facts
from lakebed.cli.place import Place, imported

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(init)
    app.command()(serve)


def init(
    root: Root = Path("data"),
    name: Name = "default",
    no_keys: Annotated[
        bool, typer.Option("--no-keys", help="No keys: the server is for this machine and takes any key.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a directory with a lakebed.toml to edit, an object, and its first keys, shown this once.

    Existing files, objects and keys stay as they are.
    """
    from lakebed.auth.keys import Keys
    from lakebed.settings import FILE_NAME

    settings = root / FILE_NAME
    made: dict[str, Any] = {"root": str(root), "object": name, "settings": str(settings)}
    root.mkdir(parents=True, exist_ok=True)
    if not settings.exists():
        settings.write_text(settings_text(), "utf-8")
    with Place(root, name).connection(make=True):
        pass
    keys = Keys(root)
    if not no_keys and not any(key.object == name and key.revoked_us is None for key in keys.list()):
        for scope in ("write", "read", "admin"):
            made[f"{scope}_key"] = keys.create(name, scope, "made by init")[1]
    print_facts(made, as_json=as_json)
    if not as_json:
        _note_next_steps(root, name, made)


def settings_text() -> str:
    """A lakebed.toml that explains every setting and sets none."""
    from lakebed.settings import Settings

    _, _, attributes = (Settings.__doc__ or "").partition("Attributes:\n")
    meanings = re.findall(r"^ {8}(\w+): (.*?)(?=^ {8}\w+: |\Z)", attributes, re.MULTILINE | re.DOTALL)
    defaults = Settings()
    lines = ["# Settings of all objects here. LAKEBED_* variables and arguments in code go before them.", ""]
    for name, meaning in meanings:
        lines += [f"# {line.strip()}" for line in meaning.strip().splitlines()]
        lines += [f"# {name} = {_toml(getattr(defaults, name))}", ""]
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, (bool, str)):
        return f'"{value}"' if isinstance(value, str) else str(value).lower()
    return f"{value:_}" if isinstance(value, int) else str(value)


def _note_next_steps(root: Path, name: str, made: dict[str, Any]) -> None:
    where = "" if root == Path("data") else f" --root {root}"
    which = "" if name == "default" else f" --object {name}"
    if any(fact.endswith("_key") for fact in made):
        note("The keys are shown this once. `lakebed keys` makes others.")
    note(
        f"""
Next:
  lakebed track "Signed Up" '{{"plan": "pro"}}' --user-id ann{where}{which}
  lakebed query "SELECT event, count(*) AS n FROM events GROUP BY ALL"{where}{which}
  lakebed serve{where}"""
    )


def serve(
    root: Root = Path("data"),
    name: Annotated[
        str,
        typer.Option(
            "--object",
            "-o",
            envvar="LAKEBED_OBJECT",
            help="Serve this object only; by default the object of each request's key.",
        ),
    ] = "",
    class_name: Class = "",
    host: Annotated[str, typer.Option(help="Address to listen on; without keys, one of this machine only.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    drain: Annotated[float, typer.Option(min=0, help="Seconds for requests under way when it stops.")] = 10.0,
    max_body_bytes: Annotated[int, typer.Option(min=1, help="Bytes of one request, as sent or inflated.")] = 5 << 20,
    metrics_token: Annotated[str, typer.Option(help="A request that shows it may read all of /metrics.")] = "",
    client_ip: Annotated[str, typer.Option(help="The part of it that is stored: whole, truncated or none.")] = "whole",
    trusted_proxy: Annotated[
        list[str] | None, typer.Option(help="An address or network whose X-Forwarded-For is trusted.")
    ] = None,
    places: Annotated[Path | None, typer.Option(help="A MaxMind file: adds the place of an address.")] = None,
    log_format: Annotated[str, typer.Option(help="json or text; by default text on a terminal.")] = "",
    log_level: Annotated[str, typer.Option(help="DEBUG, INFO, WARNING: without requests, or ERROR.")] = "INFO",
) -> None:
    """Serve objects over HTTP, with the page at /, until Ctrl-C or SIGTERM."""
    need("serve", ("starlette", "uvicorn"), "server")
    _one_of("--client-ip", client_ip, ("whole", "truncated", "none"))
    _one_of("--log-format", log_format, ("", "json", "text"))
    _one_of("--log-level", log_level.upper(), ("DEBUG", "INFO", "WARNING", "ERROR"))
    from lakebed.api import create_app
    from lakebed.api import serve as serve_app
    from lakebed.api.enrichment.enrichment import Enrichment

    ip: Any = client_ip  # the type is a Literal, and the value was checked above
    app = create_app(
        _served(root, name, class_name),
        max_body_bytes=max_body_bytes,
        metrics_token=metrics_token or None,
        enrichment=Enrichment(ip=ip, trusted_proxies=trusted_proxy or (), places=places),
    )
    plain = log_format == "text" or (not log_format and sys.stderr.isatty())
    serve_app(app, host, port, drain_s=drain, plain_logs=plain, log_level=log_level.upper())


def _served(root: Path, name: str, class_name: str) -> Any:
    """The namespace, or the one object that `name` names."""
    from lakebed.analytics import Analytics
    from lakebed.objects.namespace import Namespace

    object_class: type[Any] | None = imported(class_name) if class_name else None
    return (object_class or Analytics)(name, root=root) if name else Namespace(root, object_class)


def _one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise Failure(f"{option} {value!r} is none of {', '.join(filter(None, allowed))}")
