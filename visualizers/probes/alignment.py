"""Distributed alignment search: interchange accuracy beside its controls, as lines or maps."""

from __future__ import annotations

from typing import Any, Literal

from mlxray import hookimpl, visualizer
from mlxray.analyses.probes.alignment_result import AlignmentCell, AlignmentResult
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer

from ..charts.matrix import Matrices
from ..drawing.labels import captioned, text_label
from .lines import (
    CONTROL,
    MAIN,
    PALE,
    QUIET,
    TRUE,
    Lines,
    Panel,
    Series,
    draw_matplotlib,
    draw_plotly,
)

View = Literal["lines", "map"]

_UNIT = "share of counterfactual answers"


def _heading(result: AlignmentResult, title: str | None) -> tuple[str, str]:
    if not result.cells:
        raise InputError("this result has no subspaces: there is nothing to draw.")
    directions = "1 direction" if result.rank == 1 else f"{result.rank} directions"
    note = (
        f"{result.train} counterfactuals learnt from, {result.test} held out; random: mean of "
        f"{result.draws} draws"
    )
    made = f"Distributed alignment search, {directions} at {_points(result)}"
    return made if title is None else title, captioned(note, result.warnings)


def _points(result: AlignmentResult) -> str:
    return text_label(", ".join(dict.fromkeys(cell.point for cell in result.cells)), 40)


def lines(result: AlignmentResult, title: str | None) -> Lines:
    """A panel for each position, layers ascending.

    Raises:
        InputError: if there are no subspaces.
    """
    heading, note = _heading(result, title)
    positions: dict[int, list[AlignmentCell]] = {}
    for cell in result.cells:
        positions.setdefault(cell.position, []).append(cell)
    return Lines(
        [_panel(position, cells) for position, cells in sorted(positions.items())],
        heading,
        note + "; bars: 95 % intervals",
        _UNIT,
        [("without interchange", result.no_op)],
    )


def _panel(position: int, cells: list[AlignmentCell]) -> Panel:
    ordered = sorted(cells, key=lambda cell: -1 if cell.layer is None else cell.layer)
    names = [c.point if c.layer is None else str(c.layer) for c in ordered]
    learnt = Series(
        "learnt subspace",
        [c.accuracy for c in ordered],
        MAIN,
        low=[c.low for c in ordered],
        high=[c.high for c in ordered],
    )
    others = [
        Series("whole activation", [c.full_swap for c in ordered], QUIET, ":"),
        Series("placebo", [c.placebo for c in ordered], CONTROL, "--"),
        Series("placebo, by true answers", [c.placebo_true for c in ordered], TRUE, "--"),
        Series("random subspaces", [c.random for c in ordered], PALE, "--"),
    ]
    return Panel(f"position {position}", names, [learnt, *others])


def maps(result: AlignmentResult, title: str | None) -> Matrices:
    """Layers × positions: the learnt subspaces and their controls.

    Raises:
        InputError: if there are no subspaces.
    """
    import numpy as np

    heading, note = _heading(result, title)
    layers = sorted({-1 if cell.layer is None else cell.layer for cell in result.cells})
    positions = sorted({cell.position for cell in result.cells})
    names = ("accuracy", "full_swap", "placebo", "placebo_true", "random")
    tables = np.full((len(names), len(layers), len(positions)), np.nan)
    for cell in result.cells:
        row = layers.index(-1 if cell.layer is None else cell.layer)
        column = positions.index(cell.position)
        tables[:, row, column] = [getattr(cell, name) for name in names]
    titles = (
        "learnt subspace",
        "whole activation",
        "placebo",
        "placebo, by true answers",
        "random subspaces",
    )
    return Matrices(
        panels=list(zip(titles, tables, strict=True)),
        rows=[_points(result) if layer < 0 else str(layer) for layer in layers],
        title=heading,
        note=f"{note}\nwithout interchange: {result.no_op:.2f}",
        unit=_UNIT,
        across="position",
        limit=1.0,
        signed=False,
        cmap="viridis",
        columns=[str(position) for position in positions],
    )


def _check(view: str) -> None:
    if view not in ("lines", "map"):
        raise InputError(f'view is "lines" or "map"; got {view!r}.')


@visualizer(AlignmentResult, backend="matplotlib")
def alignment_matplotlib(
    result: AlignmentResult,
    *,
    view: View = "lines",
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
) -> Any:
    """Draw interchange accuracy and its controls with matplotlib.

    Args:
        view: "lines": against the layer, a panel for each position. "map": layers × positions, a
            map for the learnt subspaces and each control.
        figsize: Width and height in inches.
        title: Of the picture.
    """
    from ..charts import matrix_matplotlib

    _check(view)
    if view == "map":
        return matrix_matplotlib.draw(maps(result, title), figsize)
    return draw_matplotlib(lines(result, title), figsize)


@visualizer(AlignmentResult, backend="plotly")
def alignment_plotly(
    result: AlignmentResult,
    *,
    view: View = "lines",
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
) -> Any:
    """Draw interchange accuracy and its controls with plotly; arguments as with matplotlib."""
    from ..charts import matrix_plotly

    _check(view)
    if view == "map":
        return matrix_plotly.draw(maps(result, title), figsize)
    return draw_plotly(lines(result, title), figsize)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Pictures of aligned subspaces."""
    return [alignment_matplotlib, alignment_plotly]
