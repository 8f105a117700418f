"""How attention is drawn."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class AttentionVisualizationConfig:
    """Options of `attention_from_trace`.

    Attributes:
        colorscale: Colour map of the weights, 0 to 1.
        mask_upper_tri: Leave out the future, to which causal attention cannot look.
        backend: ``"matplotlib"``, ``"plotly"``, ``"circuitsviz"``; ``"auto"`` takes circuitsviz,
            then plotly, then matplotlib, whichever is installed.
        figsize: Width and height in inches, of the whole picture.
        show_colorbar: Whether to show what the colours mean.
        font_size: Of the labels, in points.
    """

    colorscale: str = "Blues"
    mask_upper_tri: bool = True
    backend: str = "auto"
    figsize: tuple[float, float] = (10, 8)
    show_colorbar: bool = True
    font_size: int = 10
