"""A circuit as a graph, layers from bottom to top, and the one path that was patched."""

from __future__ import annotations

from typing import Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.circuits.circuit_result import CircuitResult
from mlxray.analyses.circuits.path_result import PathResult
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer

from ..drawing.labels import text_label
from .picture import MEANING, CircuitPicture, circuit_picture

#: Edges in one picture, unless another number is asked for.
MOST = 60


def _circuit(
    result: CircuitResult, edges: int | None, cmap: str, title: str | None
) -> CircuitPicture:
    if title is None:
        method = f"{text_label(result.method, 30)} circuit" if result.method else "Circuit"
        title = f"{method}: {len(result.edges)} of {result.total_edges} edges"
        if result.faithfulness is not None:
            title += f", faithfulness {result.faithfulness:.0%}"
    unit = MEANING.get(result.method, "weight")
    return circuit_picture(result.edges, title=title, unit=unit, most=edges, cmap=cmap)


@visualizer(CircuitResult, backend="matplotlib")
def circuit_matplotlib(
    result: CircuitResult,
    *,
    edges: int | None = MOST,
    figsize: tuple[float, float] | None = None,
    cmap: str = "signed",
    title: str | None = None,
) -> Any:
    """Draw a circuit with matplotlib: boxes are heads and MLPs, edges have their weight's width.

    Args:
        edges: How many edges, the strongest first; None for all.
        figsize: Width and height in inches; grows with the circuit if left out.
        cmap: Colour map around zero. ``"signed"`` is blue for negative, red for positive.
        title: Instead of the one that names method, size and faithfulness.
    """
    from .circuit_matplotlib import draw

    return draw(_circuit(result, edges, cmap, title), figsize)


@visualizer(CircuitResult, backend="plotly")
def circuit_plotly(
    result: CircuitResult,
    *,
    edges: int | None = MOST,
    figsize: tuple[float, float] | None = None,
    cmap: str = "signed",
    title: str | None = None,
) -> Any:
    """Draw a circuit with plotly; arguments as with matplotlib."""
    from .circuit_plotly import draw

    return draw(_circuit(result, edges, cmap, title), figsize)


def _path(result: PathResult, cmap: str, title: str | None) -> CircuitPicture:
    edges = [(s, r, result.effect) for s in result.senders for r in result.receivers]
    if not edges:
        raise InputError("this path has no sender or no receiver: there is nothing to draw.")
    unit = text_label(result.metric_name, 30)
    several = "all paths together" if len(edges) > 1 else "the path"
    return circuit_picture(
        edges,
        title=f"Path patching: {unit} {result.effect:+.3f}" if title is None else title,
        unit=f"{unit}, {several}",
        most=MOST,
        cmap=cmap,
        note=f"with {several} clean and {result.n_frozen} other senders frozen",
        thickest=2.0,
    )


@visualizer(PathResult, backend="matplotlib")
def path_matplotlib(
    result: PathResult,
    *,
    figsize: tuple[float, float] | None = None,
    cmap: str = "signed",
    title: str | None = None,
) -> Any:
    """Draw the path that was patched with matplotlib, coloured by the sign of its effect.

    Args:
        figsize: Width and height in inches.
        cmap: Colour map around zero.
        title: Instead of the one that gives the effect.
    """
    from .circuit_matplotlib import draw

    return draw(_path(result, cmap, title), figsize)


@visualizer(PathResult, backend="plotly")
def path_plotly(
    result: PathResult,
    *,
    figsize: tuple[float, float] | None = None,
    cmap: str = "signed",
    title: str | None = None,
) -> Any:
    """Draw the path that was patched with plotly; arguments as with matplotlib."""
    from .circuit_plotly import draw

    return draw(_path(result, cmap, title), figsize)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Graphs of circuits and paths."""
    return [circuit_matplotlib, circuit_plotly, path_matplotlib, path_plotly]
