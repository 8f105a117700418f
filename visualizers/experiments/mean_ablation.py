"""Ablation effects as a map: red where the prediction needs a place, blue where it hinders."""

from __future__ import annotations

from typing import Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.experiments.mean_ablation.result import AblationResult
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer

from ..charts.matrix import Matrices
from ..drawing.colors import SIGNED
from ..drawing.labels import text_label, token_label

#: The scale of a probability ends here at the least, so that rounding does not look like a result.
FLOOR = 1e-3


def _content(result: AblationResult, cmap: str, title: str | None) -> Matrices:
    from ..charts.matrix import largest
    from ..drawing.arrays import to_numpy

    effects = to_numpy(result.effects)
    if effects.shape != (len(result.layers), len(result.across)) or not effects.size:
        raise InputError(
            f"effects of shape {effects.shape} for {len(result.layers)} layers and "
            f"{len(result.across)} {result.by}s: there is no map to draw."
        )
    limit = largest(effects)
    if result.metric_name == "probability":
        limit = max(limit, FLOOR)
    common: dict[str, Any] = {
        "title": _title(result, cmap) if title is None else title,
        "note": _base(result),
        "unit": f"{_unit(result)}, scale ±{limit:.2g}",
        "limit": limit,
        "signed": True,
        "cmap": cmap,
    }
    if result.by == "head":
        return Matrices(panels=[("", effects)], rows=result.layers, across="head", **common)
    # Tokens read downwards, and rows are drawn from the bottom.
    whole = result.layers == list(range(len(result.layers)))
    return Matrices(
        panels=[("", effects.T[::-1])],
        rows=[_row(result, position) for position in reversed(result.positions)],
        across="layer",
        down="token",
        columns=None if whole else [str(layer) for layer in result.layers],
        **common,
    )


def _row(result: AblationResult, position: int) -> str:
    token = token_label(result.tokens[position], 16) if result.tokens else ""
    return f"{token} {position}".strip()


def _target(result: AblationResult) -> str:
    if len(set(result.target_texts)) == 1:
        return f"“{token_label(result.target_texts[0], 24)}”"
    return "top token"


def _title(result: AblationResult, cmap: str) -> str:
    kind = "Zero" if result.source == "zero" else "Mean"
    whose = ", with a data set's mean" if result.source == "dataset" else ""
    colors = ": red hurts, blue helps" if cmap == SIGNED else ""
    return f"{kind} ablation of {text_label(result.component, 30)}{whose}{colors}"


def _base(result: AblationResult) -> str:
    what = text_label(result.metric_name, 30)
    if result.metric_name == "probability":
        what = f"P({_target(result)})"
    over = f", mean of {len(result.base_scores)} prompts" if len(result.base_scores) > 1 else ""
    return f"{what} = {result.base_score:.3g} unablated{over}"


def _unit(result: AblationResult) -> str:
    if result.metric_name == "probability":
        return "probability lost"
    return f"{text_label(result.metric_name, 30)} lost"


@visualizer(AblationResult, backend="matplotlib")
def ablation_matplotlib(
    result: AblationResult,
    *,
    figsize: tuple[float, float] | None = None,
    cmap: str = SIGNED,
    title: str | None = None,
) -> Any:
    """Draw ablation effects with matplotlib: tokens downwards and layers across, or heads.

    Args:
        figsize: Width and height in inches; grows with the cells if left out.
        cmap: Colour map around zero; the scale is symmetric. ``"signed"`` is blue where ablating
            helps, white for nothing, red where it hurts.
        title: Instead of the one that names the component.
    """
    from ..charts import matrix_matplotlib

    return matrix_matplotlib.draw(_content(result, cmap, title), figsize)


@visualizer(AblationResult, backend="plotly")
def ablation_plotly(
    result: AblationResult,
    *,
    figsize: tuple[float, float] | None = None,
    cmap: str = SIGNED,
    title: str | None = None,
) -> Any:
    """Draw ablation effects with plotly; arguments as with matplotlib."""
    from ..charts import matrix_plotly

    return matrix_plotly.draw(_content(result, cmap, title), figsize)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Pictures of ablations."""
    return [ablation_matplotlib, ablation_plotly]
