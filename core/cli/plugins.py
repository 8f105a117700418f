"""``mlxray plugins``: what is installed, from where, and whether it works."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from ..display import show_text
from .options import Json
from .show import new_table
from .terminal import output, print_json

if TYPE_CHECKING:
    from rich.table import Table

    from ..plugins.registry import Row


def plugins(json: Json = False) -> None:
    """What is installed, from where, and whether it works."""
    rows = all_rows()
    if json:
        print_json([plain(row) for row in rows])
    else:
        output().print(plugin_table(rows))


def all_rows() -> list[Row]:
    """The registry's rows, by kind and name; what it would warn about stands in them."""
    from ..plugins.registry import PluginWarning, registry

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)
        rows = registry.rows()
    return sorted(rows, key=lambda row: (row.kind == "-", row.kind, row.name))


def plain(row: Row) -> dict[str, Any]:
    """A row as JSON."""
    return {
        "name": row.name,
        "kind": row.kind,
        "from": origin(row),
        "status": row.status,
        "plugin": row.plugin,
    }


def origin(row: Row) -> str:
    """Distribution and version."""
    return row.distribution if row.version == "-" else f"{row.distribution} {row.version}"


def plugin_table(rows: list[Row]) -> Table:
    """The rows as a table; what does not work is red and keeps its whole reason."""
    from rich.text import Text

    made = new_table("name", "kind", "from", "status")
    for row in rows:
        cells = (row.name, row.kind, origin(row))
        status = Text(show_text(row.status), style=status_style(row.status))
        made.add_row(*(Text(show_text(text)) for text in cells), status)
    return made


def status_style(status: str) -> str:
    """Green for what works, dim for what is off on purpose, red for the rest."""
    return {"ok": "green", "disabled": "dim"}.get(status, "red")
