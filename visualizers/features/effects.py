"""Effects of features as bars, strongest first."""

from __future__ import annotations

from typing import Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.features.causal.effects_result import FeatureEffectsResult
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer

from ..charts.bars import Bars
from ..drawing.labels import captioned, text_label

#: Features in one picture, unless another number is asked for.
MOST = 30


def _content(result: FeatureEffectsResult, features: int, cmap: str, title: str | None) -> Bars:
    import numpy as np

    from ..charts.matrix import signed_note

    if features < 1:
        raise InputError(f"features is at least 1; got {features}.")
    shown = result.top(features)
    if not shown:
        raise InputError("this result has no features: there is nothing to draw.")
    place, metric = text_label(result.place, 40), text_label(result.metric_name, 30)
    if title is None:
        done = "set to the corrupted prompt's" if result.ablated_to == "corrupted" else "ablated"
        title = f"{place}: each feature {done}"
        title += "" if result.method == "exact" else f", estimated ({text_label(result.method)})"
    parts = [f"all features together: {result.total:+.3g}", signed_note(cmap)]
    if len(shown) < len(result):
        parts.insert(0, f"the strongest {len(shown)} of {len(result)} features")
    if result.texts > 1:
        parts.insert(0, f"mean of {result.texts} texts, 95 % intervals")
    interval = None
    if result.interval is not None:
        interval = np.array([result.interval[feature] for feature, _ in shown]).T
    return Bars(
        np.array([effect for _, effect in shown]),
        [f"f{feature}" for feature, _ in shown],
        title,
        captioned("; ".join(filter(None, parts)), result.warnings),
        f"fall of {metric}",
        False,
        cmap,
        across="feature",
        interval=interval,
    )


@visualizer(FeatureEffectsResult, backend="matplotlib")
def feature_effects_matplotlib(
    result: FeatureEffectsResult,
    *,
    features: int = MOST,
    figsize: tuple[float, float] | None = None,
    cmap: str = "signed",
    title: str | None = None,
) -> Any:
    """Draw the effects of features with matplotlib.

    Args:
        features: How many, the strongest first.
        figsize: Width and height in inches; grows with the features if left out.
        cmap: Colour map around zero.
        title: Instead of the one that names the place.
    """
    from ..charts.bars import draw_matplotlib

    return draw_matplotlib(_content(result, features, cmap, title), figsize)


@visualizer(FeatureEffectsResult, backend="plotly")
def feature_effects_plotly(
    result: FeatureEffectsResult,
    *,
    features: int = MOST,
    figsize: tuple[float, float] | None = None,
    cmap: str = "signed",
    title: str | None = None,
) -> Any:
    """Draw the effects of features with plotly; arguments as with matplotlib."""
    from ..charts.bars import draw_plotly

    return draw_plotly(_content(result, features, cmap, title), figsize)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Pictures of feature patching."""
    return [feature_effects_matplotlib, feature_effects_plotly]
