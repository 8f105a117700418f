"""Attention heat maps of a trace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlxray.errors import InputError

from .config import AttentionVisualizationConfig

if TYPE_CHECKING:
    from mlxray import Trace


def attention_from_trace(
    trace: Trace,
    tokens: list[str],
    layers: list[int] | None = None,
    heads: list[int] | None = None,
    mode: str = "single",
    head_notation: str = "LH",
    config: AttentionVisualizationConfig | None = None,
) -> Any:
    """Draw the attention patterns of a finished trace; they are fetched in one run.

    Args:
        trace: A trace of one prompt.
        tokens: Text of each position.
        layers: Which layers; the first if left out. Negative ones count from the end.
        heads: Which heads of each; the first if left out.
        mode: ``"single"`` for one heat map, ``"grid"`` for one per layer and head.
        head_notation: ``"LH"`` for L5H3, ``"dot"`` for 5.3.
        config: Colours, backend, size.

    Returns:
        The backend's figure; HTML for circuitsviz.

    Raises:
        InputError: if several heads are asked of mode ``"single"``, or something does not fit.
        AddressError: if a layer does not exist, or has no pattern.
        PluginError: if the backend is not installed.
    """
    from .draw import draw_panels
    from .panels import assemble, choose_heads, even_columns, head_name, one_prompt

    config = config or AttentionVisualizationConfig()
    chosen = trace.model.layer_indices([0] if layers is None else layers)
    heads = [0] if heads is None else heads
    if mode not in ("single", "grid"):
        raise InputError(f"mode={mode!r}: write 'single' or 'grid'.")
    if mode == "single" and len(chosen) * len(heads) != 1:
        raise InputError(
            f"mode='single' draws one head of one layer, not {len(heads)} of {len(chosen)}: "
            "choose one, or pass mode='grid'."
        )
    patterns = trace.activations.fetch([("pattern", layer) for layer in chosen])
    panels = []
    for layer, pattern in zip(chosen, patterns, strict=True):
        weights = one_prompt(pattern)
        panels += [
            (head_name(layer, head, head_notation), weights[head])
            for head in choose_heads(len(weights), heads, layer)
        ]
    columns = even_columns(len(heads)) if len(heads) > 1 else None
    ready = assemble(
        panels,
        tokens,
        mask_upper_tri=config.mask_upper_tri,
        title="Attention patterns" if mode == "grid" else "",
        columns=columns,
    )
    return draw_panels(ready, config)
