"""``mlxray verify MODEL``: check that an adapter tells the truth about a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from ..display import show_text
from .options import POCKET, AdapterName, Json, ModelArgument, Save, load
from .show import check_drawable, new_table, show_result
from .terminal import working

if TYPE_CHECKING:
    from rich.console import Console

    from ..testing import Report, Row

_STYLES = {"proven": "green", "failed": "bold red", "absent": "yellow", "skipped": "dim"}


def verify(
    model: ModelArgument = POCKET,
    adapter: AdapterName = None,
    json: Json = False,
    save: Save = None,
) -> None:
    """Check every hook point of a model against its identity; exit code 1 if one fails."""
    from ..testing import Report, check_adapter

    check_drawable(Report, save)
    loaded = load(model, adapter)
    with working(f"checking {model}"):
        report = check_adapter(loaded)
    show_result(report, json=json, save=save, paint=paint_report)
    if not report.ok:
        raise typer.Exit(1)


def paint_report(report: Report, console: Console) -> None:
    """A line for each point, with its checks; what failed keeps a line and a reason of its own."""
    from rich.text import Text

    from ..testing.report import layer_ranges

    made = new_table("point", "status", "layers", "checks, with the worst relative error")
    for rows in _by_point(report.checks):
        layers = layer_ranges({layer for row in rows for layer in row.layers})
        status = Text(rows[0].status, style=_STYLES.get(rows[0].status, ""))
        made.add_row(
            Text(show_text(rows[0].point), style="cyan"), status, layers, Text(_checks(rows))
        )
    console.print(made)
    for note in report.notes:
        console.print(f"\nnote: {show_text(note)}")


def _by_point(checks: list[Row]) -> list[list[Row]]:
    """Rows that make one line, points in the vocabulary's order and the whole model last."""
    from ..points import POINTS

    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in checks:
        alone = (row.check, row.reason) if row.status != "proven" else ()
        groups.setdefault((row.point, row.status, *alone), []).append(row)
    order = [*POINTS, "model"]
    return sorted(groups.values(), key=lambda rows: order.index(rows[0].point))


def _checks(rows: list[Row]) -> str:
    if rows[0].status == "absent":
        return show_text(rows[0].reason)
    if rows[0].status != "proven":
        return show_text(f"{rows[0].check}{_error(rows[0])}: {rows[0].reason}")
    return show_text("; ".join(f"{row.check}{_error(row)}" for row in rows))


def _error(row: Row) -> str:
    if row.error is None:
        return ""
    return f" {row.error:.0e}" if row.error else " exact"
