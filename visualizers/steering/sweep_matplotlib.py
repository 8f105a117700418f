"""A steering sweep with matplotlib."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..charts.matrix import largest
from ..drawing.colors import SIGNED, colormap, ink
from ..drawing.figure import Picture, picture
from ..drawing.fonts import Typeface, typeface
from ..drawing.measure import LINE, POINTS, labelled
from .sweep import Sweep, cost_text, score_text

if TYPE_CHECKING:
    from matplotlib.colors import Colormap

_SIZE = 9
_COSTS = "Reds"
COST = "neutral perplexity over unsteered"
#: With more layers than this a scale of colours stands for the legend.
_LEGEND = 14


def _face(sweep: Sweep) -> Typeface:
    return typeface([sweep.title, sweep.note, sweep.unit])


def _headed(figure: Picture, sweep: Sweep, face: Typeface) -> None:
    heading = "\n".join(filter(None, (sweep.title, sweep.note)))
    figure.suptitle(face.text(heading), fontsize=_SIZE + 1, **face.options)


def line_colors() -> Colormap:
    """Colours of the layers' lines, the first dark and the last still to be seen on white."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("layers", colormap("viridis")(np.linspace(0, 0.92)))


def draw_map(sweep: Sweep, figsize: tuple[float, float] | None, cmap: str | None) -> Picture:
    """Score and cost side by side, each with its own scale."""
    from matplotlib.ticker import FixedLocator

    width, height = figsize or sweep.map_size
    figure, face = picture(width, height), _face(sweep)
    left, right = figure.subplots(1, 2)
    cmap, ends = score_colors(sweep, cmap)
    room = width / 2 - 1.3, height - 1.7
    image = _map(left, sweep, sweep.score, cmap, ends, room)
    _hatched(left, sweep)
    if sweep.small:
        _numbers(left, image, [[score_text(v) for v in row] for row in sweep.score])
    bar = figure.colorbar(image, ax=left, pad=0.02, aspect=25)
    bar.set_label(face.text(sweep.unit), fontsize=_SIZE, **face.options)
    image = _map(right, sweep, sweep.decades, _COSTS, sweep.cost_range, room)
    if sweep.small:
        _numbers(right, image, [[cost_text(v) for v in row] for row in sweep.cost])
    ticks = cost_ticks(sweep)
    bar = figure.colorbar(image, ax=right, pad=0.02, aspect=25, extend=_extend(sweep))
    bar.ax.yaxis.set_major_locator(FixedLocator([np.log10(t) for t in ticks]))
    bar.ax.set_yticklabels([f"{t:g}×" for t in ticks])
    bar.ax.minorticks_off()
    bar.set_label(COST, fontsize=_SIZE)
    hatched = " (hatched: past the limit of cost)" if sweep.over_limit.any() else ""
    left.set_title(f"score{hatched}", fontsize=_SIZE)
    right.set_title("cost", fontsize=_SIZE)
    _headed(figure, sweep, face)
    return figure


def score_colors(sweep: Sweep, cmap: str | None) -> tuple[str, tuple[float, float]]:
    """The score's colour map and the ends of its scale."""
    limit = largest(sweep.score)
    signed = bool((sweep.score < 0).any())
    return cmap or (SIGNED if signed else "viridis"), (-limit if signed else 0.0, limit)


def cost_ticks(sweep: Sweep) -> list[float]:
    """Round costs on the scale."""
    top = 10 ** sweep.cost_range[1]
    near = [1, 1.1, 1.2, 1.5, 2, 3, 5]
    steps = near if top <= 8 else [1, 2, 5, 10, 20, 50, 100] if top <= 150 else [1, 10, 100, 1000]
    return [float(s) for s in steps if s <= top * 1.0001]


def curve_ticks(sweep: Sweep) -> list[float]:
    """Round costs from the smallest to the largest, at most eight: as fine as that allows."""
    finite = [*sweep.cost[np.isfinite(sweep.cost)], sweep.limit, 1.0]
    low, high = min(finite) * 0.999, max(finite) * 1.001
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for steps in ((1, 1.1, 1.2, 1.3, 1.5, 2, 3, 5, 7, 8, 9), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**n for n in decades for step in steps if low <= step * 10.0**n <= high]
        if len(ticks) <= 8:
            return ticks
    return ticks[:: math.ceil(len(ticks) / 8)]


def _extend(sweep: Sweep) -> str:
    decades = sweep.decades[~np.isnan(sweep.decades)]
    return "max" if (decades > sweep.cost_range[1] + 1e-9).any() else "neither"


def _map(
    axes: Any,
    sweep: Sweep,
    values: NDArray[np.float64],
    cmap: str,
    ends: tuple[float, float],
    room: tuple[float, float],
) -> Any:
    from matplotlib.patches import Rectangle

    image = axes.imshow(
        values,
        cmap=colormap(cmap),
        vmin=ends[0],
        vmax=ends[1],
        origin="lower",
        aspect="auto",
        interpolation="nearest",
    )
    places = labelled(len(sweep.strengths), 4 * 0.6 * _SIZE / POINTS, room[0])
    axes.set_xticks(list(places), [f"{sweep.strengths[i]:g}" for i in places], fontsize=_SIZE)
    places = labelled(len(sweep.layers), LINE * _SIZE / POINTS, room[1])
    axes.set_yticks(list(places), [str(sweep.layers[i]) for i in places], fontsize=_SIZE)
    axes.tick_params(length=0)
    axes.set_xlabel(sweep.across, fontsize=_SIZE)
    axes.set_ylabel("layer", fontsize=_SIZE)
    if sweep.best is not None:
        row, column = sweep.best
        frame = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="black", lw=2)
        frame.set_clip_on(False)
        axes.add_patch(frame)
    return image


def _numbers(axes: Any, image: Any, texts: list[list[str]]) -> None:
    """Numbers in the cells."""
    values = np.ma.filled(image.get_array(), np.nan)
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            color = ink(image.cmap(image.norm(float(values[row, column]))))
            axes.text(column, row, text, ha="center", va="center", fontsize=7.5, color=color)


def _hatched(axes: Any, sweep: Sweep) -> None:
    """Hatches over the cells that cost too much."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    cells = [Rectangle((c - 0.5, r - 0.5), 1, 1) for r, c in np.argwhere(sweep.over_limit)]
    style: dict[str, Any] = {"facecolor": "none", "edgecolor": "#00000033", "linewidth": 0}
    axes.add_collection(PatchCollection(cells, hatch="////", **style), autolim=False)


def draw_curves(sweep: Sweep, figsize: tuple[float, float] | None, cmap: str | None) -> Picture:
    """Score and cost against the strength, a line for each layer."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.ticker import NullFormatter

    figure, face = picture(*(figsize or (9.5, 4.2))), _face(sweep)
    left, right = figure.subplots(1, 2)
    colors = line_colors()
    for row, layer in enumerate(sweep.layers):
        color = colors(row / max(1, len(sweep.layers) - 1))
        left.plot(sweep.strengths, sweep.score[row], "o-", ms=3.5, color=color, label=str(layer))
        cost = np.where(np.isfinite(sweep.cost[row]), sweep.cost[row], np.nan)
        right.plot(sweep.strengths, cost, "o-", ms=3.5, color=color, label=str(layer))
    left.axhline(sweep.base, color="#777777", ls=":", lw=1)
    left.annotate(
        "unsteered",
        (1, sweep.base),
        (-2, 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color="#555555",
    )
    right.axhline(sweep.limit, color="#777777", ls="--", lw=1)
    right.annotate(
        f"limit {cost_text(sweep.limit)}",
        (1, sweep.limit),
        (-2, 3),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color="#555555",
    )
    if sweep.best is not None:
        row, column = sweep.best
        for axes, values in ((left, sweep.score), (right, sweep.cost)):
            axes.plot(
                sweep.strengths[column],
                values[row, column],
                "o",
                ms=10,
                color="black",
                fillstyle="none",
            )
    right.set_yscale("log")
    ticks = curve_ticks(sweep)
    right.set_yticks(ticks, [f"{tick:,g}×" for tick in ticks])
    right.yaxis.set_minor_formatter(NullFormatter())
    for axes, name in ((left, sweep.unit), (right, COST)):
        axes.set_xlabel(sweep.across, fontsize=_SIZE)
        axes.set_ylabel(face.text(name), fontsize=_SIZE, **face.options)
        axes.tick_params(labelsize=_SIZE)
        axes.grid(color="#e5e5e5")
        axes.spines[["top", "right"]].set_visible(False)
    if len(sweep.layers) <= _LEGEND:
        handles, labels = left.get_legend_handles_labels()
        figure.legend(
            handles[::-1],
            labels[::-1],
            title="layer",
            loc="outside right center",
            fontsize=8,
            title_fontsize=_SIZE,
            frameon=False,
        )
    else:
        scale = ScalarMappable(Normalize(sweep.layers[0], sweep.layers[-1]), line_colors())
        figure.colorbar(scale, ax=[left, right], label="layer", aspect=30, pad=0.02)
    _headed(figure, sweep, face)
    return figure
