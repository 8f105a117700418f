"""Attention heat maps with matplotlib."""

from __future__ import annotations

from typing import Any

from ..drawing.colors import colormap
from ..drawing.figure import Picture, picture
from ..drawing.fonts import Typeface, typeface
from ..drawing.labels import columns, token_label
from ..drawing.measure import CHARACTER, LINE, POINTS, labelled
from .config import AttentionVisualizationConfig
from .panels import Panels

_LONGEST = 14
_QUERY, _KEY = "query (token attending)", "key (token attended to)"


def draw(panels: Panels, config: AttentionVisualizationConfig) -> Picture:
    """One map per head, queries downwards and keys to the right, all on the scale 0 to 1."""
    labels = [token_label(token, _LONGEST) for token in panels.tokens]
    face = typeface([*labels, panels.title, *(p.title for p in panels.panels)])
    width, height = config.figsize
    figure = picture(width, height, layout="compressed")
    grid = figure.subplots(panels.rows, panels.columns, squeeze=False)
    image: Any = None
    for panel, axes in zip(panels.panels, grid.flat, strict=False):
        image = axes.imshow(
            panel.weights,
            cmap=colormap(config.colorscale),
            vmin=0,
            vmax=1,
            interpolation="nearest",
        )
        if panel.title:
            axes.set_title(face.text(panel.title), fontsize=config.font_size + 1, **face.options)
    for axes in grid.flat[len(panels.panels) :]:
        axes.set_visible(False)
    last_row = len(panels.panels) - panels.columns
    room = min((width - 2) / panels.columns, (height - 2) / panels.rows)
    for index, axes in enumerate(grid.flat[: len(panels.panels)]):
        _ticks(axes, "x", labels, face, room, config, shown=index >= last_row)
        _ticks(
            axes,
            "y",
            labels[-panels.shape[0] :],
            face,
            room,
            config,
            shown=index % panels.columns == 0,
        )
    if len(panels.panels) == 1:
        grid[0, 0].set_xlabel(_KEY, fontsize=config.font_size)
        grid[0, 0].set_ylabel(_QUERY, fontsize=config.font_size)
    else:
        figure.supxlabel(_KEY, fontsize=config.font_size)
        figure.supylabel(_QUERY, fontsize=config.font_size)
    if panels.title:
        figure.suptitle(face.text(panels.title), fontsize=config.font_size + 3, **face.options)
    if config.show_colorbar:
        bar = figure.colorbar(image, ax=grid, shrink=min(0.8, 6 / height), aspect=25, pad=0.02)
        bar.set_label("attention weight (a row sums to 1)", fontsize=config.font_size)
    return figure


def _ticks(
    axes: Any,
    which: str,
    labels: list[str],
    face: Typeface,
    room: float,
    config: AttentionVisualizationConfig,
    *,
    shown: bool,
) -> None:
    """Label an axis with tokens: as many as fit, none between the panels of a grid."""
    line = config.font_size * LINE / POINTS
    places = list(labelled(len(labels), line, room))
    texts = [face.text(labels[i]) for i in places] if shown else []
    options: dict[str, Any] = {"fontsize": config.font_size, **face.options} if shown else {}
    if shown and which == "x":
        widest = max(map(columns, texts)) * config.font_size * CHARACTER / POINTS
        if widest > room / len(places):
            options |= {"rotation": 90, "ha": "center", "va": "top"}
    set_ticks = axes.set_xticks if which == "x" else axes.set_yticks
    set_ticks(places, texts if shown else [""] * len(places), **options)
    axes.tick_params(length=2)
