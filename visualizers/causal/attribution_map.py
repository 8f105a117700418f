"""An attribution map: what patching each point would do, by layer and token."""

from __future__ import annotations

from typing import Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.causal.attribution.result import AttributionMapResult
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer

from ..charts.matrix import Matrices
from ..drawing.labels import text_label, token_label


def _map(result: AttributionMapResult, cmap: str, title: str | None) -> Matrices:
    from ..charts.matrix import largest, signed_note
    from ..drawing.arrays import to_numpy

    if not result.maps:
        raise InputError("this attribution map has no points: there is nothing to draw.")
    panels = []
    for point, part in result.maps.items():
        parts = to_numpy(part.by_position)
        panels.append((point, parts.reshape(len(parts), -1, parts.shape[-1]).sum(axis=1)))
    first = next(iter(result.maps.values()))
    if any(part.layers != first.layers for part in result.maps.values()):
        raise InputError("the points were estimated at different layers: draw result[point].")
    name = text_label(first.method, 40)
    return Matrices(
        panels=panels,
        rows=list(first.layers),
        title=f"Estimated effect of patching, by position ({name})" if title is None else title,
        note=signed_note(cmap),
        unit=f"estimated change of {text_label(first.metric_name, 30)}",
        across="token",
        limit=max(largest(values) for _, values in panels),
        signed=True,
        cmap=cmap,
        columns=[token_label(str(token), 14) for token in result.tokens],
    )


@visualizer(AttributionMapResult, backend="matplotlib")
def attribution_map_matplotlib(
    result: AttributionMapResult,
    *,
    figsize: tuple[float, float] | None = None,
    cmap: str = "signed",
    title: str | None = None,
) -> Any:
    """Draw several points' attributions with matplotlib: layers and tokens, heads added up.

    Args:
        figsize: Width and height in inches; grows with the layers if left out.
        cmap: Colour map around zero; the scale is symmetric, one for all points.
        title: Of the whole picture.
    """
    from ..charts.matrix_matplotlib import draw

    return draw(_map(result, cmap, title), figsize)


@visualizer(AttributionMapResult, backend="plotly")
def attribution_map_plotly(
    result: AttributionMapResult,
    *,
    figsize: tuple[float, float] | None = None,
    cmap: str = "signed",
    title: str | None = None,
) -> Any:
    """Draw several points' attributions with plotly; arguments as with matplotlib."""
    from ..charts.matrix_plotly import draw

    return draw(_map(result, cmap, title), figsize)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Pictures of an attribution map."""
    return [attribution_map_matplotlib, attribution_map_plotly]
