"""What both backends draw of a circuit, and with which strokes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlxray.analyses.circuits.circuit_result import Edge
from mlxray.errors import InputError

from .layout import Diagram, Naming, lay_out

#: Fill of each kind of box.
FILLS = {
    "embed": "#e8e8e8",
    "logits": "#e8e8e8",
    "head": "#cfe0f2",
    "mlp": "#fbe3c4",
    "feature": "#dcebd3",
}
#: Half the width of a box.
HALF_WIDTH = 0.52
_WEIGHTLESS = "#999999"
_THINNEST = 0.8

#: Inches of a row and of a unit of x.
ROW, UNIT = 0.92, 0.86
#: Inches left of the boxes, for the rows' names, and right of them.
LEFT, RIGHT = 1.25, 0.25

#: What a method's weights are; the strength of an edge for others.
MEANING = {
    "EAP": "estimated change of the metric when the edge is corrupted",
    "EAP-IG": "estimated change of the metric when the edge is corrupted",
    "ACDC": "loss of the metric when the edge is removed",
    "ACDC by node": "loss of the metric when the sender is removed",
    "ACDC by block": "loss of the metric when the sender is removed",
}


@dataclass(frozen=True)
class CircuitPicture:
    """A circuit, ready to draw.

    Attributes:
        diagram: Places.
        title, note: Above it.
        unit: What the weights are.
        cmap: Colour map; its middle is zero.
        thickest: Points of the strongest edge's stroke.
    """

    diagram: Diagram
    title: str
    note: str
    unit: str
    cmap: str
    thickest: float

    @property
    def size(self) -> tuple[float, float]:
        """Inches that the picture wants."""
        low, high = self.diagram.span
        height = ROW * len(self.diagram.rows) + 1.1
        return max(UNIT * (high - low) + LEFT + RIGHT, 6.0), max(height, 2.8)

    @property
    def frame(self) -> tuple[float, float]:
        """Least and largest x of the axes: in a picture that is wider, the circuit is central."""
        low, high = self.diagram.span
        spare = (self.size[0] - LEFT - RIGHT) / UNIT - (high - low)
        return low - LEFT / UNIT - spare / 2, high + RIGHT / UNIT + spare / 2

    def width(self, weight: float) -> float:
        """Points of an edge's stroke."""
        return _THINNEST + (self.thickest - _THINNEST) * abs(weight) / self.diagram.limit

    def color(self, weight: float) -> str:
        """Colour of an edge: its sign, paler where it is weak."""
        from matplotlib.colors import to_hex

        from ..drawing.colors import colormap

        if not weight:
            return _WEIGHTLESS
        share = 0.45 + 0.55 * abs(weight) / self.diagram.limit
        return to_hex(colormap(self.cmap)(0.5 + (0.5 if weight > 0 else -0.5) * share))


def circuit_picture(
    edges: Sequence[Edge],
    *,
    title: str,
    unit: str,
    most: int | None,
    cmap: str,
    note: str | None = None,
    thickest: float = 5.0,
    naming: Naming | None = None,
) -> CircuitPicture:
    """Lay out the strongest edges.

    Args:
        edges: (sender, receiver, weight).
        title, unit: Plain text.
        most: How many edges to draw; None for all.
        cmap: Colour map.
        note: Instead of the one that tells how to read the edges.
        thickest: Points of the strongest edge's stroke.
        naming: What the nodes' names tell; those of heads and MLPs if left out.

    Raises:
        InputError: for nothing to draw, or names that are none of a circuit's.
    """
    from ..charts.matrix import signed_note

    if most is not None and most < 1:
        raise InputError(f"edges is at least 1; got {most}.")
    strongest = sorted(edges, key=lambda edge: -abs(edge[2]))[:most]
    if note is None:
        parts = [f"edges: {unit}", signed_note(cmap)]
        if len(strongest) < len(edges):
            parts.insert(0, f"the strongest {len(strongest)} of {len(edges)} edges")
        note = "\n".join(filter(None, ("; ".join(parts[:-1]), parts[-1])))
    return CircuitPicture(lay_out(strongest, naming), title, note, unit, cmap, thickest)
