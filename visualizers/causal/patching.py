"""Patching effects: bars by layer, or a map of layers and heads, blue to red around zero."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.causal.patching_result import PatchingResult
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer

from ..charts.bars import Bars
from ..charts.matrix import Matrices
from ..drawing.labels import captioned, text_label, token_label

#: What the columns of a map are, where it is not the name of the split.
_ACROSS = {"layer": "head", "head_position": "position"}


def _content(result: PatchingResult, cmap: str, title: str | None) -> Bars | Matrices:
    import numpy as np

    from ..charts.matrix import largest, signed_note
    from ..drawing.arrays import to_numpy

    effects = to_numpy(result.recovery)
    if effects.ndim not in (1, 2, 3) or not effects.size or len(effects) != len(result.layers):
        raise InputError(
            f"effects of shape {effects.shape} for {len(result.layers)} layers: "
            "give (layers,), (layers, heads) or (layers, heads, positions)."
        )
    component = text_label(result.component, 40)
    title = f"Activation patching, {component}: fraction recovered" if title is None else title
    unit = f"recovery ({text_label(result.metric_name, 30)})"
    colors = signed_note(cmap)
    if effects.ndim == 1:
        note = "; ".join(filter(None, ("100%: the clean behaviour is back", colors)))
        interval = None
        if result.interval is not None:
            ends = [to_numpy(end) for end in result.shares(result.interval)]
            interval = np.sort(np.stack(ends), axis=0)
            note += f"\nlines: 95% intervals of the mean of {result.pairs} pairs"
        note = captioned(note, result.warnings)
        bars = Bars(effects, list(result.layers), title, note, unit, percent=True, cmap=cmap)
        return replace(bars, interval=interval)
    # Heads and positions: a panel for each layer.
    columns = _tokens(result)
    panels = [("", effects)]
    if effects.ndim == 3:
        panels = [
            (f"layer {layer}", each) for layer, each in zip(result.layers, effects, strict=True)
        ]
    return Matrices(
        panels=panels,
        rows=list(result.layers) if effects.ndim == 2 else list(range(effects.shape[1])),
        title=title,
        note=captioned(
            "; ".join(filter(None, ("1: the clean behaviour is back", colors))), result.warnings
        ),
        unit=unit,
        across=_ACROSS.get(result.by, result.by) if columns is None else "token (clean/corrupted)",
        down="layer" if effects.ndim == 2 else "head",
        limit=largest(effects),
        signed=True,
        cmap=cmap,
        columns=_numbers(result) if columns is None else columns,
    )


def _numbers(result: PatchingResult) -> list[str] | None:
    return None if result.columns is None else list(map(str, result.columns))


def _tokens(result: PatchingResult) -> list[str] | None:
    """Labels of the positions that were patched: the tokens, both where the prompts differ."""
    if result.tokens is None or result.by not in ("position", "head_position"):
        return None
    positions = range(len(result.tokens)) if result.columns is None else result.columns
    pairs = (result.tokens[at] for at in positions)
    return [
        token_label(own, 14) if clean == own else f"{token_label(clean, 10)}/{token_label(own, 10)}"
        for clean, own in pairs
    ]


@visualizer(PatchingResult, backend="matplotlib")
def patching_matplotlib(
    result: PatchingResult,
    *,
    figsize: tuple[float, float] | None = None,
    cmap: str = "signed",
    title: str | None = None,
) -> Any:
    """Draw patching effects with matplotlib.

    Args:
        figsize: Width and height in inches; grows with the layers if left out.
        cmap: Colour map around zero; the scale is symmetric. ``"signed"`` is blue for negative,
            white for none, red for positive.
        title: Instead of the one that names the component.
    """
    from ..charts import bars, matrix_matplotlib

    content = _content(result, cmap, title)
    if isinstance(content, Bars):
        return bars.draw_matplotlib(content, figsize)
    return matrix_matplotlib.draw(content, figsize)


@visualizer(PatchingResult, backend="plotly")
def patching_plotly(
    result: PatchingResult,
    *,
    figsize: tuple[float, float] | None = None,
    cmap: str = "signed",
    title: str | None = None,
) -> Any:
    """Draw patching effects with plotly; arguments as with matplotlib."""
    from ..charts import bars, matrix_plotly

    content = _content(result, cmap, title)
    if isinstance(content, Bars):
        return bars.draw_plotly(content, figsize)
    return matrix_plotly.draw(content, figsize)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Pictures of patching."""
    return [patching_matplotlib, patching_plotly]
