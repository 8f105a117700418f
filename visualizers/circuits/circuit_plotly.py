"""Circuits with plotly: pointing at an edge shows its weight."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from ..drawing.labels import plotly_text
from ..drawing.plotly_figure import framed
from .layout import HALF, PORTS, Arc
from .picture import FILLS, HALF_WIDTH, LEFT, UNIT, CircuitPicture


def draw(circuit: CircuitPicture, figsize: tuple[float, float] | None) -> Any:
    """Boxes and curved edges, the embedding at the bottom."""
    diagram = circuit.diagram
    width, height = figsize or (circuit.size[0] + 0.6, 1.15 * circuit.size[1] + 0.8)
    figure = go.Figure([_edge(circuit, arc) for arc in diagram.arcs])
    for node in diagram.nodes:
        figure.add_shape(
            type="rect",
            x0=node.x - HALF_WIDTH,
            x1=node.x + HALF_WIDTH,
            y0=node.y - HALF,
            y1=node.y + HALF,
            fillcolor=FILLS[node.kind],
            line={"color": "#555555", "width": 1},
            layer="above",
            label={
                "text": plotly_text(node.label),
                "font": {"size": 12},
                "textposition": "top center" if node.kind == "head" else "middle center",
            },
        )
        for letter, offset in PORTS.items() if node.kind == "head" else ():
            read = letter in diagram.inputs.get(node.name, ())
            figure.add_annotation(
                x=node.x + offset,
                y=node.y - HALF + 0.11,
                text=f"<b>{letter}</b>" if read else letter,
                font={"size": 10, "color": "black" if read else "#aaaaaa"},
                showarrow=False,
            )
    framed(figure, circuit.title, (width, height), note=circuit.note)
    low, high = circuit.frame  # rows are named outside of the axes
    rows = list(range(len(diagram.rows)))
    bare = {"showgrid": False, "zeroline": False, "fixedrange": False}
    figure.update_xaxes(range=[low + LEFT / UNIT, high], showticklabels=False, **bare)
    figure.update_yaxes(
        range=[-0.6, len(rows) - 0.4],
        tickmode="array",
        tickvals=rows,
        ticktext=diagram.rows,
        tickfont={"color": "#777777"},
        **bare,
    )
    figure.update_layout(showlegend=False, hovermode="closest")
    if "\n" in circuit.note:
        figure.update_layout(margin={"t": 120})
    return figure


def _edge(circuit: CircuitPicture, arc: Arc) -> Any:
    sender, receiver, weight = arc.edge
    xs, ys = zip(*arc.points, strict=True)
    color, stroke = circuit.color(weight), circuit.width(weight)
    text = f"{plotly_text(sender)} → {plotly_text(receiver)}<br>{plotly_text(circuit.unit)}: "
    return go.Scatter(
        x=xs,
        y=ys,
        mode="lines+markers",
        line={"color": color, "width": 1.3 * stroke},
        marker={
            "symbol": "triangle-up",
            "color": color,
            "size": [0] * (len(xs) - 1) + [7 + 1.3 * stroke],
            "opacity": 1,
            "line": {"width": 0},
        },
        hovertext=f"{text}{weight:+.4g}",
        hoverinfo="text",
    )
