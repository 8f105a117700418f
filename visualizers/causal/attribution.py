"""Attribution scores: bars by layer, or a map of layers and heads or positions."""

from __future__ import annotations

from typing import Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.causal.attribution.result import AttributionResult
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer

from ..charts.bars import Bars
from ..charts.matrix import Matrices
from ..drawing.labels import text_label


def _content(
    result: AttributionResult, by_position: bool, cmap: str, title: str | None
) -> Bars | Matrices:
    from ..charts.matrix import largest, signed_note
    from ..drawing.arrays import to_numpy

    scores = to_numpy(result.attribution_scores)
    across = "head"
    if by_position:
        parts = to_numpy(result.by_position)
        # Heads add up to their layer, as positions add up to the score.
        scores, across = parts.reshape(len(parts), -1, parts.shape[-1]).sum(axis=1), "position"
    if scores.ndim not in (1, 2) or not scores.size or len(scores) != len(result.layers):
        raise InputError(
            f"scores of shape {scores.shape} for {len(result.layers)} layers: "
            "give (layers,) or (layers, heads)."
        )
    component = text_label(result.component, 40)
    name = text_label(result.method, 40)
    title = f"{component}: estimated effect of patching ({name})" if title is None else title
    unit = f"estimated change of {text_label(result.metric_name, 30)}"
    if scores.ndim == 1:
        return Bars(
            scores, list(result.layers), title, signed_note(cmap), unit, percent=False, cmap=cmap
        )
    return Matrices(
        panels=[("", scores)],
        rows=list(result.layers),
        title=title,
        note=signed_note(cmap),
        unit=unit,
        across=across,
        limit=largest(scores),
        signed=True,
        cmap=cmap,
    )


@visualizer(AttributionResult, backend="matplotlib")
def attribution_matplotlib(
    result: AttributionResult,
    *,
    by_position: bool = False,
    figsize: tuple[float, float] | None = None,
    cmap: str = "signed",
    title: str | None = None,
) -> Any:
    """Draw attribution scores with matplotlib.

    Args:
        by_position: Layers and token positions, heads added up, instead of layers and heads.
        figsize: Width and height in inches; grows with the layers if left out.
        cmap: Colour map around zero; the scale is symmetric.
        title: Instead of the one that names component and method.
    """
    from ..charts import bars, matrix_matplotlib

    content = _content(result, by_position, cmap, title)
    if isinstance(content, Bars):
        return bars.draw_matplotlib(content, figsize)
    return matrix_matplotlib.draw(content, figsize)


@visualizer(AttributionResult, backend="plotly")
def attribution_plotly(
    result: AttributionResult,
    *,
    by_position: bool = False,
    figsize: tuple[float, float] | None = None,
    cmap: str = "signed",
    title: str | None = None,
) -> Any:
    """Draw attribution scores with plotly; arguments as with matplotlib."""
    from ..charts import bars, matrix_plotly

    content = _content(result, by_position, cmap, title)
    if isinstance(content, Bars):
        return bars.draw_plotly(content, figsize)
    return matrix_plotly.draw(content, figsize)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Pictures of attribution patching."""
    return [attribution_matplotlib, attribution_plotly]
