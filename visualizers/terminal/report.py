"""What `mlxray verify` found, as a table of points."""

from __future__ import annotations

from rich.console import Group
from rich.text import Text

from mlxray import hookimpl, visualizer
from mlxray.cli.show import new_table
from mlxray.display import layer_ranges, show_text
from mlxray.plugins import Visualizer
from mlxray.points import POINTS
from mlxray.testing.report import Report, Row

_STYLES = {"proven": "green", "failed": "bold red", "absent": "yellow", "skipped": "dim"}


@visualizer(Report, backend="terminal")
def report_in_terminal(report: Report, *, width: int = 80) -> Group:
    """A line for each point, with its checks; what failed keeps a line and a reason of its own.

    Args:
        report: What `mlxray verify` found.
        width: Cells that a line may take.
    """
    made = new_table("point", "status", "layers", "checks, with the worst relative error")
    for rows in _by_point(report.checks):
        layers = layer_ranges({layer for row in rows for layer in row.layers})
        status = Text(rows[0].status, style=_STYLES.get(rows[0].status, ""))
        made.add_row(
            Text(show_text(rows[0].point), style="cyan"), status, layers, Text(_checks(rows))
        )
    return Group(made, *(Text(f"\nnote: {show_text(note)}") for note in report.notes))


def _by_point(checks: list[Row]) -> list[list[Row]]:
    """Rows that make one line, points in the vocabulary's order and the whole model last."""
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


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """The drawing above."""
    return [report_in_terminal]
