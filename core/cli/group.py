"""The commands of the kernel and, behind them, those that plugins add."""

from __future__ import annotations

from typing import Any

import typer

from .failures import GuardedGroup


class MlxrayGroup(GuardedGroup):
    """All commands; plugins are loaded when the list, or a name that is not the kernel's, asks."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names of registered commands, then the kernel's in their order."""
        from ..plugins.registry import registry

        return [*registry.names("command"), *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name; None if there is none."""
        from ..errors import PluginError
        from ..plugins.registry import registry

        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name.startswith("-"):
            return own
        try:
            found = registry.get("command", cmd_name)
        except PluginError as error:
            if error.__cause__ is not None:  # it exists, and its plugin failed
                raise
            return None
        app = typer.Typer(add_completion=False, rich_markup_mode="rich")
        app.command(found.name, context_settings={"help_option_names": ["-h", "--help"]})(
            found.load()
        )
        return typer.main.get_command(app)
