"""Circuits with matplotlib."""

from __future__ import annotations

from typing import Any

from ..drawing.figure import Picture, picture
from ..drawing.fonts import typeface
from .layout import HALF, PORTS
from .picture import FILLS, HALF_WIDTH, CircuitPicture


def draw(circuit: CircuitPicture, figsize: tuple[float, float] | None) -> Picture:
    """Boxes and curved edges, the embedding at the bottom."""
    from matplotlib.patches import FancyBboxPatch

    diagram = circuit.diagram
    width, height = figsize or circuit.size
    face = typeface([circuit.title, circuit.note])
    figure = picture(width, height)
    axes = figure.add_subplot()
    for order, arc in enumerate(diagram.arcs):
        weight = arc.edge[2]
        xs, ys = zip(*arc.points, strict=True)
        stroke = circuit.width(weight)
        color = circuit.color(weight)
        axes.plot(
            xs, ys, color=color, linewidth=stroke, solid_capstyle="butt", zorder=1 + order / 1e4
        )
        head: dict[str, Any] = {"marker": "^", "markersize": 4 + stroke, "linestyle": ""}
        axes.plot(xs[-1], ys[-1], color=color, zorder=2.5 - order / 1e4, **head)
    for node in diagram.nodes:
        box = FancyBboxPatch(
            (node.x - HALF_WIDTH, node.y - HALF),
            2 * HALF_WIDTH,
            2 * HALF,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=FILLS[node.kind],
            edgecolor="#555555",
            linewidth=0.8,
            zorder=3,
        )
        axes.add_patch(box)
        raised = 0.08 if node.kind == "head" else 0.0
        middle: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 4}
        axes.text(node.x, node.y + raised, node.label, fontsize=9, **middle)
        if node.kind == "head":
            for letter, offset in PORTS.items():
                read = letter in diagram.inputs.get(node.name, ())
                axes.text(
                    node.x + offset,
                    node.y - HALF + 0.1,
                    letter,
                    fontsize=7,
                    color="black" if read else "#aaaaaa",
                    fontweight="bold" if read else "normal",
                    **middle,
                )
    low, _ = diagram.span
    for row, name in enumerate(diagram.rows):
        axes.text(low - 0.25, row, name, fontsize=8, color="#777777", ha="right", va="center")
    axes.set_xlim(*circuit.frame)
    axes.set_ylim(-0.5, len(diagram.rows) - 0.5)
    axes.axis("off")
    heading = "\n".join(filter(None, (circuit.title, circuit.note)))
    figure.suptitle(face.text(heading), fontsize=10, **face.options)
    return figure
