"""Induction heads: maps of the scores above the loss by token, with and without the best heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.experiments.induction_heads.result import InductionResult
from mlxray.plugins.kinds import Visualizer

from ..attention.head_scores import score_matrices
from .induction_lines import LossLines, loss_lines

if TYPE_CHECKING:
    from ..charts.matrix import Matrices
    from ..drawing.figure import Picture

_TITLE = "Induction heads: scores, and the loss on repeated random tokens"
_ACROSS, _UNIT = "token", "loss (nats)"
_GREY = "#777777"


def _maps(result: InductionResult, scores: list[str] | None, cmap: str | None) -> Matrices:
    """The maps of `scores`; if None, those that fit beside one another, prefix matching first."""
    maps = score_matrices(result, scores, "", cmap)
    fitting = maps.grid[1]
    if scores is None and fitting < len(maps.panels):
        maps = score_matrices(result, list(result.scores)[:fitting], "", cmap)
    return maps


@visualizer(InductionResult, backend="matplotlib")
def induction_matplotlib(
    result: InductionResult,
    *,
    ablation: str | None = None,
    scores: list[str] | None = None,
    figsize: tuple[float, float] | None = None,
    cmap: str | None = None,
    title: str | None = None,
) -> Picture:
    """Draw scores and losses with matplotlib.

    Args:
        ablation: How the heads were switched off; the first way if left out.
        scores: Which maps; as many as fit beside one another if left out.
        figsize: Width and height in inches; grows with the heads if left out.
        cmap: Colour map of the scores.
        title: Of the whole picture.
    """
    from ..charts.matrix_matplotlib import draw_on
    from ..drawing.figure import picture
    from ..drawing.fonts import typeface

    maps = _maps(result, scores, cmap)
    lines = loss_lines(result, ablation)
    heading = _TITLE if title is None else title
    face = typeface([heading])
    width, height = figsize or (max(maps.size[0], 9.0), maps.size[1] + 3.8)
    share = maps.size[1] / (maps.size[1] + 3.4)
    figure = picture(width, height)
    figure.suptitle(face.text(heading), fontsize=12, **face.options)
    parts: Any = figure.subfigures(2, 1, height_ratios=[share, 1 - share])
    upper, lower = parts
    draw_on(upper, maps, (width, height * share))
    _draw_lines(lower.subplots(), lines)
    return figure


def _draw_lines(axes: Any, lines: LossLines) -> None:
    for line in lines.lines:
        style = {"color": line.color, "linewidth": 1.4, "linestyle": line.dash}
        axes.plot(lines.tokens, line.means, label=line.name, **style)
        if line.low is not None:
            axes.fill_between(
                lines.tokens, line.low, line.high, color=line.color, alpha=0.2, linewidth=0
            )
    axes.axhline(lines.guessing, color=_GREY, linestyle=":", linewidth=1, label=lines.guess)
    for copy in lines.copies:
        axes.axvline(copy, color=_GREY, linewidth=0.8)
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    axes.set_xlabel(f"{_ACROSS} ({lines.note})", fontsize=9)
    axes.set_ylabel(_UNIT, fontsize=9)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)


@visualizer(InductionResult, backend="plotly")
def induction_plotly(
    result: InductionResult,
    *,
    ablation: str | None = None,
    scores: list[str] | None = None,
    figsize: tuple[float, float] | None = None,
    cmap: str | None = None,
    title: str | None = None,
) -> Any:
    """Draw scores and losses with plotly; arguments as with matplotlib."""
    from plotly.subplots import make_subplots

    from ..charts.matrix_plotly import color_axis, heat
    from ..drawing.labels import plotly_text
    from ..drawing.measure import labelled
    from ..drawing.plotly_figure import framed, positions

    maps = _maps(result, scores, cmap)
    lines = loss_lines(result, ablation)
    count = len(maps.panels)
    wide, high = maps.panel_size
    width, height = figsize or (max(count * (wide + 0.7) + 2.4, 9.5), high + 7.0)
    upper = high / (high + 3.6)
    figure = make_subplots(
        rows=2,
        cols=count,
        specs=[[{}] * count, [{"colspan": count}, *[None] * (count - 1)]],
        row_heights=[upper, 1 - upper],
        subplot_titles=[plotly_text(name) for name, _ in maps.panels],
        vertical_spacing=1.5 / height,
        horizontal_spacing=0.7 / width if count > 1 else 0,
    )
    down, across = maps.shape
    for index in range(count):
        place = {"row": 1, "col": index + 1}
        figure.add_trace(heat(maps, index), **place)
        named = positions(maps.column_labels, labelled(across, 0.3, width / count - 1))
        figure.update_xaxes(named, title={"text": maps.across, "standoff": 4}, **place)
        rows = positions([str(layer) for layer in maps.rows], labelled(down, 0.2, high))
        figure.update_yaxes(rows, **place)
    figure.update_yaxes(title={"text": maps.down, "standoff": 4}, row=1, col=1)
    _add_lines(figure, lines)
    framed(figure, _TITLE if title is None else title, (width, height), note=maps.note)
    figure.update_layout(
        coloraxis=color_axis(maps, len=upper, y=1, yanchor="top"),
        legend={
            "orientation": "h",
            "y": -0.9 / height,
            "x": 0.5,
            "xanchor": "center",
            "yanchor": "top",
        },
    )
    return figure


def _add_lines(figure: Any, lines: LossLines) -> None:
    import plotly.graph_objects as go
    from matplotlib.colors import to_rgb

    place = {"row": 2, "col": 1}
    for line in lines.lines:
        if line.low is not None and line.high is not None:
            red, green, blue = (round(255 * part) for part in to_rgb(line.color))
            band = go.Scatter(
                x=[*lines.tokens, *reversed(lines.tokens)],
                y=[*line.high, *reversed(line.low)],
                fill="toself",
                fillcolor=f"rgba({red},{green},{blue},0.2)",
                line={"width": 0},
                mode="lines",
                hoverinfo="skip",
                showlegend=False,
            )
            figure.add_trace(band, **place)
        trace = go.Scatter(
            x=lines.tokens,
            y=line.means,
            name=line.name,
            mode="lines",
            line={"color": line.color, "dash": "dash" if line.dash == "--" else "solid"},
            hovertemplate=f"{_ACROSS} %{{x}}<br>%{{y:.3f}} nats<extra>{line.name}</extra>",
        )
        figure.add_trace(trace, **place)
    ends = [lines.tokens[0], lines.tokens[-1]]
    style = {"color": _GREY, "dash": "dot", "width": 1}
    level = [lines.guessing] * 2
    figure.add_trace(
        go.Scatter(x=ends, y=level, name=lines.guess, mode="lines", line=style), **place
    )
    for copy in lines.copies:
        figure.add_vline(x=copy, line={"color": _GREY, "width": 1}, **place)
    figure.update_xaxes(title={"text": f"{_ACROSS} ({lines.note})"}, **place)
    figure.update_yaxes(title={"text": _UNIT}, rangemode="tozero", **place)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """The picture of the experiment with induction heads."""
    return [induction_matplotlib, induction_plotly]
