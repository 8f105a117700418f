"""Conversations: attention between turns as a map, and what each turn does to an answer."""

from __future__ import annotations

from typing import Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.conversation.result import TurnEffectsResult
from mlxray.conversation.result import ConversationResult
from mlxray.plugins.kinds import Visualizer

from ..charts.bars import Bars
from ..charts.matrix import Matrices
from ..drawing.labels import text_label

_WIDTH = 28


def _labels(turns: list[dict[str, Any]], width: int = _WIDTH) -> list[str]:
    """``"0 user: My name is…"`` for each turn."""
    return [
        f"{turn['index']} {text_label(turn['role'], 12)}: {text_label(turn['content'], width)}"
        for turn in turns
    ]


def _short(turns: list[dict[str, Any]]) -> list[str]:
    return [f"{turn['index']} {text_label(turn['role'], 12)}" for turn in turns]


def _attention(result: ConversationResult, cmap: str, title: str | None) -> Matrices:
    from ..charts.matrix import largest
    from ..drawing.arrays import to_numpy

    values = to_numpy(result.cross_turn_attention)
    layers, heads = result.layers, result.heads
    of = f"layer {layers[0]}" if len(layers) == 1 else f"mean of {len(layers)} layers"
    if heads is None:
        of += ", mean of all heads"
    else:
        of += f", head {heads[0]}" if len(heads) == 1 else f", mean of {len(heads)} heads"
    words = "contents only" if result.content_only else "whole turns"
    share = result.keys == "sum"
    return Matrices(
        panels=[("", values[::-1])],
        rows=_labels(result.turns)[::-1],
        title=f"Attention between turns ({of})" if title is None else title,
        note=f"a token of the row's turn to {'all of' if share else 'one token of'} "
        f"the column's; {words}",
        unit="share of attention" if share else "attention",
        across="turn looked at",
        limit=largest(values),
        signed=False,
        cmap=cmap,
        columns=_short(result.turns),
        down="turn that looks",
    )


def _effects(result: TurnEffectsResult, cmap: str, title: str | None) -> Bars | Matrices:
    from ..charts.matrix import largest, signed_note
    from ..drawing.arrays import to_numpy

    effects = to_numpy(result.effects)
    answer = text_label(result.answer, 40)
    if title is None:
        title = (
            f"What “{answer}” owes to each turn"
            if result.change == "cut"
            else f"What each turn brings of “{answer}”"
        )
    reach = {
        "later": "for all later tokens",
        "last": "for the last turn and the answer",
    }.get(result.readers, "")
    split = result.layers is not None
    what = f"each turn {result.change} {'in one layer ' if split else ''}{reach}"
    note = "; ".join(filter(None, (what, signed_note(cmap))))
    unit = f"change of {text_label(result.metric_name, 40)}"
    if result.layers is None:
        names = _labels(result.turns, 22)
        return Bars(effects, names, title, note, unit, False, cmap, across="turn")
    return Matrices(
        panels=[("", effects[::-1])],
        rows=_labels(result.turns)[::-1],
        title=title,
        note=note,
        unit=unit,
        across="layer",
        limit=largest(effects),
        signed=True,
        cmap=cmap,
        columns=[str(layer) for layer in result.layers],
        down="turn",
    )


def _bars_size(content: Bars) -> tuple[float, float]:
    """Inches, with room below the bars for what the turns say."""
    width, height = content.size
    return max(width, 7.0), height - 1.0 + 0.08 * max(map(len, content.names))


def _plotly_size(content: Bars | Matrices) -> tuple[float, float]:
    """Inches: plotly takes the room for long labels from the picture itself."""
    if isinstance(content, Bars):
        width, height = _bars_size(content)
        return width, height + 1.0
    width, height = content.size
    labels = max(len(str(row)) for row in content.rows)
    return max(width + 0.09 * labels, 8.5), max(height + 1.0, 5.0)


@visualizer(ConversationResult, backend="matplotlib")
def conversation_matplotlib(
    result: ConversationResult,
    *,
    figsize: tuple[float, float] | None = None,
    cmap: str = "Blues",
    title: str | None = None,
) -> Any:
    """Draw attention between turns with matplotlib, the first turn on top.

    Args:
        figsize: Width and height in inches; grows with the turns if left out.
        cmap: Colour map, from 0 to the largest entry.
        title: Instead of the one that names layers and heads.
    """
    from ..charts.matrix_matplotlib import draw

    return draw(_attention(result, cmap, title), figsize)


@visualizer(ConversationResult, backend="plotly")
def conversation_plotly(
    result: ConversationResult,
    *,
    figsize: tuple[float, float] | None = None,
    cmap: str = "Blues",
    title: str | None = None,
) -> Any:
    """Draw attention between turns with plotly; arguments as with matplotlib."""
    from ..charts.matrix_plotly import draw

    content = _attention(result, cmap, title)
    return draw(content, figsize or _plotly_size(content))


@visualizer(TurnEffectsResult, backend="matplotlib")
def turn_effects_matplotlib(
    result: TurnEffectsResult,
    *,
    figsize: tuple[float, float] | None = None,
    cmap: str = "signed",
    title: str | None = None,
) -> Any:
    """Draw what turns do to an answer with matplotlib: bars, or a map of turns and layers.

    Args:
        figsize: Width and height in inches; grows with the turns if left out.
        cmap: Colour map around zero; the scale is symmetric. ``"signed"`` is blue for negative,
            white for none, red for positive.
        title: Instead of the one that names the answer.
    """
    from ..charts import bars, matrix_matplotlib

    content = _effects(result, cmap, title)
    if isinstance(content, Bars):
        return bars.draw_matplotlib(content, figsize or _bars_size(content))
    return matrix_matplotlib.draw(content, figsize)


@visualizer(TurnEffectsResult, backend="plotly")
def turn_effects_plotly(
    result: TurnEffectsResult,
    *,
    figsize: tuple[float, float] | None = None,
    cmap: str = "signed",
    title: str | None = None,
) -> Any:
    """Draw what turns do to an answer with plotly; arguments as with matplotlib."""
    from ..charts import bars, matrix_plotly

    content = _effects(result, cmap, title)
    size = figsize or _plotly_size(content)
    if isinstance(content, Bars):
        return bars.draw_plotly(content, size)
    return matrix_plotly.draw(content, size)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Pictures of conversations."""
    return [
        conversation_matplotlib,
        conversation_plotly,
        turn_effects_matplotlib,
        turn_effects_plotly,
    ]
