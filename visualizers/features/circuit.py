"""A circuit of features: a graph over layers, or bars where all stand at one place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.features.causal.circuit_result import FeatureCircuitResult
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer

from ..charts.bars import Bars
from ..circuits.layout import Naming, Row
from ..circuits.picture import CircuitPicture, circuit_picture
from ..drawing.labels import captioned, text_label

#: Edges in one picture, or bars, unless another number is asked for.
MOST = 24
LOGITS = "logits"


def _row(name: str) -> Row:
    """Layer, and the place in it: what a block receives comes first, the rest by name."""
    if name == LOGITS:
        return 1 << 30, (1, "")
    place = _place(name)
    layer, _, point = place.partition(".")
    return int(layer[1:]), (int(not point.startswith("resid_pre")), place)


def _place(name: str) -> str:
    place, separator, number = name.rpartition(".f")
    if not (separator and number.isdecimal() and place[:1] == "L" and place[1:2].isdecimal()):
        raise InputError(f"{name!r:.60} is no feature of a circuit; those are L3.resid_post.f42.")
    return place


def _number(name: str) -> int:
    return 0 if name == LOGITS else int(name.rpartition(".f")[2])


FEATURES = Naming(
    row=_row,
    row_name=lambda row: text_label(row[1][1], 18) if row[1][1] else "",
    order=_number,
    kind=lambda name: LOGITS if name == LOGITS else "feature",
    label=lambda name: name if name == LOGITS else f"f{_number(name)}",
)


def _content(
    result: FeatureCircuitResult, edges: int, cmap: str, title: str | None
) -> CircuitPicture | Bars:
    if not result.nodes:
        raise InputError("this circuit has no features: there is nothing to draw.")
    if edges < 1:
        raise InputError(f"edges is at least 1; got {edges}.")
    places = {_place(name) for name in result.nodes}
    if title is None:
        title = f"Circuit of {len(result.nodes)} of {result.features_tested} features"
        if result.faithfulness is not None:
            title += f", faithfulness {result.faithfulness:.0%}"
    unit = f"fall of {text_label(result.metric_name, 30)}"
    if len(places) == 1:
        return _bars(result, places.pop(), edges, cmap, title, unit)
    made = circuit_picture(
        result.edges, title=title, unit=unit, most=edges, cmap=cmap, naming=FEATURES
    )
    return replace(made, note=captioned(made.note, result.warnings))


def _bars(
    result: FeatureCircuitResult, place: str, most: int, cmap: str, title: str, unit: str
) -> Bars:
    import numpy as np

    from ..charts.matrix import signed_note

    shown = sorted(result.effects.items(), key=lambda pair: -abs(pair[1]))[:most]
    parts = [f"{text_label(place, 40)}; all features together: {result.total:+.3g}"]
    if len(shown) < len(result.nodes):
        parts.append(f"the strongest {len(shown)}")
    parts.append(signed_note(cmap))
    return Bars(
        np.array([effect for _, effect in shown]),
        [f"f{_number(name)}" for name, _ in shown],
        title,
        captioned("; ".join(filter(None, parts)), result.warnings),
        unit,
        False,
        cmap,
        across="feature",
    )


@visualizer(FeatureCircuitResult, backend="matplotlib")
def feature_circuit_matplotlib(
    result: FeatureCircuitResult,
    *,
    edges: int = MOST,
    figsize: tuple[float, float] | None = None,
    cmap: str = "signed",
    title: str | None = None,
) -> Any:
    """Draw a circuit of features with matplotlib.

    Args:
        edges: How many edges, the strongest first; bars, where all features stand at one place.
        figsize: Width and height in inches; grows with the circuit if left out.
        cmap: Colour map around zero.
        title: Instead of the one that names size and faithfulness.
    """
    from ..charts import bars
    from ..circuits import circuit_matplotlib

    content = _content(result, edges, cmap, title)
    if isinstance(content, Bars):
        return bars.draw_matplotlib(content, figsize)
    return circuit_matplotlib.draw(content, figsize)


@visualizer(FeatureCircuitResult, backend="plotly")
def feature_circuit_plotly(
    result: FeatureCircuitResult,
    *,
    edges: int = MOST,
    figsize: tuple[float, float] | None = None,
    cmap: str = "signed",
    title: str | None = None,
) -> Any:
    """Draw a circuit of features with plotly; arguments as with matplotlib."""
    from ..charts import bars
    from ..circuits import circuit_plotly

    content = _content(result, edges, cmap, title)
    if isinstance(content, Bars):
        return bars.draw_plotly(content, figsize)
    return circuit_plotly.draw(content, figsize)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Pictures of feature circuits."""
    return [feature_circuit_matplotlib, feature_circuit_plotly]
