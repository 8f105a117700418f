"""The head-score map: how strongly each head shows each behaviour."""

from __future__ import annotations

from typing import Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.attention.heads_result import HeadScoresResult
from mlxray.errors import InputError, nearest
from mlxray.plugins.kinds import Visualizer

from ..charts.matrix import Matrices
from ..drawing.labels import text_label


def score_matrices(
    result: HeadScoresResult, scores: list[str] | None, title: str | None, cmap: str | None
) -> Matrices:
    """What both backends draw of head scores.

    Raises:
        InputError: if there is no such score, or none at all.
    """
    from ..charts.matrix import largest, signed_note
    from ..drawing.arrays import to_numpy
    from ..drawing.colors import SIGNED

    for name in scores or ():
        if name not in result.scores:
            raise InputError(f"the result has no score {name!r}. {nearest(name, result.scores)}")
    panels = [
        (text_label(name.replace("_", " "), 40), to_numpy(result.scores[name]))
        for name in scores or result.scores
    ]
    if not panels or 0 in panels[0][1].shape:
        raise InputError("this result has no head scores: there is nothing to draw.")
    signed = any(bool((values < 0).any()) for _, values in panels)
    cmap = cmap or (SIGNED if signed else "Blues")
    return Matrices(
        panels=panels,
        rows=list(result.layers),
        title="Head scores by layer and head" if title is None else title,
        note=signed_note(cmap) if signed else "",
        unit="score",
        across="head",
        limit=max(1.0, *(largest(values) for _, values in panels)),
        signed=signed,
        cmap=cmap,
    )


@visualizer(HeadScoresResult, backend="matplotlib")
def head_scores_matplotlib(
    result: HeadScoresResult,
    *,
    scores: list[str] | None = None,
    figsize: tuple[float, float] | None = None,
    cmap: str | None = None,
    title: str | None = None,
) -> Any:
    """Draw head scores with matplotlib: a map of layers and heads per behaviour.

    Args:
        scores: Which behaviours; all if left out.
        figsize: Width and height in inches; grows with the heads if left out.
        cmap: Colour map of 0 to 1; blue and red around 0 where scores are negative.
        title: Of the whole picture.
    """
    from ..charts.matrix_matplotlib import draw

    return draw(score_matrices(result, scores, title, cmap), figsize)


@visualizer(HeadScoresResult, backend="plotly")
def head_scores_plotly(
    result: HeadScoresResult,
    *,
    scores: list[str] | None = None,
    figsize: tuple[float, float] | None = None,
    cmap: str | None = None,
    title: str | None = None,
) -> Any:
    """Draw head scores with plotly; arguments as with matplotlib."""
    from ..charts.matrix_plotly import draw

    return draw(score_matrices(result, scores, title, cmap), figsize)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Maps of head scores."""
    return [head_scores_matplotlib, head_scores_plotly]
