"""A steering sweep with plotly."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..drawing.arrays import with_gaps
from ..drawing.colors import NOTHING, plotly_scale
from ..drawing.labels import plotly_text
from ..drawing.measure import labelled
from ..drawing.plotly_figure import framed, positions
from .sweep import Sweep, cost_text, score_text
from .sweep_matplotlib import COST, cost_ticks, curve_ticks, line_colors, score_colors


def draw_map(sweep: Sweep, figsize: tuple[float, float] | None, cmap: str | None) -> Any:
    """Score and cost side by side, each with its own scale."""
    width, height = figsize or (sweep.map_size[0] + 1.6, sweep.map_size[1] + 0.9)
    figure = make_subplots(
        rows=1, cols=2, subplot_titles=["score", "cost"], horizontal_spacing=2.0 / width
    )
    cmap, score_ends = score_colors(sweep, cmap)
    hover = [
        [
            f"layer {layer}, strength {strength:g}<br>score {score_text(sweep.score[i, j])}"
            f"<br>cost {cost_text(sweep.cost[i, j])}"
            + ("<br>past the limit of cost" if sweep.over_limit[i, j] else "")
            for j, strength in enumerate(sweep.strengths)
        ]
        for i, layer in enumerate(sweep.layers)
    ]
    halves = (
        (sweep.score, plotly_scale(cmap), score_ends, score_text, sweep.score),
        (sweep.decades, plotly_scale("Reds"), sweep.cost_range, cost_text, sweep.cost),
    )
    for column, (values, scale, ends, text, numbers) in enumerate(halves, start=1):
        figure.add_trace(
            go.Heatmap(
                z=with_gaps(values),
                x=list(range(len(sweep.strengths))),
                y=list(range(len(sweep.layers))),
                coloraxis="coloraxis" if column == 1 else "coloraxis2",
                text=[
                    [text(v) for v in row] if sweep.small else [""] * len(row) for row in numbers
                ],
                texttemplate="%{text}",
                textfont={"size": 11},
                hovertext=hover,
                hoverinfo="text",
                xgap=1,
                ygap=1,
            ),
            row=1,
            col=column,
        )
        axis = figure.layout[f"xaxis{column if column > 1 else ''}"]
        bar: dict[str, Any] = {"x": axis.domain[1] + 0.01, "xanchor": "left", "thickness": 14}
        bar["title"] = {"text": plotly_text(sweep.unit if column == 1 else COST), "side": "right"}
        if column == 2:
            ticks = cost_ticks(sweep)
            bar["tickvals"] = [math.log10(t) for t in ticks]
            bar["ticktext"] = [f"{t:g}×" for t in ticks]
        name = "coloraxis" if column == 1 else "coloraxis2"
        figure.update_layout(
            {name: {"cmin": ends[0], "cmax": ends[1], "colorscale": scale, "colorbar": bar}}
        )
        room = (width - 3) / 2, height - 2
        powers = [f"{s:g}" for s in sweep.strengths]
        figure.update_xaxes(
            positions(powers, labelled(len(powers), 0.4, room[0])),
            title={"text": sweep.across, "standoff": 4},
            row=1,
            col=column,
        )
        layers = [str(layer) for layer in sweep.layers]
        figure.update_yaxes(
            positions(layers, labelled(len(layers), 0.2, room[1])),
            title={"text": "layer", "standoff": 4},
            row=1,
            col=column,
        )
        if sweep.best is not None:
            row, at = sweep.best
            figure.add_shape(
                type="rect",
                x0=at - 0.5,
                x1=at + 0.5,
                y0=row - 0.5,
                y1=row + 0.5,
                line={"color": "black", "width": 2},
                row=1,
                col=column,
            )
    for row, column in np.argwhere(sweep.over_limit):
        figure.add_shape(
            type="line",
            x0=column - 0.45,
            x1=column + 0.45,
            y0=row - 0.45,
            y1=row + 0.45,
            line={"color": "rgba(0,0,0,0.25)", "width": 1},
            row=1,
            col=1,
        )
    if sweep.over_limit.any():
        figure.layout.annotations[0].text = "score (crossed out: past the limit of cost)"
    framed(figure, sweep.title, (width, height), note=sweep.note.replace("\n", "; "))
    figure.update_layout(plot_bgcolor=NOTHING)
    return figure


def draw_curves(sweep: Sweep, figsize: tuple[float, float] | None, cmap: str | None) -> Any:
    """Score and cost against the strength, a line for each layer."""
    from matplotlib.colors import to_hex

    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.12)
    colors = line_colors()
    for row, layer in enumerate(sweep.layers):
        color = to_hex(colors(row / max(1, len(sweep.layers) - 1)))
        for column, values in ((1, sweep.score), (2, sweep.cost)):
            figure.add_trace(
                go.Scatter(
                    x=sweep.strengths,
                    y=with_gaps(values[row]),
                    name=str(layer),
                    legendgroup=str(layer),
                    showlegend=column == 1,
                    mode="lines+markers",
                    line={"color": color},
                    hovertemplate=f"layer {layer}, strength %{{x}}<br>%{{y:.3f}}<extra></extra>",
                ),
                row=1,
                col=column,
            )
    for column, value, text, dash in (
        (1, sweep.base, "unsteered", "dot"),
        (2, sweep.limit, f"limit {cost_text(sweep.limit)}", "dash"),
    ):
        line = {"color": "#777777", "dash": dash, "width": 1}
        figure.add_hline(y=value, line=line, row=1, col=column)
        figure.add_annotation(
            text=text,
            font={"size": 11},
            # Annotations on a logarithmic axis stand at powers of ten.
            y=value if column == 1 else math.log10(value),
            yref="y" if column == 1 else "y2",
            x=1,
            xref="x domain" if column == 1 else "x2 domain",
            xanchor="right",
            yanchor="bottom",
            showarrow=False,
        )
    if sweep.best is not None:
        row, at = sweep.best
        for column, values in ((1, sweep.score), (2, sweep.cost)):
            figure.add_trace(
                go.Scatter(
                    x=[sweep.strengths[at]],
                    y=[values[row, at]],
                    mode="markers",
                    marker={"size": 14, "symbol": "circle-open", "color": "black"},
                    showlegend=False,
                    hoverinfo="skip",
                ),
                row=1,
                col=column,
            )
    framed(figure, sweep.title, figsize or (12, 5.5), note=sweep.note.replace("\n", "; "))
    figure.update_layout(legend={"title": {"text": "layer"}, "traceorder": "reversed"})
    figure.update_xaxes(title={"text": sweep.across})
    figure.update_yaxes(title={"text": plotly_text(sweep.unit)}, row=1, col=1)
    ticks = curve_ticks(sweep)
    figure.update_yaxes(title={"text": COST}, type="log", row=1, col=2)
    figure.update_yaxes(tickvals=ticks, ticktext=[f"{tick:,g}×" for tick in ticks], row=1, col=2)
    return figure
