"""The features of a text: a map of features and tokens."""

from __future__ import annotations

from typing import Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.features.text_result import TopFeaturesResult
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer

from ..charts.matrix import Matrices
from ..drawing.labels import captioned, text_label, token_label


def _content(result: TopFeaturesResult, cmap: str | None, title: str | None) -> Matrices:
    from ..charts.matrix import largest
    from ..drawing.arrays import to_numpy

    if not result.features:
        raise InputError("no feature is active in this text: there is nothing to draw.")
    values = to_numpy(result.activations)
    signed = bool((values < 0).any())
    if title is None:
        title = f"{text_label(result.place, 40)}: the most active features"
    return Matrices(
        panels=[("", values[::-1])],
        rows=[f"f{feature}" for feature, _ in reversed(result.features)],
        title=title,
        note=captioned(f"{len(result.features)} of {result.active} active ones", result.warnings),
        unit="value",
        across="token",
        limit=largest(values),
        signed=signed,
        cmap=cmap or ("signed" if signed else "Oranges"),
        columns=[token_label(token, 16) for token in result.tokens],
        down="feature",
    )


@visualizer(TopFeaturesResult, backend="matplotlib")
def top_features_matplotlib(
    result: TopFeaturesResult,
    *,
    figsize: tuple[float, float] | None = None,
    cmap: str | None = None,
    title: str | None = None,
) -> Any:
    """Draw the features of a text with matplotlib.

    Args:
        figsize: Width and height in inches; grows with features and tokens if left out.
        cmap: Colour map of the values; oranges, or blue to red where some are negative.
        title: Instead of the one that names the place.
    """
    from ..charts import matrix_matplotlib

    return matrix_matplotlib.draw(_content(result, cmap, title), figsize)


@visualizer(TopFeaturesResult, backend="plotly")
def top_features_plotly(
    result: TopFeaturesResult,
    *,
    figsize: tuple[float, float] | None = None,
    cmap: str | None = None,
    title: str | None = None,
) -> Any:
    """Draw the features of a text with plotly; arguments as with matplotlib."""
    from ..charts import matrix_plotly

    return matrix_plotly.draw(_content(result, cmap, title), figsize)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Pictures of a text's features."""
    return [top_features_matplotlib, top_features_plotly]
