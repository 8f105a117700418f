"""A dictionary against the features that its data were made of: measures, L0, and each feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.dictionaries.synthetic.score_result import SyntheticScore
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer

from ..drawing.arrays import to_numpy
from ..drawing.colors import CATEGORIES, colormap, plotly_scale
from ..drawing.labels import captioned, plotly_text, text_label

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..drawing.figure import Picture

#: Measure → what its bar is called; all are best at 1, but for the last one.
_MEASURES = {
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "mcc": "MCC",
    "uniqueness": "uniqueness",
    "explained_variance": "explained variance",
    "dead": "dead (best at 0)",
}
_L0 = {"l0": "learned, on", "true_l0": "known, firing"}
#: Explained variance has no lower end; a bar has.
_LOWEST = -1.0
_GOOD, _BAD, _KNOWN = CATEGORIES[0], CATEGORIES[1], CATEGORIES[5]
_PER_ROW = "features per row, mean"
_FREQUENCY, _F1 = "share of rows in which the known feature fires", "F1 of the learned feature"
_LIKENESS = "|cosine| of learned and known"


@dataclass(frozen=True)
class _Content:
    """What is drawn.

    Attributes:
        title, note: Text above.
        measures, l0: Name → value.
        frequencies, f1, likeness: (n,) of the learned features whose known one fires.
        numbers: (n,) of these features.
        matched: (n,) of their known ones.
    """

    title: str
    note: str
    measures: dict[str, float]
    l0: dict[str, float]
    frequencies: NDArray[np.float64]
    f1: NDArray[np.float64]
    likeness: NDArray[np.float64]
    numbers: NDArray[np.int64]
    matched: NDArray[np.int64]

    @property
    def lowest(self) -> float:
        """Where the axis of the measures begins."""
        return max(_LOWEST, min(0.0, *self.measures.values()))


def _content(result: SyntheticScore, title: str | None) -> _Content:
    import numpy as np

    columns = (result.frequencies, result.f1_of_each, result.likeness, result.matched)
    frequencies, f1, likeness, matched = map(to_numpy, columns)
    if len({len(column) for column in (frequencies, f1, likeness, matched)}) > 1:
        raise InputError("a score has F1, likeness, match and frequency of each learned feature.")
    fires = frequencies > 0
    note = (
        f"over {result.rows_read:,} rows; each learned feature with the known one it is most like"
    )
    if not fires.all():
        note += f"\n{(~fires).sum()} of {len(fires)} not shown: their known one never fires here"
    if title is None:
        title = f"{text_label(result.described, 70)} against the features its data are made of"
    return _Content(
        title,
        captioned(note, result.warnings),
        {label: float(getattr(result, name)) for name, label in _MEASURES.items()},
        {label: float(getattr(result, name)) for name, label in _L0.items()},
        frequencies[fires],
        f1[fires],
        likeness[fires],
        np.flatnonzero(fires),
        matched[fires].astype(np.int64),
    )


def _measure_colors(measures: dict[str, float]) -> list[str]:
    return [_BAD if label == _MEASURES["dead"] else _GOOD for label in measures]


@visualizer(SyntheticScore, backend="matplotlib")
def synthetic_score_matplotlib(
    result: SyntheticScore, *, figsize: tuple[float, float] = (11, 5.5), title: str | None = None
) -> Picture:
    """Draw a score on known features with matplotlib.

    Args:
        figsize: Width and height in inches.
        title: Instead of the one that names the dictionary.
    """
    from ..drawing.figure import picture
    from ..drawing.fonts import typeface

    shown = _content(result, title)
    face = typeface([shown.title, shown.note])
    figure = picture(*figsize)
    grid = figure.add_gridspec(2, 2, height_ratios=(7, 2), width_ratios=(1, 1.2))
    measures, l0 = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[1, 0])
    _bars(measures, shown.measures, _measure_colors(shown.measures), (shown.lowest, 1.0), "{:.3f}")
    most = max(shown.l0.values()) or 1.0
    _bars(l0, shown.l0, [_GOOD, _KNOWN], (0.0, most), "{:.1f}")
    l0.set_xlabel(_PER_ROW)
    each = figure.add_subplot(grid[:, 1])
    dots = each.scatter(
        shown.frequencies,
        shown.f1,
        c=shown.likeness,
        s=16,
        cmap=colormap("viridis"),
        vmin=0,
        vmax=1,
    )
    if len(shown.frequencies):
        each.set_xscale("log")
    each.set_ylim(-0.03, 1.03)
    each.set_xlabel(_FREQUENCY)
    each.set_ylabel(_F1)
    each.grid(color="#dddddd")
    each.set_axisbelow(True)
    each.spines[["top", "right"]].set_visible(False)
    figure.colorbar(dots, ax=each, label=_LIKENESS, pad=0.02, aspect=30)
    figure.suptitle(face.text(f"{shown.title}\n{shown.note}"), fontsize=11, **face.options)
    return figure


def _bars(
    axes: Any, values: dict[str, float], colors: list[str], ends: tuple[float, float], form: str
) -> None:
    """Bars from above to below, each with its number; room for it on the right."""
    low, high = ends
    axes.barh(list(values), [max(value, low) for value in values.values()], color=colors)
    for place, value in enumerate(values.values()):
        axes.annotate(
            form.format(value),
            (max(value, 0.0), place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    axes.set_xlim(low, high + 0.15 * (high - low))
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


@visualizer(SyntheticScore, backend="plotly")
def synthetic_score_plotly(
    result: SyntheticScore, *, figsize: tuple[float, float] = (13, 7), title: str | None = None
) -> Any:
    """Draw a score on known features with plotly; arguments as with matplotlib."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from ..drawing.plotly_figure import framed

    shown = _content(result, title)
    figure = make_subplots(
        2,
        2,
        specs=[[{}, {"rowspan": 2}], [{}, None]],
        row_heights=[0.75, 0.25],
        column_widths=[0.45, 0.55],
        horizontal_spacing=0.1,
    )
    panels = (
        (shown.measures, _measure_colors(shown.measures), (shown.lowest, 1.0), ".3f"),
        (shown.l0, [_GOOD, _KNOWN], (0.0, max(shown.l0.values()) or 1.0), ".1f"),
    )
    for row, (values, colors, (low, high), form) in enumerate(panels, 1):
        bars = go.Bar(
            x=[max(value, low) for value in values.values()],
            y=[plotly_text(label) for label in values],
            orientation="h",
            marker={"color": colors},
            text=[format(value, form) for value in values.values()],
            textposition="outside",
            hoverinfo="skip",
        )
        figure.add_trace(bars, row, 1)
        figure.update_xaxes(range=[low, high + 0.15 * (high - low)], row=row, col=1)
        figure.update_yaxes(autorange="reversed", row=row, col=1)
    figure.update_xaxes(title={"text": _PER_ROW}, row=2, col=1)
    columns = zip(shown.numbers, shown.matched, shown.frequencies, shown.f1, shown.likeness,
                  strict=True)  # fmt: skip
    dots = go.Scatter(
        x=shown.frequencies,
        y=shown.f1,
        mode="markers",
        marker={
            "color": shown.likeness,
            "cmin": 0,
            "cmax": 1,
            "colorscale": plotly_scale("viridis"),
            "colorbar": {"title": {"text": _LIKENESS, "side": "right"}},
        },
        hovertext=[
            f"learned {number}, known {known}<br>fires in {share:.2%} of rows<br>"
            f"F1 {f1:.3f}, |cosine| {likeness:.3f}"
            for number, known, share, f1, likeness in columns
        ],
        hoverinfo="text",
    )
    figure.add_trace(dots, 1, 2)
    figure.update_xaxes(type="log", title={"text": _FREQUENCY}, row=1, col=2)
    figure.update_yaxes(range=[-0.03, 1.03], title={"text": _F1}, row=1, col=2)
    figure.update_layout(showlegend=False)
    return framed(figure, shown.title, figsize, note=shown.note)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """A dictionary against known features."""
    return [synthetic_score_matplotlib, synthetic_score_plotly]
