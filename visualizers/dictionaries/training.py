"""How a dictionary learned: loss, explained variance, L0 and dead features, step by step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.dictionaries.training.training_result import TrainingResult
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer

from ..drawing.labels import text_label

if TYPE_CHECKING:
    from ..drawing.figure import Picture

#: Curve → what its axis says.
_UNITS = {
    "loss": "loss",
    "explained_variance": "explained variance",
    "l0": "features per token",
    "dead": "share of dead features",
}
_STEP, _COLOR = "training step", "#2166ac"


def _heading(result: TrainingResult, title: str | None) -> str:
    if not result.recorded or set(result.curves) != set(_UNITS):
        raise InputError(f"a training has the curves {', '.join(_UNITS)}; got {result.curves}.")
    return text_label(result.described, 100) if title is None else title


@visualizer(TrainingResult, backend="matplotlib")
def training_matplotlib(
    result: TrainingResult, *, figsize: tuple[float, float] = (9, 6), title: str | None = None
) -> Picture:
    """Draw the curves of a training with matplotlib.

    Args:
        figsize: Width and height in inches.
        title: Of the picture.
    """
    from ..drawing.figure import picture
    from ..drawing.fonts import typeface

    heading = _heading(result, title)
    face = typeface([heading])
    figure = picture(*figsize)
    marker = "o" if len(result.recorded) == 1 else ""
    for place, (name, unit) in enumerate(_UNITS.items(), 1):
        axes = figure.add_subplot(2, 2, place)
        axes.plot(result.recorded, result.curves[name], color=_COLOR, marker=marker)
        axes.set_ylabel(unit)
        axes.grid(axis="y", color="#dddddd")
        axes.spines[["top", "right"]].set_visible(False)
        if place > 2:
            axes.set_xlabel(_STEP)
    figure.suptitle(face.text(heading), **face.options)
    return figure


@visualizer(TrainingResult, backend="plotly")
def training_plotly(
    result: TrainingResult, *, figsize: tuple[float, float] = (9, 6), title: str | None = None
) -> Any:
    """Draw the curves of a training with plotly; arguments as with matplotlib."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from ..drawing.plotly_figure import framed

    heading = _heading(result, title)
    figure = make_subplots(2, 2)
    for place, (name, unit) in enumerate(_UNITS.items()):
        row, column = divmod(place, 2)
        line = go.Scatter(
            x=result.recorded,
            y=result.curves[name],
            mode="lines" if len(result.recorded) > 1 else "markers",
            line={"color": _COLOR},
            hovertemplate=f"step %{{x}}<br>{unit} %{{y:.4g}}<extra></extra>",
        )
        figure.add_trace(line, row + 1, column + 1)
        figure.update_yaxes(title={"text": unit}, row=row + 1, col=column + 1)
        if row:
            figure.update_xaxes(title={"text": _STEP}, row=row + 1, col=column + 1)
    figure.update_layout(showlegend=False)
    return framed(figure, heading, figsize)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """The training of a dictionary."""
    return [training_matplotlib, training_plotly]
