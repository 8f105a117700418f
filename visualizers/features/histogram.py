"""Histograms of features' values, one panel for each feature."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.features.histogram_result import FeatureHistogram, FeatureHistogramResult
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer

from ..drawing.labels import captioned, plotly_text, text_label

if TYPE_CHECKING:
    from ..drawing.figure import Picture

#: Features in one picture.
MOST = 12
_COLOR, _VALUE, _TOKENS = "#2166ac", "value", "tokens"


def _shown(result: FeatureHistogramResult) -> list[FeatureHistogram]:
    shown = [each for each in result.features if each.active][:MOST]
    if not shown:
        raise InputError("no feature of this result is active on any token: nothing to draw.")
    return shown


def _heading(result: FeatureHistogramResult, shown: int, title: str | None) -> tuple[str, str]:
    """Title and note."""
    if title is None:
        title = f"{text_label(result.place, 40)}: values where active"
    left = len(result.features) - shown
    note = f"of {result.tokens_read} tokens"
    note += f"; {left} of {len(result.features)} features not shown" if left else ""
    return title, captioned(note, result.warnings)


def _panel(each: FeatureHistogram) -> str:
    return f"f{each.feature}, active on {1 - each.sparsity:.2%}"


def _grid(count: int) -> tuple[int, int]:
    columns = min(3, count)
    return math.ceil(count / columns), columns


def _size(count: int) -> tuple[float, float]:
    rows, columns = _grid(count)
    return (6.0, 4.0) if count == 1 else (1.0 + 3.4 * columns, 1.0 + 2.6 * rows)


def _bars(each: FeatureHistogram) -> tuple[list[float], float]:
    """Middles and width of the bins."""
    edges = each.bin_edges
    width = edges[1] - edges[0]
    return [edge + width / 2 for edge in edges[:-1]], width


@visualizer(FeatureHistogramResult, backend="matplotlib")
def feature_histogram_matplotlib(
    result: FeatureHistogramResult,
    *,
    log: bool = False,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
) -> Picture:
    """Draw histograms with matplotlib.

    Args:
        log: Count on a logarithmic scale.
        figsize: Width and height in inches; grows with the features if left out.
        title: Instead of the one that names the place.
    """
    from matplotlib.ticker import MaxNLocator

    from ..drawing.figure import picture
    from ..drawing.fonts import typeface

    shown = _shown(result)
    heading, note = _heading(result, len(shown), title)
    face = typeface([heading, note])
    rows, columns = _grid(len(shown))
    figure = picture(*(figsize or _size(len(shown))))
    for place, each in enumerate(shown, 1):
        axes = figure.add_subplot(rows, columns, place)
        middles, width = _bars(each)
        axes.bar(middles, each.counts, width=width, color=_COLOR, edgecolor="white", linewidth=0.5)
        axes.set_title(_panel(each), fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        if log:
            axes.set_yscale("log")
        else:
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        if place > len(shown) - columns:
            axes.set_xlabel(_VALUE, fontsize=9)
        if place % columns == 1 or columns == 1:
            axes.set_ylabel(_TOKENS, fontsize=9)
    figure.suptitle(face.text(f"{heading}\n{note}"), fontsize=11, **face.options)
    return figure


@visualizer(FeatureHistogramResult, backend="plotly")
def feature_histogram_plotly(
    result: FeatureHistogramResult,
    *,
    log: bool = False,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
) -> Any:
    """Draw histograms with plotly; arguments as with matplotlib."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from ..drawing.plotly_figure import framed

    shown = _shown(result)
    heading, note = _heading(result, len(shown), title)
    rows, columns = _grid(len(shown))
    figure = make_subplots(rows, columns, subplot_titles=[plotly_text(_panel(e)) for e in shown])
    for place, each in enumerate(shown):
        middles, width = _bars(each)
        bars = go.Bar(
            x=middles,
            y=each.counts,
            width=width,
            marker={"color": _COLOR, "line": {"color": "white", "width": 0.5}},
            hovertext=[
                f"{low:g} to {high:g}: {count} tokens"
                for low, high, count in zip(
                    each.bin_edges, each.bin_edges[1:], each.counts, strict=False
                )
            ],
            hoverinfo="text",
        )
        row, column = place // columns + 1, place % columns + 1
        figure.add_trace(bars, row, column)
        if place >= len(shown) - columns:
            figure.update_xaxes(title={"text": _VALUE}, row=row, col=column)
        if column == 1:
            figure.update_yaxes(title={"text": _TOKENS}, row=row, col=column)
    if log:
        figure.update_yaxes(type="log")
    figure.update_layout(showlegend=False)
    wide, high = _size(len(shown))
    return framed(figure, heading, figsize or (wide + 1, high + 1), note=note)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Pictures of histograms."""
    return [feature_histogram_matplotlib, feature_histogram_plotly]
