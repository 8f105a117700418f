"""What ``mlxray verify`` found, as a page."""

from __future__ import annotations

from typing import Any

from mlxray import TableResult, hookimpl, visualizer
from mlxray.plugins.kinds import Visualizer
from mlxray.testing.report import Report

from .table import table_html


@visualizer(Report, backend="html")
def report_html(result: Report) -> Any:
    """Every check of every point as a table, with the summary above it."""
    names, rows = result.rows()
    cells = zip(*rows, strict=True) if rows else [()] * len(names)
    columns = {name: list(column) for name, column in zip(names, cells, strict=True)}
    return table_html(TableResult(columns, title=result.summary()))


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """The report of the conformance kit."""
    return [report_html]
