"""How a tuned lens learned: its training loss, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.lenses.tuned_lens_result import TunedLens
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer

if TYPE_CHECKING:
    from ..drawing.figure import Picture

_STEP, _LOSS = "training step", "loss (nats per token, mean over layers)"


def _heading(lens: TunedLens, title: str | None) -> str:
    if not lens.losses:
        raise InputError("this tuned lens was not trained: there is no loss to draw.")
    if title is not None:
        return title
    return f"Tuned lens of {lens.num_layers} layers: training loss"


@visualizer(TunedLens, backend="matplotlib")
def tuned_lens_matplotlib(
    result: TunedLens, *, figsize: tuple[float, float] = (8, 4.5), title: str | None = None
) -> Picture:
    """Draw the training loss with matplotlib.

    Args:
        figsize: Width and height in inches.
        title: Of the picture.
    """
    from ..drawing.figure import picture
    from ..drawing.fonts import typeface

    heading = _heading(result, title)
    face = typeface([heading])
    figure = picture(*figsize)
    axes = figure.add_subplot()
    marker = "o" if len(result.losses) == 1 else ""
    axes.plot(range(1, len(result.losses) + 1), result.losses, color="#2166ac", marker=marker)
    axes.set_xlabel(_STEP)
    axes.set_ylabel(_LOSS)
    axes.set_title(face.text(heading), **face.options)
    axes.grid(axis="y", color="#dddddd")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


@visualizer(TunedLens, backend="plotly")
def tuned_lens_plotly(
    result: TunedLens, *, figsize: tuple[float, float] = (8, 5), title: str | None = None
) -> Any:
    """Draw the training loss with plotly; arguments as with matplotlib."""
    import plotly.graph_objects as go

    from ..drawing.plotly_figure import framed

    heading = _heading(result, title)
    line = go.Scatter(
        x=list(range(1, len(result.losses) + 1)),
        y=result.losses,
        mode="lines" if len(result.losses) > 1 else "markers",
        line={"color": "#2166ac"},
        hovertemplate="step %{x}<br>loss %{y:.4f}<extra></extra>",
    )
    figure = framed(go.Figure(line), heading, figsize)
    figure.update_xaxes(title={"text": _STEP})
    figure.update_yaxes(title={"text": _LOSS})
    return figure


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """The training of a tuned lens."""
    return [tuned_lens_matplotlib, tuned_lens_plotly]
