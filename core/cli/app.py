"""The commands, put together."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .. import __version__
from .doctor import doctor
from .generate import generate
from .group import MlxrayGroup
from .plugins import plugins
from .points import points
from .run import AnalysisGroup, run
from .verify import verify

HELP = {"help_option_names": ["-h", "--help"]}


def _version(value: bool) -> None:
    if value:
        typer.echo(f"mlxray {__version__}")
        raise typer.Exit


def command() -> Any:
    """All commands, as typer makes them."""
    app = typer.Typer(
        name="mlxray",
        cls=MlxrayGroup,
        add_completion=False,
        invoke_without_command=True,
        context_settings=HELP,
    )
    app.callback()(start)
    app.command(context_settings=HELP)(generate)
    runs = typer.Typer(
        cls=AnalysisGroup,
        invoke_without_command=True,
        subcommand_metavar="[NAME]…",
        context_settings=HELP,
    )
    runs.callback()(run)
    app.add_typer(runs, name="run")
    app.command(context_settings=HELP)(points)
    app.command(context_settings=HELP)(verify)
    app.command(context_settings=HELP)(plugins)
    app.command(context_settings=HELP)(doctor)
    return typer.main.get_command(app)


def start(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the version.", metavar=""
        ),
    ] = False,
    debug: Annotated[
        bool,
        typer.Option(
            "--debug", help="With any command: show the traceback of an error.", metavar=""
        ),
    ] = False,
) -> None:
    """Look inside language models: what each layer predicts, which heads look where, and why."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
