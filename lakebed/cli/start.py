"""`init` and `serve`: a directory to begin with, and the server over it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated, Any

import typer

from lakebed.cli.failure import Failure
from lakebed.cli.options import AsJson, Class, Name, Root
from lakebed.cli.output import note, print_facts

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

    What is there already stays as it is.
    """
    from lakebed.cli.target import Place
    from lakebed.keys import Keys
    from lakebed.settings import FILE_NAME

    settings = root / FILE_NAME
    made: dict[str, Any] = {"root": str(root), "object": name, "settings": str(settings)}
    root.mkdir(parents=True, exist_ok=True)
    if not settings.exists():
        settings.write_text(settings_text(), "utf-8")
    with Place(root, name).local(make=True):
        pass
    keys = Keys(root)
    if not no_keys and not any(key.object == name and key.revoked_us is None for key in keys.list()):
        for scope in ("write", "read", "admin"):
            made[f"{scope}_key"] = keys.create(name, scope, "made by init")[1]
    print_facts(made, as_json=as_json)
    if not as_json:
        _say_next(root, name, made)


def settings_text() -> str:
    """A lakebed.toml in which every setting is explained and none is set."""
    import re

    from lakebed.settings import Settings

    _, _, said = (Settings.__doc__ or "").partition("Attributes:\n")
    meanings = re.findall(r"^ {8}(\w+): (.*?)(?=^ {8}\w+: |\Z)", said, re.MULTILINE | re.DOTALL)
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


def _say_next(root: Path, name: str, made: dict[str, Any]) -> None:
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
            help="Serve this object only; by default the one that a request's key is for.",
        ),
    ] = "",
    class_name: Class = "",
    host: Annotated[str, typer.Option(help="Address to listen on; without keys, one of this machine only.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    drain: Annotated[float, typer.Option(min=0, help="Seconds that requests under way have when it stops.")] = 10.0,
    plain_logs: Annotated[bool, typer.Option("--plain-logs", help="Lines for people instead of JSON.")] = False,
    log_level: Annotated[str, typer.Option(help="WARNING leaves out a line for each request.")] = "INFO",
    metrics_token: Annotated[
        str, typer.Option(help="Who shows it as Bearer reads all of /metrics; needed where there are keys.")
    ] = "",
) -> None:
    """Serve objects over HTTP, with the page at /, until Ctrl-C or SIGTERM."""
    missing = [module for module in ("starlette", "uvicorn") if importlib.util.find_spec(module) is None]
    if missing:
        raise Failure(f"serve needs {' and '.join(missing)}", hint="pip install 'lakebed[server]'")
    from lakebed.api import create_app
    from lakebed.api import serve as serve_app
    from lakebed.cli.target import imported
    from lakebed.namespace import Namespace

    object_class: type[Any] | None = imported(class_name) if class_name else None
    target: Any = Namespace(root, object_class)
    if name:
        from lakebed.analytics import Analytics

        target = (object_class or Analytics)(name, root=root)
    app = create_app(target, metrics_token=metrics_token)
    serve_app(app, host, port, drain_s=drain, plain_logs=plain_logs, log_level=log_level)
