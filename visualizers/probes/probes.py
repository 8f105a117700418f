"""Linear probes: held-out score by layer, beside control tasks and the baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.probes.probe_result import ProbeCell, ProbeResult
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer

from ..drawing.labels import captioned, text_label
from .lines import CONTROL, MAIN, PALE, Lines, Panel, Series, draw_matplotlib, draw_plotly

if TYPE_CHECKING:
    from ..drawing.figure import Picture


def content(result: ProbeResult, title: str | None) -> Lines:
    """A panel for each point and position, layers ascending.

    Raises:
        InputError: if there are no probes.
    """
    if not result.cells:
        raise InputError("this result has no probes: there is nothing to draw.")
    places: dict[tuple[str, str], list[ProbeCell]] = {}
    for cell in result.cells:
        point = cell.point if cell.layer is not None else "whole model"
        places.setdefault((point, str(cell.position)), []).append(cell)
    panels = [
        _panel(f"{point}, {_position(position)}", cells)
        for (point, position), cells in places.items()
    ]
    what = "numbers" if result.classes is None else f"{len(result.classes)} classes"
    name = result.kind.replace("_", " ")
    groups = " groups" if result.grouped else ""
    note = f"{result.train} examples learnt from, {result.test} held out; bars: 95 % intervals"
    return Lines(
        panels,
        title if title is not None else f"Linear probes ({name}) of {what}",
        captioned(note + (f" by{groups}" if groups else ""), result.warnings),
        result.score_name,
        [("baseline, without looking", result.baseline)],
    )


def _position(position: str) -> str:
    words = {"last": "last token", "mean": "mean over tokens"}
    return words.get(position, f"position {position}")


def _panel(title: str, cells: list[ProbeCell]) -> Panel:
    ordered = sorted(cells, key=lambda cell: -1 if cell.layer is None else cell.layer)
    names = [c.point if c.layer is None else str(c.layer) for c in ordered]
    held_out = Series(
        "held out",
        [c.score for c in ordered],
        MAIN,
        low=[c.low for c in ordered],
        high=[c.high for c in ordered],
    )
    control = Series("control task", [c.control for c in ordered], CONTROL, "--")
    train = Series("learnt from", [c.train_score for c in ordered], PALE, ":")
    return Panel(text_label(title, 60), names, [held_out, control, train])


@visualizer(ProbeResult, backend="matplotlib")
def probes_matplotlib(
    result: ProbeResult, *, figsize: tuple[float, float] | None = None, title: str | None = None
) -> Picture:
    """Draw scores by layer with matplotlib.

    Args:
        figsize: Width and height in inches.
        title: Of the picture.
    """
    return draw_matplotlib(content(result, title), figsize)


@visualizer(ProbeResult, backend="plotly")
def probes_plotly(
    result: ProbeResult, *, figsize: tuple[float, float] | None = None, title: str | None = None
) -> Any:
    """Draw scores by layer with plotly; arguments as with matplotlib."""
    return draw_plotly(content(result, title), figsize)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Pictures of linear probes."""
    return [probes_matplotlib, probes_plotly]
