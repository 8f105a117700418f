"""``mlxray run NAME``: any registered analysis, a stranger's included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from ..display import show_text
from .options import Json
from .show import new_table
from .terminal import output, print_json

if TYPE_CHECKING:
    from rich.table import Table


class AnalysisGroup(TyperGroup):
    """A group whose commands are the registered analyses."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of the analyses that work."""
        from ..plugins.registry import registry

        return registry.names("analysis")

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The analysis as a command.

        Raises:
            PluginError: if there is none of that name; the message says what is near, or what
                is wrong with it.
        """
        from ..plugins.registry import registry
        from .build import analysis_command

        if cmd_name.startswith("-"):
            return None  # an option, about which the parser has something to say
        return analysis_command(registry.get("analysis", cmd_name))


def run(context: typer.Context, json: Json = False) -> None:
    """Run an analysis; without a name, list them.

    `mlxray run NAME --help` shows what an analysis takes.
    """
    if context.invoked_subcommand is not None:
        if json:
            raise typer.BadParameter("put it behind the analysis' name.", param_hint="--json")
        return
    from ..plugins.registry import registry

    analyses = [registry.get("analysis", name) for name in registry.names("analysis")]
    if json:
        print_json(
            [{"name": a.name, "summary": a.summary, "result": a.result.__name__} for a in analyses]
        )
    elif not analyses:
        output().print("no analysis is installed; `mlxray plugins` shows what is wrong.")
    else:
        output().print(_table(analyses))
        output().print("\nmlxray run NAME --help shows what one takes.", style="dim")


def _table(analyses: list[Any]) -> Table:
    from rich.text import Text

    made = new_table("analysis", "what it does")
    for analysis in analyses:
        summary = show_text(analysis.summary.replace("``", "`"))
        made.add_row(Text(analysis.name, style="cyan"), Text(summary))
    return made
