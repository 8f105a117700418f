"""Scores by layer as lines, a panel for each point or position, beside what scores say nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..drawing.measure import LINE, POINTS, labelled

if TYPE_CHECKING:
    from ..drawing.figure import Picture

#: What matters, and what it is compared with.
MAIN, CONTROL, TRUE, PALE, QUIET = "#2166ac", "#b2182b", "#e08214", "#777777", "#444444"
#: Scores below this are cut off: an R² may be anything.
_LOWEST = -1.0
_WIDEST = 15.0
#: Pixels below plotly's panels: labels of the layers, and the legend.
_BELOW = 100


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
        name: For the legend.
        values: One for each layer; NaN leaves a gap.
        color: Of line and markers.
        dash: "-", "--" or ":".
        low, high: Ends of each value's interval; None without.
    """

    name: str
    values: list[float]
    color: str
    dash: str = "-"
    low: list[float] | None = None
    high: list[float] | None = None

    @property
    def reach(self) -> tuple[list[float], list[float]] | None:
        """How far each interval goes below and above its value."""
        if self.low is None or self.high is None:
            return None
        below = [max(0.0, v - end) for v, end in zip(self.values, self.low, strict=True)]
        above = [max(0.0, end - v) for v, end in zip(self.values, self.high, strict=True)]
        return below, above


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: Above it.
        names: Labels of the layers.
        series: Lines, in the order of the legend, the same in every panel.
    """

    title: str
    names: list[str]
    series: list[Series]


@dataclass(frozen=True)
class Lines:
    """What both backends draw.

    Attributes:
        panels: At least one.
        title, note: Above the picture.
        unit: What the numbers are.
        levels: (name, height) of lines across every panel.
    """

    panels: list[Panel]
    title: str
    note: str
    unit: str
    levels: list[tuple[str, float]]

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of panels."""
        wide = self.panel_width + 0.4
        beside = max(1, min(len(self.panels), int(_WIDEST / wide)))
        rows = math.ceil(len(self.panels) / beside)
        return rows, math.ceil(len(self.panels) / rows)

    @property
    def panel_width(self) -> float:
        """Inches that a panel wants."""
        most = max(len(panel.names) for panel in self.panels)
        return min(max(1.6 + 0.4 * most, 4.0), 12.0)

    @property
    def size(self) -> tuple[float, float]:
        """Inches of the whole picture, the legend below it included."""
        rows, columns = self.grid
        return max(columns * self.panel_width + 0.8, 7.5), rows * 3.0 + 1.5

    @property
    def span(self) -> tuple[float, float]:
        """Ends of the axis of scores."""
        found = [v for p in self.panels for s in p.series for v in (*s.values, *(s.low or ()))]
        lowest = min([v for v in found if math.isfinite(v)], default=0.0)
        return min(0.0, max(lowest, _LOWEST)) - 0.03, 1.03


def draw_matplotlib(lines: Lines, figsize: tuple[float, float] | None) -> Picture:
    """Panels side by side, one legend."""
    from ..drawing.figure import picture
    from ..drawing.fonts import typeface

    width, height = figsize or lines.size
    heading = "\n".join(filter(None, (lines.title, lines.note)))
    every = [name for panel in lines.panels for name in (panel.title, *panel.names)]
    face = typeface([heading, lines.unit, *every])
    figure = picture(width, height)
    down, beside = lines.grid
    grid = figure.subplots(down, beside, squeeze=False, sharey=True)
    for axes in grid.flat[len(lines.panels) :]:
        axes.set_visible(False)
    for place, (panel, axes) in enumerate(zip(lines.panels, grid.flat, strict=False)):
        across = range(len(panel.names))
        for series in panel.series:
            style: dict[str, Any] = {"color": series.color, "linestyle": series.dash}
            axes.plot(across, series.values, marker="o", markersize=4, label=series.name, **style)
            if (reach := series.reach) is not None:
                bars = {"fmt": "none", "ecolor": series.color, "elinewidth": 1, "capsize": 3}
                axes.errorbar(across, series.values, yerr=reach, **bars)
        for name, level in lines.levels:
            axes.axhline(level, color=PALE, linestyle=(0, (1, 2)), linewidth=1.2, label=name)
        shown = labelled(len(panel.names), 2 * LINE * 9 / POINTS, (width - 0.8) / beside - 0.9)
        axes.set_xticks(list(shown), [face.text(panel.names[i]) for i in shown], **face.options)
        axes.set_xlim(-0.5, len(panel.names) - 0.5)
        axes.set_ylim(*lines.span)
        axes.set_title(face.text(panel.title), fontsize=10, **face.options)
        axes.set_xlabel("layer")
        if place % beside == 0:
            axes.set_ylabel(face.text(lines.unit), **face.options)
        axes.grid(axis="y", color="#e5e5e5")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    columns = max(1, min(len(labels), int(width / 1.8)))
    place_below: dict[str, Any] = {"loc": "outside lower center", "ncols": columns}
    figure.legend(handles, labels, fontsize=9, frameon=False, **place_below)
    figure.suptitle(face.text(heading), fontsize=11, **face.options)
    return figure


def draw_plotly(lines: Lines, figsize: tuple[float, float] | None) -> Any:
    """Panels side by side, one legend."""
    from plotly.subplots import make_subplots

    from ..drawing.labels import plotly_text
    from ..drawing.plotly_figure import framed, positions

    width, height = figsize or (lines.size[0], lines.size[1] + 0.8)
    down, beside = lines.grid
    figure = make_subplots(
        down,
        beside,
        shared_yaxes=True,
        subplot_titles=[plotly_text(panel.title) for panel in lines.panels],
        horizontal_spacing=0.03,
        vertical_spacing=0.9 / height,
    )
    for place, panel in enumerate(lines.panels):
        row, column = place // beside + 1, place % beside + 1
        for series in panel.series:
            figure.add_trace(_trace(panel, series, lines.unit, place == 0), row=row, col=column)
        for name, level in lines.levels:
            figure.add_trace(_level(name, level, len(panel.names), place == 0), row=row, col=column)
        every = labelled(len(panel.names), 0.3, (width - 0.8) / beside - 0.9)
        figure.update_xaxes(
            positions(panel.names, every, title={"text": "layer"}), row=row, col=column
        )
        figure.update_yaxes(range=list(lines.span), row=row, col=column)
        if column == 1:
            figure.update_yaxes(title={"text": plotly_text(lines.unit)}, row=row, col=column)
    framed(figure, lines.title, (width, height), note=lines.note)
    figure.update_layout(margin={"b": _BELOW})
    # Heights are shares of the panels': below the label of the layers.
    inside = figure.layout.height - figure.layout.margin.t - _BELOW
    legend = {"orientation": "h", "x": 0.5, "xanchor": "center", "yanchor": "top"}
    return figure.update_layout(legend={**legend, "y": -55 / inside})


def _trace(panel: Panel, series: Series, unit: str, first: bool) -> Any:
    import plotly.graph_objects as go

    from ..drawing.labels import plotly_text

    reach = series.reach
    bars = None
    if reach is not None:
        bars = {"array": reach[1], "arrayminus": reach[0], "thickness": 1, "width": 3}
    return go.Scatter(
        x=list(range(len(panel.names))),
        y=[value if math.isfinite(value) else None for value in series.values],
        name=plotly_text(series.name),
        legendgroup=series.name,
        showlegend=first,
        mode="lines+markers",
        line={"color": series.color, "dash": {"-": "solid", "--": "dash"}.get(series.dash, "dot")},
        error_y=bars,
        hovertext=[
            f"{plotly_text(panel.title)}, layer {plotly_text(name)}<br>"
            f"{plotly_text(series.name)}, {plotly_text(unit)}: {value:.3f}"
            for name, value in zip(panel.names, series.values, strict=True)
        ],
        hoverinfo="text",
    )


def _level(name: str, level: float, count: int, first: bool) -> Any:
    import plotly.graph_objects as go

    return go.Scatter(
        x=[-0.5, count - 0.5],
        y=[level, level],
        name=name,
        legendgroup=name,
        showlegend=first,
        mode="lines",
        line={"color": PALE, "dash": "dot", "width": 1.2},
        hovertext=f"{name}: {level:.3f}",
        hoverinfo="text",
    )
