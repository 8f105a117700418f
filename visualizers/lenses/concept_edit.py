"""An edit in a lens' coordinates: its effect among random ones, and what became of the tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.lenses.jacobian.concept_edit_result import ConceptEditResult
from mlxray.display import layer_ranges
from mlxray.plugins.kinds import Visualizer

from ..drawing.labels import captioned, plotly_text, token_label

if TYPE_CHECKING:
    from ..drawing.figure import Picture

_EDIT, _RANDOM, _CLEAN = "#b2182b", "#7f7f7f", "#92c5de"
_PROBABILITY = "probability of the next token"


def _heading(result: ConceptEditResult, title: str | None) -> tuple[str, str]:
    before, after = token_label(result.clean_answer), token_label(result.edited_answer)
    answer = f"stays {before}" if before == after else f"{before} → {after}"
    layers = "layer" if len(result.layers) == 1 else "layers"
    where = f"{layers} {layer_ranges(result.layers)}"
    own = f"{result.edit.capitalize()} at {where}: the answer {answer}"
    return own if title is None else title, captioned("", result.warnings)


def _runs(result: ConceptEditResult) -> list[tuple[str, str, list[float]]]:
    return [
        ("clean", _CLEAN, result.clean_probabilities),
        (result.edit, _EDIT, result.edited_probabilities),
        ("random (mean)", _RANDOM, result.control_probabilities),
    ]


def _across(result: ConceptEditResult) -> str:
    return f"change of {result.score_name} (nats)"


@visualizer(ConceptEditResult, backend="matplotlib")
def concept_edit_matplotlib(
    result: ConceptEditResult,
    *,
    figsize: tuple[float, float] = (9, 3.8),
    title: str | None = None,
) -> Picture:
    """Draw an edit among its controls with matplotlib.

    Args:
        figsize: Width and height in inches.
        title: Of the picture.
    """
    from ..drawing.figure import picture
    from ..drawing.fonts import typeface

    heading, note = _heading(result, title)
    tokens = [token_label(token) for token in result.watched]
    face = typeface([heading, _across(result), *tokens])
    figure = picture(*figsize)
    effects, probabilities = figure.subplots(1, 2, width_ratios=[3, 2])
    controls = result.control_effects
    effects.axvline(0, color="#bbbbbb", linewidth=1)
    effects.scatter(controls, [0] * len(controls), s=60, color=_RANDOM, alpha=0.5)
    effects.scatter([result.effect], [1], s=130, marker="D", color=_EDIT)
    effects.set_yticks([0, 1], [f"random × {len(controls)}", result.edit])
    effects.set_ylim(-0.6, 1.6)
    effects.set_xlabel(face.text(_across(result)), **face.options)
    effects.spines[["top", "right"]].set_visible(False)
    for index, (name, color, values) in enumerate(_runs(result)):
        places = [place + 0.27 * (index - 1) for place in range(len(values))]
        probabilities.bar(places, values, 0.25, color=color, label=name)
    probabilities.set_xticks(range(len(tokens)), [face.text(t) for t in tokens], **face.options)
    probabilities.set_ylim(0, 1)
    probabilities.set_ylabel(_PROBABILITY)
    probabilities.spines[["top", "right"]].set_visible(False)
    above: Any = {"loc": "lower center", "bbox_to_anchor": (0.45, 0.98), "ncol": 3}
    probabilities.legend(frameon=False, fontsize=9, handlelength=1, columnspacing=1, **above)
    figure.suptitle(face.text("\n".join(filter(None, (heading, note)))), **face.options)
    return figure


@visualizer(ConceptEditResult, backend="plotly")
def concept_edit_plotly(
    result: ConceptEditResult,
    *,
    figsize: tuple[float, float] = (11, 5),
    title: str | None = None,
) -> Any:
    """Draw an edit among its controls with plotly; arguments as with matplotlib."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    from ..drawing.plotly_figure import framed, positions

    heading, note = _heading(result, title)
    figure = make_subplots(1, 2, column_widths=[0.6, 0.4], horizontal_spacing=0.14)
    rows = [
        (0, result.control_effects, "circle", 11, _RANDOM),
        (1, [result.effect], "diamond", 16, _EDIT),
    ]
    for height, values, symbol, size, color in rows:
        marker = {"symbol": symbol, "size": size, "color": color, "opacity": 0.6 + 0.4 * height}
        hover = "%{x:+.3f} nats<extra></extra>"
        dots = go.Scatter(
            x=values,
            y=[height] * len(values),
            mode="markers",
            marker=marker,
            hovertemplate=hover,
            showlegend=False,
        )
        figure.add_trace(dots, 1, 1)
    labels = [f"random × {len(result.control_effects)}", result.edit]
    figure.update_yaxes(positions(labels), row=1, col=1)
    figure.update_xaxes(title={"text": plotly_text(_across(result))}, row=1, col=1)
    tokens = [token_label(token) for token in result.watched]
    for name, color, probabilities in _runs(result):
        bars = go.Bar(
            x=list(range(len(tokens))),
            y=probabilities,
            name=plotly_text(name),
            marker={"color": color},
            hovertemplate="%{y:.4f}",
        )
        figure.add_trace(bars, 1, 2)
    figure.update_xaxes(positions(tokens), row=1, col=2)
    figure.update_yaxes(title={"text": _PROBABILITY}, range=[0, 1], row=1, col=2)
    return framed(figure, heading, figsize, note=note)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Edits in a lens' coordinates."""
    return [concept_edit_matplotlib, concept_edit_plotly]
