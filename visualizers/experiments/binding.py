"""Binding mechanisms: what is followed at each layer, by group, the mixture, and the heads."""

from __future__ import annotations

from typing import Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.experiments.binding.result import BindingResult
from mlxray.plugins.kinds import Visualizer

from ..charts.matrix import Matrices
from .binding_views import Kind, Stacks, content


@visualizer(BindingResult, backend="matplotlib")
def binding_matplotlib(
    result: BindingResult,
    *,
    kind: Kind = "shares",
    run: int = 0,
    position: int | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    cmap: str | None = None,
) -> Any:
    """Draw binding mechanisms with matplotlib.

    Args:
        kind: "shares", what is followed by layer, all runs side by side; "groups", by layer and
            group asked about; "positions", by layer and patched position; "mixture", the fitted
            mixture; "heads", the rise by head.
        run: Which run, for all kinds but "shares".
        position: Patched position, for "shares" and "groups"; the last of the prompt if left out.
        figsize: Width and height in inches.
        title: Of the whole picture.
        cmap: Colour map of "groups", "positions" and "heads".
    """
    from ..charts import matrix_matplotlib
    from . import binding_matplotlib as draw

    found = content(result, kind, run, position, title, cmap)
    if isinstance(found, Matrices):
        return matrix_matplotlib.draw(found, figsize)
    return (
        draw.stacks(found, figsize) if isinstance(found, Stacks) else draw.mixture(found, figsize)
    )


@visualizer(BindingResult, backend="plotly")
def binding_plotly(
    result: BindingResult,
    *,
    kind: Kind = "shares",
    run: int = 0,
    position: int | None = None,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
    cmap: str | None = None,
) -> Any:
    """Draw binding mechanisms with plotly; arguments as with matplotlib."""
    from ..charts import matrix_plotly
    from . import binding_plotly as draw

    found = content(result, kind, run, position, title, cmap)
    if isinstance(found, Matrices):
        return matrix_plotly.draw(found, figsize)
    return (
        draw.stacks(found, figsize) if isinstance(found, Stacks) else draw.mixture(found, figsize)
    )


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Pictures of binding mechanisms."""
    return [binding_matplotlib, binding_plotly]
