"""The lens heat map: layers upwards, the prompt to the right, the predicted token in each cell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.lenses.lens_result import LensResult
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer

from ..drawing.labels import clip, columns, plotly_text, token_label
from ..drawing.measure import CHARACTER, LINE, POINTS, labelled, text_size
from .lens_grid import NAMED, LensGrid, lens_grid

if TYPE_CHECKING:
    from ..drawing.figure import Picture

_PROBABILITY = "probability of the token shown"
_SAME_TOKEN = "same colour: same token; grey: rarer ones"


@visualizer(LensResult, backend="matplotlib")
def lens_matplotlib(
    result: LensResult,
    *,
    max_display_tokens: int = 15,
    figsize: tuple[float, float] | None = None,
    cmap: str = "viridis",
    font_family: str | None = None,
    color: str = "probability",
    title: str | None = None,
) -> Picture:
    """Draw a lens result with matplotlib; the last layer is the top row.

    Args:
        max_display_tokens: Columns at most, counted from the end of the prompt.
        figsize: Width and height in inches; grows with the grid if left out.
        cmap: Colour map of the probabilities.
        font_family: Put first; fonts for scripts that it lacks are found by themselves.
        color: ``"probability"``, or ``"token"`` for a colour per predicted token.
        title: Instead of the one that names the method.
    """
    from matplotlib.colors import ListedColormap

    from ..drawing.colors import CATEGORIES, NOTHING, colormap, ink
    from ..drawing.figure import picture
    from ..drawing.fonts import typeface

    by_token = _by_token(color)
    grid = lens_grid(result, max_display_tokens, title)
    width, height = figsize or _size(grid)
    face = typeface([*grid.columns, grid.title, *map("".join, grid.predicted)], font_family)
    figure = picture(width, height)
    axes = figure.add_subplot()
    colors = ListedColormap([*CATEGORIES, NOTHING]) if by_token else colormap(cmap)
    edges = [[i - 0.5 for i in range(n + 1)] for n in (len(grid.positions), len(grid.layers))]
    mesh: Any = axes.pcolormesh(
        *edges,
        grid.rank if by_token else grid.probability,
        cmap=colors,
        vmin=0,
        vmax=NAMED if by_token else 1,
        edgecolors="white",
        linewidth=0.5,
    )
    room, line, fits = _cell(grid, width - (1 if by_token else 2), height - 1.6)
    if fits >= 2:
        for row, texts in enumerate(grid.predicted):
            for column, text in enumerate(texts):
                value = grid.rank[row][column] if by_token else grid.probability[row][column]
                axes.text(
                    column,
                    row,
                    face.text(clip(text, fits)),
                    ha="center",
                    va="center",
                    fontsize=line,
                    color=ink(mesh.cmap(mesh.norm(value))),
                    **face.options,
                )
    size = text_size(width)
    steep = max(map(columns, grid.columns)) * size * CHARACTER / POINTS > room
    places = labelled(len(grid.columns), size * LINE / POINTS, width - 2)
    axes.set_xticks(
        list(places),
        [face.text(grid.columns[i]) for i in places],
        rotation=45 if steep else 0,
        ha="right" if steep else "center",
        rotation_mode="anchor",
        fontsize=size,
        **face.options,
    )
    rows = labelled(len(grid.layers), size * LINE / POINTS, height - 1.6)
    axes.set_yticks(list(rows), [str(grid.layers[i]) for i in rows], fontsize=size)
    axes.tick_params(length=0)
    axes.set_xlabel(grid.reading, fontsize=size)
    axes.set_ylabel(grid.depth, fontsize=size)
    axes.set_title(face.text(grid.title), fontsize=size + 3, **face.options)
    axes.spines[:].set_visible(False)
    if by_token:
        axes.annotate(
            _SAME_TOKEN,
            (1, 1),
            xycoords="axes fraction",
            ha="right",
            va="bottom",
            fontsize=size - 1,
        )
    else:
        bar = figure.colorbar(mesh, ax=axes, fraction=0.05, pad=0.02)
        bar.set_label(_PROBABILITY, fontsize=size)
    return figure


@visualizer(LensResult, backend="plotly")
def lens_plotly(
    result: LensResult,
    *,
    max_display_tokens: int = 15,
    figsize: tuple[float, float] | None = None,
    cmap: str = "viridis",
    font_family: str | None = None,
    color: str = "probability",
    title: str | None = None,
) -> Any:
    """Draw a lens result with plotly; pointing at a cell shows its whole top k.

    The arguments are those of the matplotlib picture.
    """
    import plotly.graph_objects as go

    from ..drawing.colors import CATEGORIES, NOTHING, plotly_scale
    from ..drawing.plotly_figure import framed, positions

    by_token = _by_token(color)
    grid = lens_grid(result, max_display_tokens, title)
    width, height = figsize or _size(grid, frame=2.4)
    _, line, fits = _cell(grid, width - 3, height - 2.4)
    bands = enumerate((*CATEGORIES, NOTHING))
    steps = [[edge / (NAMED + 1), c] for k, c in bands for edge in (k, k + 1)]
    heat = go.Heatmap(
        z=grid.rank if by_token else grid.probability,
        x=list(range(len(grid.positions))),
        y=list(range(len(grid.layers))),
        zmin=-0.5 if by_token else 0,
        zmax=NAMED + 0.5 if by_token else 1,
        colorscale=steps if by_token else plotly_scale(cmap),
        showscale=not by_token,
        colorbar={"title": {"text": _PROBABILITY, "side": "right"}},
        text=[[plotly_text(clip(text, fits)) for text in row] for row in grid.predicted],
        texttemplate="%{text}" if fits >= 2 else None,
        # Left out where the colour varies: plotly then chooses black or white for each cell.
        textfont={"size": line * 1.2, "color": "black" if by_token else None},
        hovertext=_hover(result, grid),
        hoverinfo="text",
        xgap=1,
        ygap=1,
    )
    figure = framed(go.Figure(heat), grid.title, (width, height), font_family=font_family)
    every = labelled(len(grid.columns), 0.2, width - 3)
    figure.update_xaxes(positions(grid.columns, every, title={"text": plotly_text(grid.reading)}))
    rows = [str(layer) for layer in grid.layers]
    every = labelled(len(rows), 0.2, height - 2.4)
    figure.update_yaxes(positions(rows, every, title={"text": plotly_text(grid.depth)}))
    if by_token:
        figure.add_annotation(
            text=_SAME_TOKEN,
            x=1,
            y=1,
            xref="paper",
            yref="paper",
            yanchor="bottom",
            showarrow=False,
        )
    return figure


def _hover(result: LensResult, grid: LensGrid) -> list[list[str]]:
    first = len(result.positions) - len(grid.positions)
    return [
        [_top_k(result, layer, first + i) for i in range(len(grid.positions))]
        for layer in grid.layers
    ]


def _top_k(result: LensResult, layer: int, index: int) -> str:
    position = result.positions[index]
    read = plotly_text(token_label(result.tokens[position], 40))
    lines = [f"layer {layer}, after position {position}: <b>{read}</b>"]
    probabilities = result.probabilities[layer][index]
    for rank, (token, logit, text) in enumerate(result.predictions[layer][index]):
        label = plotly_text(token_label(text, 40))
        lines.append(
            f"{rank + 1}. {label}  {probabilities[rank]:.1%}  (logit {logit:.2f}, id {token})"
        )
    return "<br>".join(lines)


def _by_token(color: str) -> bool:
    if color not in ("probability", "token"):
        raise InputError(f"color={color!r}: a lens result can show 'probability' or 'token'.")
    return color == "token"


def _size(grid: LensGrid, frame: float = 1.6) -> tuple[float, float]:
    """Inches that let most tokens be read, and fit on a screen."""
    width = min(max(3 + 0.95 * len(grid.positions), 5), 18)
    return width, min(max(frame + 0.36 * len(grid.layers), frame + 1.5), 14)


def _cell(grid: LensGrid, width: float, height: float) -> tuple[float, float, int]:
    """Width of a cell in inches, size of its text in points, columns of text that fit."""
    room = width / len(grid.positions)
    across = 0.94 * POINTS * room / CHARACTER
    longest = max(columns(text) for row in grid.predicted for text in row)
    # Small cells cut long tokens before the text becomes hard to read; large ones use their room.
    line = min(max(9.0, across / longest), 12.0, 0.75 * POINTS * height / len(grid.layers))
    return room, line, int(across / line) if line >= 4 else 0


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Heat maps of a lens."""
    return [lens_matplotlib, lens_plotly]
