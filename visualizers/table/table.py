"""Tables: bars of their numbers, or the table itself in HTML."""

from __future__ import annotations

import math
from typing import Any

from mlxray import hookimpl, visualizer
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer
from mlxray.results.table import TableResult

from ..drawing.labels import html_text, plotly_text
from ..drawing.measure import LINE, POINTS, labelled
from .columns import Columns, split

_COLOR = "#4477aa"


@visualizer(TableResult, backend="matplotlib")
def table_matplotlib(
    result: TableResult,
    *,
    values: list[str] | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
) -> Any:
    """Draw a table's numbers as bars with matplotlib, one panel per column.

    Args:
        values: Columns to draw; if left out, those with numbers that do not name the rows.
        figsize: Width and height in inches; grows with the table if left out.
        title: Instead of the table's own.
    """
    from ..drawing.figure import picture
    from ..drawing.fonts import typeface

    table = _drawable(result, values, title)
    width, height = figsize or _size(table)
    names = [name for name, _ in table.values]
    face = typeface([table.title, table.naming, *table.labels, *names])
    figure = picture(width, height)
    panels = figure.subplots(1, len(table.values), squeeze=False, sharey=True)[0]
    rows = len(table.labels)
    for axes, (name, numbers) in zip(panels, table.values, strict=True):
        bars = axes.barh(range(rows), numbers, color=_COLOR)
        if rows <= 40:
            axes.bar_label(bars, [_number(n) for n in numbers], fontsize=8, padding=2)
        for row in _unknown(numbers):
            axes.text(0, row, " n/a", va="center", fontsize=8)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.margins(x=0.18)
        axes.set_xlabel(face.text(name), **face.options)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    places = labelled(rows, LINE * 9 / POINTS, height - 1.2)
    texts = [face.text(table.labels[i]) for i in places]
    panels[0].set_yticks(list(places), texts, fontsize=9, **face.options)
    panels[0].set_ylim(rows - 0.4, -0.6)
    panels[0].set_ylabel(face.text(table.naming), **face.options)
    figure.suptitle(face.text(table.title), **face.options)
    return figure


@visualizer(TableResult, backend="plotly")
def table_plotly(
    result: TableResult,
    *,
    values: list[str] | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
) -> Any:
    """Draw a table's numbers as bars with plotly; pointing at one shows its whole row."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from ..drawing.plotly_figure import framed, positions

    table = _drawable(result, values, title)
    width, height = figsize or _size(table, frame=1.6)
    figure = make_subplots(rows=1, cols=len(table.values), shared_yaxes=True)
    names = [plotly_text(name) for name in table.names]
    hover = [
        "<br>".join(f"{n}: {plotly_text(c)}" for n, c in zip(names, row, strict=True))
        for row in table.cells
    ]
    for column, (name, numbers) in enumerate(table.values, start=1):
        figure.add_trace(
            go.Bar(
                x=[n if math.isfinite(n) else None for n in numbers],
                y=list(range(len(numbers))),
                orientation="h",
                marker={"color": _COLOR},
                text=[_number(n) for n in numbers] if len(numbers) <= 40 else None,
                textposition="outside",
                textangle=0,
                cliponaxis=False,
                hovertext=hover,
                hoverinfo="text",
            ),
            row=1,
            col=column,
        )
        figure.update_xaxes(title={"text": plotly_text(name)}, row=1, col=column)
        for row in _unknown(numbers):
            figure.add_annotation(
                x=0, y=row, text="n/a", showarrow=False, xanchor="left", row=1, col=column
            )
    framed(figure, table.title, (width, height)).update_layout(showlegend=False)
    rows = len(table.labels)
    every = labelled(rows, 0.22, height - 2)
    figure.update_yaxes(positions(table.labels, every, range=[rows - 0.5, -0.5]))
    figure.update_yaxes(title={"text": plotly_text(table.naming)}, row=1, col=1)
    return figure


@visualizer(TableResult, backend="html")
def table_html(result: TableResult, *, title: str | None = None) -> Any:
    """The whole table as HTML, every cell escaped."""
    from ..drawing.display import HtmlPicture

    table = split(result, None, title)
    style = "padding: 0.2em 0.8em; border-bottom: 1px solid #ddd; text-align: "
    sides = ["right" if numeric else "left" for numeric in table.numeric]
    lines = [
        '<table style="border-collapse: collapse; font-family: system-ui, sans-serif">',
        f'<caption style="font-weight: bold; padding: 0.5em">{html_text(table.title)}</caption>',
        "<thead><tr>"
        + "".join(
            f'<th style="{style}{side}">{html_text(name)}</th>'
            for name, side in zip(table.names, sides, strict=True)
        )
        + "</tr></thead>",
        "<tbody>",
    ]
    lines += [
        "<tr>"
        + "".join(
            f'<td style="{style}{side}">{html_text(cell)}</td>'
            for cell, side in zip(row, sides, strict=True)
        )
        + "</tr>"
        for row in table.cells
    ]
    return HtmlPicture("\n".join([*lines, "</tbody>", "</table>"]), table.title)


def _drawable(result: TableResult, values: list[str] | None, title: str | None) -> Columns:
    table = split(result, values, title)
    if not table.values:
        raise InputError(
            "the table has no column of numbers to draw as bars. "
            'Name some with values=[…], or take backend="html".'
        )
    return table


def _size(table: Columns, frame: float = 0.8) -> tuple[float, float]:
    width = 1.5 + min(0.08 * max(map(len, table.labels)), 4) + 3.2 * len(table.values)
    return min(max(width, 5), 18), min(max(0.8 + frame + 0.26 * len(table.labels), 1.7 + frame), 14)


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else ""


def _unknown(numbers: list[float]) -> list[int]:
    return [row for row, number in enumerate(numbers) if not math.isfinite(number)]


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Pictures of tables."""
    return [table_matplotlib, table_plotly, table_html]
