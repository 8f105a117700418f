"""A Jacobian lens: how large each Jacobian is, how near the identity, and how settled the mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.lenses.jacobian.jacobian_lens_result import JacobianLens
from mlxray.display import counted
from mlxray.plugins.kinds import Visualizer

from ..drawing.labels import captioned, plotly_text

if TYPE_CHECKING:
    from ..drawing.figure import Picture

_BLUE = "#2166ac"


@dataclass(frozen=True)
class Panel:
    """One curve with its axes."""

    x: list[int]
    y: list[float]
    across: str
    up: str
    logarithmic: bool = False

    @property
    def line(self) -> bool:
        """Whether there are too many values for a dot each."""
        return len(self.x) > 60


def _panels(lens: JacobianLens) -> list[Panel]:
    rows = lens.rows()[1]
    layers = [row[0] for row in rows]
    panels = [
        Panel(layers, [row[1] for row in rows], "layer", "size: norm / √D (identity: 1)"),
        Panel(layers, [row[2] for row in rows], "layer", "cosine with the identity"),
    ]
    if lens.changes:
        done = list(range(2, lens.n_prompts + 1))
        shares = [100 * change for change in lens.changes]
        name = "change of the mean (%)"
        panels.append(Panel(done, shares, "with prompt", name, logarithmic=min(shares) > 0))
    return panels


def _heading(lens: JacobianLens, title: str | None) -> tuple[str, str]:
    own = f"Jacobian lens, width {lens.d_model}: mean over {counted(lens.n_prompts, 'prompt')}"
    return own if title is None else title, captioned("", lens.warnings)


@visualizer(JacobianLens, backend="matplotlib")
def jacobian_lens_matplotlib(
    result: JacobianLens, *, figsize: tuple[float, float] | None = None, title: str | None = None
) -> Picture:
    """Draw a Jacobian lens with matplotlib.

    Args:
        figsize: Width and height in inches.
        title: Of the picture.
    """
    from matplotlib.ticker import LogFormatter, MaxNLocator, ScalarFormatter

    from ..drawing.figure import picture
    from ..drawing.fonts import typeface

    panels = _panels(result)
    heading, note = _heading(result, title)
    face = typeface([heading])
    figure = picture(*(figsize or (4 * len(panels), 3.8)))
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        axes.plot(panel.x, panel.y, color=_BLUE, marker="" if panel.line else "o")
        axes.set_xlabel(panel.across)
        axes.set_ylabel(panel.up)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if panel.logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.5)))
        else:
            axes.set_ylim(bottom=min(0, *panel.y), top=1.08 * max(*panel.y, 0.01))
        axes.grid(axis="y", color="#dddddd")
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(face.text("\n".join(filter(None, (heading, note)))), **face.options)
    return figure


@visualizer(JacobianLens, backend="plotly")
def jacobian_lens_plotly(
    result: JacobianLens, *, figsize: tuple[float, float] | None = None, title: str | None = None
) -> Any:
    """Draw a Jacobian lens with plotly; arguments as with matplotlib."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from ..drawing.plotly_figure import framed

    panels = _panels(result)
    heading, note = _heading(result, title)
    figure = make_subplots(1, len(panels), horizontal_spacing=0.12)
    for column, panel in enumerate(panels, 1):
        mode = "lines" if panel.line else "lines+markers"
        hover = f"{panel.across} %{{x}}<br>%{{y:.3g}}<extra></extra>"
        line = {"color": _BLUE}
        curve = go.Scatter(x=panel.x, y=panel.y, mode=mode, line=line, hovertemplate=hover)
        figure.add_trace(curve, 1, column)
        figure.update_xaxes(title={"text": plotly_text(panel.across)}, row=1, col=column)
        kind = "log" if panel.logarithmic else "linear"
        name = {"text": plotly_text(panel.up)}
        figure.update_yaxes(title=name, type=kind, row=1, col=column)
        if not panel.logarithmic:
            figure.update_yaxes(rangemode="tozero", row=1, col=column)
    figure.update_layout(showlegend=False)
    return framed(figure, heading, figsize or (4.6 * len(panels), 5), note=note)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """A Jacobian lens."""
    return [jacobian_lens_matplotlib, jacobian_lens_plotly]
