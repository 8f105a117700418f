"""Attention heat maps with plotly."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..drawing.arrays import with_gaps
from ..drawing.colors import NOTHING, plotly_scale
from ..drawing.labels import plotly_text, token_label
from ..drawing.measure import labelled
from ..drawing.plotly_figure import framed, positions
from .config import AttentionVisualizationConfig
from .panels import Panel, Panels

_LONGEST = 14
_QUERY, _KEY = "query (token attending)", "key (token attended to)"
#: Cells with a text of their own under the pointer; beyond, the page would grow too large.
_TEXTS = 40_000


def draw(panels: Panels, config: AttentionVisualizationConfig) -> Any:
    """One map per head, queries downwards and keys to the right, all on the scale 0 to 1."""
    labels = [token_label(token, _LONGEST) for token in panels.tokens]
    figure = make_subplots(
        rows=panels.rows,
        cols=panels.columns,
        subplot_titles=[plotly_text(panel.title) for panel in panels.panels],
        horizontal_spacing=0.3 / panels.columns / 4 if panels.columns > 1 else 0,
        vertical_spacing=0.3 / panels.rows / 2 if panels.rows > 1 else 0,
    )
    width, height = config.figsize
    room = min((width - 2) / panels.columns, (height - 2) / panels.rows)
    queries, keys = panels.shape
    every = labelled(keys, 0.2, room)
    texts = queries * keys * len(panels.panels) <= _TEXTS
    for index, panel in enumerate(panels.panels):
        row, column = index // panels.columns + 1, index % panels.columns + 1
        figure.add_trace(_heat(panel, panels.tokens if texts else None), row=row, col=column)
        x_axis, y_axis = (
            figure.get_subplot(row, column).xaxis,
            figure.get_subplot(row, column).yaxis,
        )
        x_axis.update(
            positions(labels, every, showticklabels=index >= len(panels.panels) - panels.columns)
        )
        y_axis.update(
            positions(
                labels[-queries:],
                labelled(queries, 0.2, room),
                showticklabels=column == 1,
                range=[queries - 0.5, -0.5],
                scaleanchor=x_axis.plotly_name.replace("axis", ""),
                constrain="domain",
            )
        )
        # A square panel stays beside its labels and the colour bar, whatever room is left.
        x_axis.update(constrain="domain", constraintoward="right")
        x_axis.update(tickangle=-90 if room / len(every) < 0.9 else 0)
    alone = len(panels.panels) == 1
    note = "" if alone else f"down: {_QUERY}; across: {_KEY}"
    framed(figure, panels.title, (width, height), note=note, font_size=config.font_size + 1)
    if alone:
        figure.update_xaxes(title={"text": _KEY})
        figure.update_yaxes(title={"text": _QUERY})
    figure.update_layout(
        plot_bgcolor=NOTHING,
        coloraxis={
            "cmin": 0,
            "cmax": 1,
            "colorscale": plotly_scale(config.colorscale),
            "showscale": config.show_colorbar,
            "colorbar": {"title": {"text": "attention weight (a row sums to 1)", "side": "right"}},
        },
    )
    return figure


def _heat(panel: Panel, tokens: list[str] | None) -> Any:
    queries, keys = panel.weights.shape
    name = plotly_text(panel.title)
    hover: dict[str, Any] = {
        "hovertemplate": f"{name} query %{{y}}, key %{{x}}: %{{z:.3f}}<extra></extra>"
    }
    if tokens is not None:
        shown = [plotly_text(token_label(token, 40)) for token in tokens]
        shift = keys - queries
        texts = [
            [
                f"{name}<br>query {shift + q}: {shown[shift + q]}<br>key {k}: {shown[k]}"
                f"<br>weight {panel.weights[q, k]:.4f}"
                for k in range(keys)
            ]
            for q in range(queries)
        ]
        hover = {"hovertext": texts, "hoverinfo": "text"}
    return go.Heatmap(
        z=with_gaps(panel.weights),
        x=list(range(keys)),
        y=list(range(queries)),
        coloraxis="coloraxis",
        hoverongaps=False,
        **hover,
    )
