"""A signed number per layer, or per part, as bars coloured blue to red around zero."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..drawing.measure import LINE, POINTS, labelled

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..drawing.figure import Picture

#: With more bars than this they carry no numbers.
_NUMBERED = 40


@dataclass(frozen=True)
class Bars:
    """What both backends draw.

    Attributes:
        values: One per bar; NaN shows as "n/a".
        layers: Labels of the bars.
        title: Of the picture.
        note: Under the title: how to read it.
        unit: What the numbers are.
        percent: Whether 1 is written as 100%.
        cmap: Colour map; its middle is zero.
        across: What a bar stands for.
        interval: (2, bars): lower and upper end of each bar's interval; None without.
    """

    values: NDArray[np.float64]
    layers: list[int] | list[str]
    title: str
    note: str
    unit: str
    percent: bool
    cmap: str
    across: str = "layer"
    interval: NDArray[np.float64] | None = None

    @property
    def names(self) -> list[str]:
        """Labels of the bars, as text."""
        return [str(layer) for layer in self.layers]

    @property
    def upright(self) -> bool:
        """Whether the labels are too long to stand side by side."""
        return max(map(len, self.names)) > 3

    @property
    def size(self) -> tuple[float, float]:
        """Inches that the picture wants."""
        return min(max(2 + 0.45 * len(self.values), 6), 16), 5

    @property
    def numbers(self) -> list[str]:
        """The values as text, empty where there is none."""
        form = "+.0%" if self.percent else "+.2g"
        from .matrix import largest

        # Beside long names stand many bars: those that can hardly be seen carry no number.
        least = 0.01 * largest(self.values) if self.upright else 0.0
        return [
            format(value, form) if math.isfinite(value) and abs(value) >= least else ""
            for value in self.values
        ]

    @property
    def reach(self) -> NDArray[np.float64] | None:
        """(2, bars): how far each interval reaches below and above its bar's end."""
        if self.interval is None:
            return None
        import numpy as np

        low, high = self.interval
        ends: NDArray[np.float64] = np.stack([self.values - low, high - self.values])
        return ends.clip(min=0)

    @property
    def unknown(self) -> list[int]:
        """Bars without a value."""
        return [i for i, value in enumerate(self.values) if not math.isfinite(value)]

    @property
    def colors(self) -> list[str]:
        """The colour of each bar, on a scale that is symmetric around zero."""
        from matplotlib.colors import to_hex

        from ..drawing.colors import NOTHING, colormap
        from .matrix import largest

        colors, limit = colormap(self.cmap), largest(self.values)
        return [
            to_hex(colors(0.5 + 0.5 * value / limit)) if math.isfinite(value) else NOTHING
            for value in self.values
        ]


def draw_matplotlib(bars: Bars, figsize: tuple[float, float] | None) -> Picture:
    """Upright bars, a line at zero."""
    from matplotlib.ticker import PercentFormatter

    from ..drawing.figure import picture
    from ..drawing.fonts import typeface

    width, height = figsize or bars.size
    face = typeface([bars.title, bars.unit, bars.note, *bars.names])
    figure = picture(width, height)
    axes = figure.add_subplot()
    drawn = axes.bar(
        range(len(bars.values)),
        bars.values,
        color=bars.colors,
        edgecolor="#555555",
        linewidth=0.5,
        yerr=bars.reach,
        error_kw={"elinewidth": 1, "capsize": 3, "ecolor": "#333333"},
    )
    if len(bars.values) <= _NUMBERED:
        axes.bar_label(drawn, bars.numbers, fontsize=8, padding=2)
    for i in bars.unknown:
        axes.text(i, 0, "n/a", ha="center", va="bottom", fontsize=8)
    lines = 1 if bars.upright else 2
    places = labelled(len(bars.values), lines * LINE * 9 / POINTS, width - 1)
    axes.set_xticks(
        list(places),
        [face.text(bars.names[i]) for i in places],
        fontsize=9,
        rotation=90 if bars.upright else 0,
        **face.options,
    )
    axes.axhline(0, color="black", linewidth=0.8)
    axes.margins(y=0.12)
    if bars.percent:
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    axes.set_xlabel(bars.across)
    axes.set_ylabel(face.text(bars.unit), **face.options)
    heading = "\n".join(filter(None, (bars.title, bars.note)))
    figure.suptitle(face.text(heading), **face.options)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_plotly(bars: Bars, figsize: tuple[float, float] | None) -> Any:
    """Upright bars, a line at zero."""
    import plotly.graph_objects as go

    from ..drawing.labels import plotly_text
    from ..drawing.plotly_figure import framed, positions

    size = figsize or bars.size
    unit = plotly_text(bars.unit)
    reach = bars.reach
    trace = go.Bar(
        x=list(range(len(bars.values))),
        y=[float(value) if math.isfinite(value) else None for value in bars.values],
        marker={"color": bars.colors, "line": {"color": "#555555", "width": 0.5}},
        error_y=None
        if reach is None
        else {"array": reach[1], "arrayminus": reach[0], "thickness": 1, "color": "#333333"},
        text=bars.numbers if len(bars.values) <= _NUMBERED else None,
        textposition="outside",
        cliponaxis=False,
        hovertext=[
            f"{bars.across} {plotly_text(name)}<br>{unit}: {value:.4f}"
            for name, value in zip(bars.names, bars.values, strict=True)
        ],
        hoverinfo="text",
    )
    figure = framed(go.Figure(trace), bars.title, size, note=bars.note)
    for i in bars.unknown:
        figure.add_annotation(x=i, y=0, text="n/a", showarrow=False, yanchor="bottom")
    every = labelled(len(bars.names), 0.25 if bars.upright else 0.3, size[0] - 1.5)
    figure.update_xaxes(
        positions(bars.names, every, title={"text": bars.across}),
        tickangle=-90 if bars.upright else 0,
    )
    figure.update_yaxes(title={"text": unit}, zerolinecolor="black")
    if bars.percent:
        figure.update_yaxes(tickformat=".0%")
    return figure
