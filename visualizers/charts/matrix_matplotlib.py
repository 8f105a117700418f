"""Heat maps of layers and heads with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..drawing.colors import colormap, ink
from ..drawing.figure import Picture, picture
from ..drawing.fonts import typeface
from ..drawing.measure import LINE, POINTS, labelled
from .matrix import Matrices

if TYPE_CHECKING:
    from matplotlib.figure import FigureBase

_SIZE = 9


def draw(matrices: Matrices, figsize: tuple[float, float] | None) -> Picture:
    """One map per panel, one colour bar."""
    width, height = figsize or matrices.size
    figure = picture(width, height)
    draw_on(figure, matrices, (width, height))
    return figure


def draw_on(figure: FigureBase, matrices: Matrices, size: tuple[float, float]) -> None:
    """The same on a figure, or a part of one, that is so many inches wide and high."""
    width, height = size
    names = matrices.column_labels
    titles = [title for title, _ in matrices.panels]
    sides = [str(row) for row in matrices.rows]
    inside = ["".join(row) for panel in matrices.texts or () for row in panel]
    fixed = [matrices.title, matrices.note, matrices.unit]
    face = typeface([*fixed, *titles, *names, *sides, *inside])
    down, beside = matrices.grid
    grid = figure.subplots(down, beside, squeeze=False)
    rows, columns = matrices.shape
    room = (width - 1.6) / beside - 0.6, (height - 1.1) / down - matrices.below
    image: Any = None
    for panel, ((title, values), axes) in enumerate(zip(matrices.panels, grid.flat, strict=False)):
        image = axes.imshow(
            values,
            cmap=colormap(matrices.cmap),
            vmin=matrices.low,
            vmax=matrices.limit,
            origin="lower",
            aspect="auto",
            interpolation="nearest",
        )
        for row in range(rows):
            for column in range(columns):
                text = matrices.text(panel, row, column)
                if text:
                    color = ink(image.cmap(image.norm(float(values[row, column]))))
                    place = {"ha": "center", "va": "center", "fontsize": 7.5, "color": color}
                    axes.text(column, row, face.text(text), **place, **face.options)
        places = labelled(columns, (1 if matrices.upright else 2) * LINE * _SIZE / POINTS, room[0])
        axes.set_xticks(
            list(places),
            [face.text(names[i]) for i in places],
            fontsize=_SIZE,
            rotation=90 if matrices.upright else 0,
            **face.options,
        )
        places = labelled(rows, LINE * _SIZE / POINTS, room[1])
        texts = [face.text(sides[i]) for i in places]
        axes.set_yticks(list(places), texts, fontsize=_SIZE, **face.options)
        axes.tick_params(length=0)
        axes.set_xlabel(matrices.across, fontsize=_SIZE)
        axes.set_ylabel(matrices.down, fontsize=_SIZE)
        if title:
            axes.set_title(face.text(title), fontsize=_SIZE + 1, **face.options)
    for axes in grid.flat[len(matrices.panels) :]:
        axes.set_visible(False)
    heading = "\n".join(filter(None, (matrices.title, matrices.note)))
    figure.suptitle(face.text(heading), fontsize=_SIZE + 2, **face.options)
    bar = figure.colorbar(image, ax=grid, pad=0.02, aspect=25)
    bar.set_label(face.text(matrices.unit), fontsize=_SIZE, **face.options)
