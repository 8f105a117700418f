"""Heat maps of layers and heads with plotly."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..drawing.arrays import with_gaps
from ..drawing.colors import NOTHING, plotly_scale
from ..drawing.labels import plotly_text
from ..drawing.measure import labelled
from ..drawing.plotly_figure import framed, positions
from .matrix import Matrices

#: With more rows or columns than this there are no lines between them.
_WITH_LINES = 64


def draw(matrices: Matrices, figsize: tuple[float, float] | None) -> Any:
    """One map per panel, one colour bar."""
    down, beside = matrices.grid
    width, height = figsize or (matrices.size[0] + 0.8, matrices.size[1] + 0.6)
    figure = make_subplots(
        rows=down,
        cols=beside,
        subplot_titles=[plotly_text(title) for title, _ in matrices.panels],
        horizontal_spacing=0.6 / width if beside > 1 else 0,
        vertical_spacing=(matrices.below + 0.1) / height if down > 1 else 0,
    )
    room = (width - 2.4) / beside - 0.6, (height - 1.5) / down - matrices.below
    rows, columns = matrices.shape
    names = matrices.column_labels
    for index in range(len(matrices.panels)):
        place = {"row": index // beside + 1, "col": index % beside + 1}
        figure.add_trace(heat(matrices, index), **place)
        figure.update_xaxes(
            positions(names, labelled(columns, 0.2 if matrices.upright else 0.3, room[0])),
            tickangle=-90 if matrices.upright else 0,
            **place,
        )
        figure.update_yaxes(
            positions([str(layer) for layer in matrices.rows], labelled(rows, 0.2, room[1])),
            **place,
        )
        if index + beside >= len(matrices.panels):
            figure.update_xaxes(title={"text": matrices.across, "standoff": 4}, **place)
        if place["col"] == 1:
            figure.update_yaxes(title={"text": matrices.down, "standoff": 4}, **place)
    framed(figure, matrices.title, (width, height), note=matrices.note)
    figure.update_layout(plot_bgcolor=NOTHING, coloraxis=color_axis(matrices))
    return figure


def color_axis(matrices: Matrices, **bar: Any) -> dict[str, Any]:
    """The scale of all panels; `bar` are properties of its colour bar."""
    return {
        "cmin": matrices.low,
        "cmax": matrices.limit,
        "colorscale": plotly_scale(matrices.cmap),
        "colorbar": {"title": {"text": plotly_text(matrices.unit), "side": "right"}, **bar},
    }


def heat(matrices: Matrices, panel: int) -> Any:
    """One panel, coloured by the figure's ``coloraxis``."""
    title, values = matrices.panels[panel]
    rows, columns = matrices.shape
    name = f"{plotly_text(title)}<br>" if title else ""
    unit = plotly_text(matrices.unit)
    names = [plotly_text(label) for label in matrices.column_labels]
    return go.Heatmap(
        z=with_gaps(values),
        x=list(range(columns)),
        y=list(range(rows)),
        coloraxis="coloraxis",
        text=[
            [plotly_text(matrices.text(panel, row, column)) for column in range(columns)]
            for row in range(rows)
        ],
        texttemplate="%{text}",
        # Left to itself, plotly makes words a different size in each panel.
        textfont={"size": 10 if matrices.texts else None},
        hovertext=[
            [
                f"{name}{matrices.down} {plotly_text(str(layer))}, "
                f"{matrices.across} {names[column]}<br>{unit}: {value:.4f}"
                for column, value in enumerate(row)
            ]
            for layer, row in zip(matrices.rows, values, strict=True)
        ],
        hoverinfo="text",
        # Lines between cells of a few pixels would take most of their colour.
        xgap=int(columns <= _WITH_LINES),
        ygap=int(rows <= _WITH_LINES),
    )
