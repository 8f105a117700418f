"""The tokens that features promote and suppress, as bars to both sides."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.features.logits_result import FeatureLogitsResult, TokenLogit
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer

from ..drawing.colors import SIGNED_COLORS
from ..drawing.labels import captioned, plotly_text, text_label, token_label

if TYPE_CHECKING:
    from ..drawing.figure import Picture

#: Features in one picture, and tokens at either end of each.
MOST_FEATURES, MOST_TOKENS = 9, 10
_WIDTH = 18
_MEANING = {
    "direction": "decoder row through the head, without the final norm",
    "direct effect": "mean direct effect on the logits where it is most active",
}


def _panels(result: FeatureLogitsResult) -> list[tuple[str, list[TokenLogit]]]:
    """Feature, and its tokens from the most suppressed to the most promoted."""
    if not result.features:
        raise InputError("this result has no features: there is nothing to draw.")
    return [
        (
            f"f{feature}",
            [*result.suppressed[at][:MOST_TOKENS], *reversed(result.promoted[at][:MOST_TOKENS])],
        )
        for at, feature in enumerate(result.features[:MOST_FEATURES])
    ]


def _heading(result: FeatureLogitsResult, title: str | None) -> tuple[str, str]:
    """Title and note."""
    if title is None:
        title = f"{text_label(result.place, 40)}: tokens that features promote and suppress"
    note = _MEANING.get(result.kind, result.kind)
    left = len(result.features) - MOST_FEATURES
    note += f"; {left} more features not shown" if left > 0 else ""
    return title, captioned(note, result.warnings)


def _grid(count: int) -> tuple[int, int]:
    columns = min(3, count)
    return math.ceil(count / columns), columns


def _size(panels: list[tuple[str, list[TokenLogit]]]) -> tuple[float, float]:
    rows, columns = _grid(len(panels))
    lines = max(len(tokens) for _, tokens in panels)
    return max(6.0, 0.8 + 3.6 * columns), 1.2 + rows * (0.9 + 0.2 * lines)


def _colors(tokens: list[TokenLogit]) -> list[str]:
    low, _, high = SIGNED_COLORS
    return [high if each.logit >= 0 else low for each in tokens]


@visualizer(FeatureLogitsResult, backend="matplotlib")
def feature_logits_matplotlib(
    result: FeatureLogitsResult,
    *,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
) -> Picture:
    """Draw what features write into the logits with matplotlib.

    Args:
        figsize: Width and height in inches; grows with features and tokens if left out.
        title: Instead of the one that names the place.
    """
    from ..drawing.figure import picture
    from ..drawing.fonts import typeface

    panels = _panels(result)
    heading, note = _heading(result, title)
    labels = [[token_label(each.token, _WIDTH) for each in tokens] for _, tokens in panels]
    face = typeface([heading, note, *(label for own in labels for label in own)])
    rows, columns = _grid(len(panels))
    figure = picture(*(figsize or _size(panels)))
    for place, ((name, tokens), own) in enumerate(zip(panels, labels, strict=True), 1):
        axes = figure.add_subplot(rows, columns, place)
        axes.barh(range(len(tokens)), [each.logit for each in tokens], color=_colors(tokens))
        axes.set_yticks(
            range(len(tokens)), [face.text(label) for label in own], fontsize=8, **face.options
        )
        axes.axvline(0, color="black", linewidth=0.8)
        axes.tick_params(axis="x", labelsize=8)
        axes.set_title(name, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        if place > len(panels) - columns:
            axes.set_xlabel("logit", fontsize=9)
    figure.suptitle(face.text(f"{heading}\n{note}"), fontsize=11, **face.options)
    return figure


@visualizer(FeatureLogitsResult, backend="plotly")
def feature_logits_plotly(
    result: FeatureLogitsResult,
    *,
    figsize: tuple[float, float] | None = None,
    title: str | None = None,
) -> Any:
    """Draw what features write into the logits with plotly; arguments as with matplotlib."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from ..drawing.plotly_figure import framed, positions

    panels = _panels(result)
    heading, note = _heading(result, title)
    rows, columns = _grid(len(panels))
    figure = make_subplots(rows, columns, subplot_titles=[plotly_text(name) for name, _ in panels])
    for place, (_, tokens) in enumerate(panels):
        labels = [token_label(each.token, _WIDTH) for each in tokens]
        bars = go.Bar(
            orientation="h",
            y=list(range(len(tokens))),
            x=[each.logit for each in tokens],
            marker={"color": _colors(tokens)},
            hovertext=[
                f"{plotly_text(label)} ({each.token_id}): {each.logit:+.4g}"
                for label, each in zip(labels, tokens, strict=True)
            ],
            hoverinfo="text",
        )
        row, column = place // columns + 1, place % columns + 1
        figure.add_trace(bars, row, column)
        figure.update_yaxes(positions(labels), row=row, col=column)
        if place >= len(panels) - columns:
            figure.update_xaxes(title={"text": "logit"}, row=row, col=column)
    figure.update_layout(showlegend=False)
    width, height = _size(panels)
    return framed(figure, heading, figsize or (width + 1, height + 1), note=note)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Pictures of the logits that features write."""
    return [feature_logits_matplotlib, feature_logits_plotly]
