"""The program: its commands, in the order of the help, and how it reports errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lakebed.cli import billing, deadletters, keys, maintenance, mcp, objects, people, query, serve, transfer
from lakebed.cli.documents import COHORTS, DATASETS
from lakebed.cli.exit_codes import EXPECTED, Exit, code_of, message_of

__all__ = ["app", "program", "run"]


class _Program(TyperGroup):
    """Prints an expected error as one line on stderr and ends with its code. A traceback is for bugs."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Nobody reads the buffered output: at its end the interpreter would try to write it and report an error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(Exit.CLOSED) from None
        except EXPECTED as error:
            print(f"lakebed: {message_of(error)}", file=sys.stderr)
            raise typer.Exit(code_of(error)) from None


app = typer.Typer(
    cls=_Program,
    name="lakebed",
    help="Product analytics in a directory: durable events, live counters, rollups, an Iceberg archive.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"lakebed {version('lakebed')}")
        raise typer.Exit


@app.callback()
def _lakebed(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


for _commands in (
    serve,
    transfer,
    query,
    COHORTS,
    billing,
    DATASETS,
    people,
    maintenance,
    keys,
    deadletters,
    objects,
    mcp,
):
    _commands.register(app)


def _set_variables(command: Any, prefix: str) -> None:
    """Give every option of `command` and of its subcommands an environment variable, made of the option's name."""
    for name, subcommand in getattr(command, "commands", {}).items():
        _set_variables(subcommand, f"{prefix}_{name.replace('-', '_').upper()}")
    for parameter in command.params:
        if prefix != "LAKEBED" and parameter.param_type_name == "option" and parameter.envvar is None:
            parameter.envvar = f"{prefix}_{parameter.opts[0].strip('-').replace('-', '_').upper()}"


program = typer.main.get_command(app)
"""The command that `run` runs."""
_set_variables(program, "LAKEBED")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    try:
        program(args=arguments, prog_name="lakebed")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return Exit.OK
