"""Attention heat maps: of an array, and of an attention result."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from mlxray import hookimpl, visualizer
from mlxray.analyses.attention.attention_result import AttentionResult
from mlxray.errors import InputError
from mlxray.plugins.kinds import Visualizer

from .config import AttentionVisualizationConfig

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Heads in one picture, unless they were chosen.
MOST = 48


def attention_heatmap(
    attention: Any,
    tokens: list[str],
    head_idx: int = 0,
    title: str | None = None,
    colorscale: str = "Blues",
    backend: str = "matplotlib",
    mask_upper_tri: bool = True,
    figsize: tuple[float, float] = (8, 6),
) -> Any:
    """Draw the attention pattern of one head: queries downwards, keys to the right.

    Args:
        attention: Weights (1, heads, queries, keys) or (heads, queries, keys), NumPy's or MLX's.
        tokens: Text of each key position; the queries are the last of them.
        head_idx: Which head.
        title: ``Head N`` if left out.
        colorscale: Colour map of the weights, 0 to 1.
        backend: ``"matplotlib"``, ``"plotly"``, ``"circuitsviz"`` or ``"auto"``.
        mask_upper_tri: Leave out the future, to which causal attention cannot look.
        figsize: Width and height in inches.

    Returns:
        The backend's figure; HTML for circuitsviz.

    Raises:
        InputError: if shapes, head or backend do not fit; the message says what does.
        PluginError: if the backend is not installed.
    """
    from .draw import draw_panels
    from .panels import assemble, choose_heads, one_prompt

    weights = one_prompt(attention)
    (head,) = choose_heads(len(weights), [head_idx])
    name = f"Head {head}" if title is None else title
    panels = assemble([(name, weights[head])], tokens, mask_upper_tri=mask_upper_tri)
    config = AttentionVisualizationConfig(
        colorscale=colorscale, mask_upper_tri=mask_upper_tri, backend=backend, figsize=figsize
    )
    return draw_panels(panels, config)


def _draw(
    result: AttentionResult,
    *,
    layers: list[int] | None,
    heads: list[int] | None,
    title: str | None,
    head_notation: str,
    figsize: tuple[float, float] | None,
    config: AttentionVisualizationConfig,
) -> Any:
    from .draw import draw_panels
    from .panels import assemble, choose_heads, even_columns, head_name, one_prompt

    missing = [layer for layer in layers or () if layer not in result.patterns]
    if missing:
        known = ", ".join(map(str, result.patterns))
        raise InputError(f"the result has no layer {missing[0]}; it has {known}.")
    panels: list[tuple[str, NDArray[np.float64]]] = []
    per_layer = 0
    chosen = list(result.patterns) if layers is None else list(layers)
    for layer in chosen:
        weights = one_prompt(result.patterns[layer])
        wanted = choose_heads(len(weights), heads, layer)
        if panels and layers is None and heads is None and len(panels) + len(wanted) > MOST:
            warnings.warn(
                f"drawing the layers before {layer}, of {len(chosen)}: all of them have too many "
                "heads for one picture. Choose with layers=[…] or heads=[…].",
                stacklevel=4,
            )
            break
        per_layer = max(per_layer, len(wanted))
        panels += [(head_name(layer, head, head_notation), weights[head]) for head in wanted]
    several = "Attention patterns" if len(panels) > 1 else "Attention pattern"
    ready = assemble(
        panels,
        result.tokens,
        mask_upper_tri=config.mask_upper_tri,
        title=several if title is None else title,
        columns=even_columns(per_layer) if per_layer > 1 else None,
    )
    config.figsize = figsize or _size(ready.columns, ready.rows, len(result.tokens))
    return draw_panels(ready, config)


def _size(columns: int, rows: int, tokens: int) -> tuple[float, float]:
    """Inches: one panel has room for its tokens, many share a screen's width."""
    side = min(max(0.22 * tokens, 2.2), 7, max(13 / columns, 1.2), max(16 / rows, 1.2))
    return max(columns * side + 2.2, 5), max(rows * (side + 0.3) + 1.6, 4)


@visualizer(AttentionResult, backend="matplotlib")
def attention_matplotlib(
    result: AttentionResult,
    *,
    layers: list[int] | None = None,
    heads: list[int] | None = None,
    title: str | None = None,
    colorscale: str = "Blues",
    mask_upper_tri: bool = True,
    figsize: tuple[float, float] | None = None,
    show_colorbar: bool = True,
    font_size: int = 9,
    head_notation: str = "LH",
) -> Any:
    """Draw attention patterns with matplotlib, a map per head.

    Args:
        layers: Which of the result's layers; all, or as many whole layers as fit, if left out.
        heads: Which heads of each; all if left out.
        title: Of the whole picture.
        colorscale: Colour map of the weights, 0 to 1.
        mask_upper_tri: Leave out the future, to which causal attention cannot look.
        figsize: Width and height in inches; grows with the heads if left out.
        show_colorbar: Whether to show what the colours mean.
        font_size: Of the labels, in points.
        head_notation: ``"LH"`` for L5H3, ``"dot"`` for 5.3.
    """
    config = AttentionVisualizationConfig(
        colorscale=colorscale,
        mask_upper_tri=mask_upper_tri,
        backend="matplotlib",
        show_colorbar=show_colorbar,
        font_size=font_size,
    )
    return _draw(
        result,
        layers=layers,
        heads=heads,
        title=title,
        head_notation=head_notation,
        figsize=figsize,
        config=config,
    )


@visualizer(AttentionResult, backend="plotly")
def attention_plotly(
    result: AttentionResult,
    *,
    layers: list[int] | None = None,
    heads: list[int] | None = None,
    title: str | None = None,
    colorscale: str = "Blues",
    mask_upper_tri: bool = True,
    figsize: tuple[float, float] | None = None,
    show_colorbar: bool = True,
    font_size: int = 10,
    head_notation: str = "LH",
) -> Any:
    """Draw attention patterns with plotly, a map per head; arguments as with matplotlib."""
    config = AttentionVisualizationConfig(
        colorscale=colorscale,
        mask_upper_tri=mask_upper_tri,
        backend="plotly",
        show_colorbar=show_colorbar,
        font_size=font_size,
    )
    return _draw(
        result,
        layers=layers,
        heads=heads,
        title=title,
        head_notation=head_notation,
        figsize=figsize,
        config=config,
    )


@visualizer(AttentionResult, backend="circuitsviz")
def attention_circuitsviz(
    result: AttentionResult,
    *,
    layers: list[int] | None = None,
    heads: list[int] | None = None,
    title: str | None = None,
    colorscale: str = "Blues",
    mask_upper_tri: bool = True,
    head_notation: str = "LH",
) -> Any:
    """Draw attention patterns with CircuitsVis, as HTML; arguments as with matplotlib."""
    config = AttentionVisualizationConfig(
        colorscale=colorscale, mask_upper_tri=mask_upper_tri, backend="circuitsviz"
    )
    return _draw(
        result,
        layers=layers,
        heads=heads,
        title=title,
        head_notation=head_notation,
        figsize=None,
        config=config,
    )


@hookimpl
def mlxray_visualizers() -> list[Visualizer]:
    """Heat maps of attention."""
    return [attention_matplotlib, attention_plotly, attention_circuitsviz]
