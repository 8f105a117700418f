"""What a model wrote: its tokens in lines, coloured by the probability that each had."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlxray import hookimpl, visualizer
from mlxray.generation.result import GenerationResult
from mlxray.plugins.kinds import Visualizer

from ..drawing.labels import plotly_text
from .flow import SIZE, flow, share

if TYPE_CHECKING:
    from ..drawing.figure import Picture

#: Tokens that one picture shows, unless another number is asked for.
MOST = 400
_PROBABILITY = "probability"


@visualizer(GenerationResult, backend="matplotlib")
def generation_matplotlib(
    result: GenerationResult,
    *,
    max_display_tokens: int = MOST,
    figsize: tuple[float, float] | None = None,
    cmap: str = "viridis",
    title: str | None = None,
) -> Picture:
    """Draw a continuation with matplotlib.

    Args:
        max_display_tokens: Tokens at most, from the first.
        figsize: Width and height in inches; grows with the text if left out.
        cmap: Colour map of the probabilities.
        title: Instead of the prompt's end.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    from ..drawing.colors import colormap, ink
    from ..drawing.figure import picture
    from ..drawing.fonts import typeface

    text = flow(result, max_display_tokens, title)
    face = typeface([text.title, text.note, *(c.label for c in text.cells)], "monospace")
    colors = colormap(cmap)
    wide, high = text.size
    figure = picture(*(figsize or (wide + 1.4, high + 1.0)))
    axes = figure.add_subplot()
    axes.barh(
        [c.line for c in text.cells],
        [c.width for c in text.cells],
        left=[c.start for c in text.cells],
        height=0.9,
        color=[colors(c.probability) for c in text.cells],
        edgecolor="white",
        linewidth=1.5,
    )
    for cell in text.cells:
        middle, color = cell.start + cell.width / 2, ink(colors(cell.probability))
        style: dict[str, Any] = {"ha": "center", "va": "center", "color": color, **face.options}
        above = 0.16 if text.numbered else 0.0
        axes.text(middle, cell.line - above, face.text(cell.label), fontsize=SIZE, **style)
        if text.numbered:
            axes.text(middle, cell.line + 0.25, share(cell.probability), fontsize=7, **style)
    axes.set_xlim(0, text.width)
    axes.set_ylim(text.lines - 0.5, -0.5)
    axes.set_axis_off()
    figure.suptitle(face.text(f"{text.title}\n{text.note}"), fontsize=11, **face.options)
    scale = ScalarMappable(Normalize(0, 1), colors)
    bar = figure.colorbar(scale, ax=axes, pad=0.02, aspect=15, fraction=0.05)
    bar.set_label(_PROBABILITY, fontsize=9)
    return figure


@visualizer(GenerationResult, backend="plotly")
def generation_plotly(
    result: GenerationResult,
    *,
    max_display_tokens: int = MOST,
    figsize: tuple[float, float] | None = None,
    cmap: str = "viridis",
    title: str | None = None,
) -> Any:
    """Draw a continuation with plotly; arguments as with matplotlib."""
    import plotly.graph_objects as go

    from ..drawing.colors import colormap, ink, plotly_scale
    from ..drawing.plotly_figure import framed

    text = flow(result, max_display_tokens, title)
    labels = [plotly_text(cell.label) for cell in text.cells]
    colors = colormap(cmap)
    inks = [ink(colors(cell.probability)) for cell in text.cells]
    shares = [share(cell.probability).replace("<", "&lt;") for cell in text.cells]
    bars = go.Bar(
        orientation="h",
        y=[c.line for c in text.cells],
        x=[c.width for c in text.cells],
        base=[c.start for c in text.cells],
        width=0.9,
        text=[
            f"{label}<br><span style='font-size:9px'>{percentage}</span>"
            if text.numbered
            else label
            for label, percentage in zip(labels, shares, strict=True)
        ],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        constraintext="none",
        textfont={"family": "monospace", "size": 12, "color": inks},
        hovertext=[
            f"step {cell.step}: {label}<br>{_PROBABILITY}: {cell.probability:.4f}"
            for cell, label in zip(text.cells, labels, strict=True)
        ],
        hoverinfo="text",
        marker={
            "color": [c.probability for c in text.cells],
            "cmin": 0,
            "cmax": 1,
            "colorscale": plotly_scale(cmap),
            "colorbar": {"title": {"text": _PROBABILITY, "side": "right"}},
            "line": {"color": "white", "width": 1.5},
        },
    )
    wide, high = text.size
    # Room for the title, and a browser's larger letters.
    size = figsize or (1.1 * wide + 2.2, 1.2 * high + 2.2)
    figure = framed(go.Figure(bars), text.title, size, note=text.note)
    figure.update_layout(barmode="overlay")
    figure.update_xaxes(visible=False, range=[0, text.width])
    figure.update_yaxes(visible=False, range=[text.lines - 0.5, -0.5])
    return figure


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Pictures of generated text."""
    return [generation_matplotlib, generation_plotly]
