"""Concept erasure: how well a probe reads the label before and after, by layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.probes.erasure_result import ErasureCell, ErasureResult
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer

from ..drawing.labels import captioned, text_label
from .lines import CONTROL, MAIN, Lines, Panel, Series, draw_matplotlib, draw_plotly

if TYPE_CHECKING:
    from ..drawing.figure import Picture


def content(result: ErasureResult, title: str | None) -> Lines:
    """A panel for each point, layers ascending.

    Raises:
        InputError: if there are no erasers.
    """
    if not result.cells:
        raise InputError("this result has no erasers: there is nothing to draw.")
    places: dict[str, list[ErasureCell]] = {}
    for cell in result.cells:
        places.setdefault(cell.point if cell.layer is not None else "whole model", []).append(cell)
    note = (
        f"{result.kind.replace('_', ' ')} probes, {result.train} examples fitted to, "
        f"{result.test} held out; bars: 95 % intervals"
    )
    return Lines(
        [_panel(point, cells) for point, cells in places.items()],
        title if title is not None else "What a probe reads before and after LEACE",
        captioned(note, result.warnings),
        f"held-out {result.score_name}",
        [("baseline, without looking", result.baseline)],
    )


def _panel(point: str, cells: list[ErasureCell]) -> Panel:
    ordered = sorted(cells, key=lambda cell: -1 if cell.layer is None else cell.layer)
    names = [c.point if c.layer is None else str(c.layer) for c in ordered]
    before = Series(
        "before",
        [c.before for c in ordered],
        MAIN,
        low=[c.before_low for c in ordered],
        high=[c.before_high for c in ordered],
    )
    after = Series(
        "after",
        [c.after for c in ordered],
        CONTROL,
        "--",
        low=[c.after_low for c in ordered],
        high=[c.after_high for c in ordered],
    )
    return Panel(text_label(point, 60), names, [before, after])


@visualizer(ErasureResult, backend="matplotlib")
def erasure_matplotlib(
    result: ErasureResult, *, figsize: tuple[float, float] | None = None, title: str | None = None
) -> Picture:
    """Draw scores before and after with matplotlib.

    Args:
        figsize: Width and height in inches.
        title: Of the picture.
    """
    return draw_matplotlib(content(result, title), figsize)


@visualizer(ErasureResult, backend="plotly")
def erasure_plotly(
    result: ErasureResult, *, figsize: tuple[float, float] | None = None, title: str | None = None
) -> Any:
    """Draw scores before and after with plotly; arguments as with matplotlib."""
    return draw_plotly(content(result, title), figsize)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Pictures of concept erasure."""
    return [erasure_matplotlib, erasure_plotly]
