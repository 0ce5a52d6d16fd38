"""`python -m lakebed`: what it is, `serve` and `check`."""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lakebed.errors import LakebedError
from lakebed.kinds import KINDS
from lakebed.nameplate import Nameplate, directory_of

_ABOUT = """Lakebed {version}: product analytics that you import.

    from lakebed import Analytics

    async with Analytics("tom", root="data") as tom:
        await tom.track("Seen", {{"page": "/"}}, user_id="alice")

Commands:
    python -m lakebed serve [--root data] [--host 127.0.0.1] [--port 8080]    HTTP for this machine
    python -m lakebed check ROOT/NAME                                         is an object as promised?
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command. Gives the exit status: 0 well, 1 problems, 2 it could not be done."""
    parsed = _parser().parse_args(arguments)
    if parsed.command is None:
        print(_ABOUT.format(version=importlib.metadata.version("lakebed")), end="")  # noqa: T201 - its purpose
        return 0
    try:
        return int(parsed.command(parsed))
    except (LakebedError, OSError) as error:
        print(f"lakebed: {error}", file=sys.stderr)  # noqa: T201 - the same
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m lakebed", description="Product analytics that you import.")
    parser.add_argument("--version", action="version", version=f"lakebed {importlib.metadata.version('lakebed')}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="{serve,check}")
    serve = commands.add_parser("serve", help="HTTP for this machine; it has no authentication")
    serve.add_argument("--root", default="data", help="directory of the objects (default: %(default)s)")
    serve.add_argument("--name", help="serve this object only; by default the one that a request's key is for")
    serve.add_argument("--host", default="127.0.0.1", help="a loopback address (default: %(default)s)")
    serve.add_argument("--port", type=int, default=8080, help="default: %(default)s; 0 takes a free one")
    serve.set_defaults(command=_serve)
    check = commands.add_parser("check", help="look for problems in an object; exit status 1 if there are any")
    check.add_argument("object", type=Path, metavar="ROOT/NAME", help="its directory")
    check.set_defaults(command=_check)
    return parser


def _serve(parsed: argparse.Namespace) -> int:
    missing = [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        print(  # noqa: T201 - its purpose
            f"lakebed: serve needs {' and '.join(missing)}: pip install 'lakebed[server]'", file=sys.stderr
        )
        return 2
    from lakebed.analytics import Analytics  # noqa: PLC0415 - only this command pays for it
    from lakebed.api import create_app, serve  # noqa: PLC0415 - an optional extra
    from lakebed.namespace import Namespace  # noqa: PLC0415 - as Analytics

    target: Any = Analytics(parsed.name, root=parsed.root) if parsed.name else Namespace(parsed.root, Analytics)
    serve(create_app(target), parsed.host, parsed.port)
    return 0


def _check(parsed: argparse.Namespace) -> int:
    path: Path = parsed.object.absolute()
    plate = Nameplate.read(directory_of(path.parent, path.name))
    if plate is None:
        print(f"lakebed: {parsed.object} is not an object: it has no object.json", file=sys.stderr)  # noqa: T201
        return 2
    from lakebed.analytics import Analytics  # noqa: PLC0415 - only this command pays for it

    problems = asyncio.run(_problems(KINDS.get(plate.kind, Analytics), path))
    for problem in problems:
        print(problem)  # noqa: T201 - its purpose
    if not problems:
        print(f"{parsed.object}: no problems")  # noqa: T201 - the same
    return 1 if problems else 0


async def _problems(kind: type[Any], path: Path) -> list[str]:
    async with kind(path.name, root=path.parent) as found:
        return [f"{problem.where}: {problem.message}" for problem in await found.check()]


if __name__ == "__main__":
    sys.exit(main())
