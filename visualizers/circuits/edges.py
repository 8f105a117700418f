"""Scores of all edges: a map of receivers and senders, or the strongest of them as a graph."""

from __future__ import annotations

from typing import Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.circuits.circuit_result import EdgeScoresResult, connected
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer

from ..charts.matrix import Matrices
from ..drawing.labels import text_label
from .picture import MEANING, CircuitPicture, circuit_picture


def _map(result: EdgeScoresResult, cmap: str, title: str | None) -> Matrices:
    import numpy as np

    from ..charts.matrix import largest, signed_note

    if not result.scores:
        raise InputError("this result has no edges: there is nothing to draw.")
    senders = list(dict.fromkeys(sender for sender, _, _ in result.scores))
    receivers = list(dict.fromkeys(receiver for _, receiver, _ in result.scores))
    values = np.full((len(receivers), len(senders)), np.nan)
    rows = {name: i for i, name in enumerate(receivers)}
    columns = {name: i for i, name in enumerate(senders)}
    for sender, receiver, score in result.scores:
        values[rows[receiver], columns[sender]] = score
    name = text_label(result.method, 30)
    return Matrices(
        panels=[("", values)],
        rows=[text_label(receiver, 20) for receiver in receivers],
        title=f"{name} scores of {len(result.scores)} edges" if title is None else title,
        note="; ".join(filter(None, ("grey: no such edge", signed_note(cmap)))),
        unit=MEANING.get(result.method, "score"),
        across="sender",
        limit=largest(values),
        signed=True,
        cmap=cmap,
        columns=[text_label(sender, 20) for sender in senders],
        down="receiver",
    )


def _graph(result: EdgeScoresResult, edges: int, cmap: str, title: str | None) -> CircuitPicture:
    kept = connected(result.top(edges))
    if not kept:
        raise InputError(
            f"the {edges} strongest edges hold no path from embed to logits: "
            "take more, or leave edges out for the map of all."
        )
    name = text_label(result.method, 30)
    heading = f"{name}: the {edges} strongest edges, {len(kept)} of them on a path"
    unit = MEANING.get(result.method, "score")
    return circuit_picture(
        kept, title=heading if title is None else title, unit=unit, most=None, cmap=cmap
    )


@visualizer(EdgeScoresResult, backend="matplotlib")
def edge_scores_matplotlib(
    result: EdgeScoresResult,
    *,
    edges: int | None = None,
    figsize: tuple[float, float] | None = None,
    cmap: str = "signed",
    title: str | None = None,
) -> Any:
    """Draw the scores of all edges with matplotlib, or a graph of the strongest.

    Args:
        edges: Draw this many of the strongest as a graph, less dead ends; the map if left out.
        figsize: Width and height in inches; grows with the model if left out.
        cmap: Colour map around zero; the scale is symmetric.
        title: Instead of the one that names the method.
    """
    from ..charts import matrix_matplotlib
    from . import circuit_matplotlib

    if edges is not None:
        return circuit_matplotlib.draw(_graph(result, edges, cmap, title), figsize)
    return matrix_matplotlib.draw(_map(result, cmap, title), figsize)


@visualizer(EdgeScoresResult, backend="plotly")
def edge_scores_plotly(
    result: EdgeScoresResult,
    *,
    edges: int | None = None,
    figsize: tuple[float, float] | None = None,
    cmap: str = "signed",
    title: str | None = None,
) -> Any:
    """Draw the scores of all edges with plotly, or a graph; arguments as with matplotlib."""
    from ..charts import matrix_plotly
    from . import circuit_plotly

    if edges is not None:
        return circuit_plotly.draw(_graph(result, edges, cmap, title), figsize)
    return matrix_plotly.draw(_map(result, cmap, title), figsize)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Pictures of edge scores."""
    return [edge_scores_matplotlib, edge_scores_plotly]
