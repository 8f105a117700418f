"""Direct logit attribution: signed bars of the parts, or a map of heads and MLPs."""

from __future__ import annotations

from typing import Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.causal.logit_attribution.result import DLAResult
from mlxray.arrays import nested
from mlxray.errors import InputError, nearest
from mlxray.plugins.kinds import Visualizer

from ..charts.bars import Bars
from ..charts.matrix import Matrices
from ..drawing.labels import text_label, token_label

STYLES = ("bars", "map")
#: Bars in one picture, unless another number is asked for.
MOST = 30


def _content(
    result: DLAResult, style: str, top: int | None, cmap: str, title: str | None
) -> Bars | Matrices:
    if style not in STYLES:
        raise InputError(f"there is no style {style!r}. {nearest(str(style), STYLES)}")
    if title is None:
        title = f"What adds to the logit of {_token(result.target_token_str)}"
        if result.incorrect_token_str is not None:
            title += f" less that of {_token(result.incorrect_token_str)}"
    if style == "map":
        return _map(result, cmap, title)
    return _bars(result, MOST if top is None else top, cmap, title)


def _token(text: str) -> str:
    return f"“{token_label(text, 24)}”"


def _bars(result: DLAResult, top: int, cmap: str, title: str) -> Bars:
    import numpy as np

    from ..charts.matrix import signed_note

    if top < 1:
        raise InputError(f"top is at least 1; got {top}.")
    parts = result.components()
    strongest = {name for name, _ in result.top_components(top)}
    drawn = [(name, value) for name, value in parts if name in strongest]
    note = f"all {len(parts)} parts sum to {result.total:+.2f}"
    if len(drawn) < len(parts):
        note = f"the strongest {len(drawn)} of {len(parts)} parts, which sum to {result.total:+.2f}"
    return Bars(
        np.array([value for _, value in drawn], dtype=np.float64),
        [text_label(name, 20) for name, _ in drawn],
        title,
        "; ".join(filter(None, (note, signed_note(cmap)))),
        "logit",
        percent=False,
        cmap=cmap,
        across="part of the model",
    )


def _map(result: DLAResult, cmap: str, title: str) -> Matrices:
    import numpy as np

    from ..charts.matrix import largest, signed_note

    if not result.layers:
        raise InputError("no layers were told apart: there is no map to draw.")
    most = max((len(values) for values in result.heads.values()), default=1)
    columns = [f"head {i}" for i in range(most)] if result.heads else ["attention"]
    values = np.full((len(result.layers), len(columns) + 1), np.nan)
    whole = nested(result.head_contributions)
    mlp = nested(result.mlp_contributions)
    for row, layer in enumerate(result.layers):
        if layer in result.heads:
            found = nested(result.heads[layer])
            values[row, : len(found)] = found
        elif not result.heads:
            values[row, 0] = whole[row]
        values[row, -1] = mlp[row]
    drawn = float(np.nansum(values))
    rest = f"the rest (embedding, biases, …): {result.total - drawn:+.2f}, sum {result.total:+.2f}"
    return Matrices(
        panels=[("", values)],
        rows=list(result.layers),
        title=title,
        note="; ".join(filter(None, (rest, signed_note(cmap)))),
        unit="logit",
        across="part",
        limit=largest(values),
        signed=True,
        cmap=cmap,
        columns=[*columns, "MLP"],
    )


@visualizer(DLAResult, backend="matplotlib")
def logit_parts_matplotlib(
    result: DLAResult,
    *,
    style: str = "bars",
    top: int | None = None,
    figsize: tuple[float, float] | None = None,
    cmap: str = "signed",
    title: str | None = None,
) -> Any:
    """Draw the parts of a logit with matplotlib.

    Args:
        style: ``"bars"``, in the order of the model, or ``"map"``: layers × heads and MLP.
        top: How many bars, the strongest parts; 30 if left out.
        figsize: Width and height in inches; grows with the parts if left out.
        cmap: Colour map around zero; the scale is symmetric.
        title: Instead of the one that names the token.
    """
    from ..charts import bars, matrix_matplotlib

    content = _content(result, style, top, cmap, title)
    if isinstance(content, Bars):
        return bars.draw_matplotlib(content, figsize)
    return matrix_matplotlib.draw(content, figsize)


@visualizer(DLAResult, backend="plotly")
def logit_parts_plotly(
    result: DLAResult,
    *,
    style: str = "bars",
    top: int | None = None,
    figsize: tuple[float, float] | None = None,
    cmap: str = "signed",
    title: str | None = None,
) -> Any:
    """Draw the parts of a logit with plotly; arguments as with matplotlib."""
    from ..charts import bars, matrix_plotly

    content = _content(result, style, top, cmap, title)
    if isinstance(content, Bars):
        return bars.draw_plotly(content, figsize)
    return matrix_plotly.draw(content, figsize)


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Pictures of direct logit attribution."""
    return [logit_parts_matplotlib, logit_parts_plotly]
