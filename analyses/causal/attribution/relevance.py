"""Rules of relevance propagation as edits, for attribution patching (RelP, Jafari et al. 2025).

Each rule keeps an activation's value and replaces its derivative: a norm's scale and an
activation function's slope are held constant, and a product gives each factor half. The forward
pass is unchanged to the last bit but for rounding; what changes is what a gradient flows through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from mlxray.errors import AddressError, PointAbsent
from mlxray.points.layout import Layout
from mlxray.seams.edits import Call

Edits = dict[str, Callable[..., Any]]


def relevance_edits(layout: Layout) -> Edits:
    """Edits that put the rules in force in every norm before a sub-layer and in every MLP.

    Raises:
        PointAbsent: if an MLP is not one or two projections, a function, and a down projection.
    """
    edits: Edits = {}
    adapter = layout.adapter
    for layer in range(layout.n_layers):
        for name in (adapter.attn_norm, adapter.mlp_norm):
            if name:
                edits[layout.role(layer, name)] = _frozen_scale
        edits |= _mlp_rules(layout, layer)
    if adapter.final_norm in layout.modules:
        edits[adapter.final_norm] = _frozen_scale
    return edits


def _ratio(value: mx.array, by: mx.array) -> mx.array:
    """``value / by`` as a constant; zero where `by` is too small to divide by."""
    small = mx.abs(by) < 1e-6
    return mx.stop_gradient(mx.where(small, 0.0, value / mx.where(small, 1.0, by)))


def _linear(value: mx.array, factor: mx.array, variable: mx.array) -> mx.array:
    """Zero, with the derivative `factor` with respect to `variable`."""
    moving = factor * variable
    return moving - mx.stop_gradient(moving)


def _frozen_scale(value: mx.array, call: Call) -> mx.array:
    """The norm with what it divides by held constant."""
    entering = call.args[0]
    offset: Any = call.module.get("bias") if isinstance(call.module, nn.LayerNorm) else None
    if isinstance(call.module, nn.LayerNorm):
        entering = entering - mx.mean(entering, axis=-1, keepdims=True)
    scaled = value if offset is None else value - offset
    return mx.stop_gradient(value) + _linear(value, _ratio(scaled, entering), entering)


def _mlp_rules(layout: Layout, layer: int) -> Edits:
    adapter = layout.adapter
    mlp = layout.role(layer, adapter.mlp)
    try:
        down = layout.role(layer, adapter.mlp, adapter.down_proj)
    except AddressError as error:
        raise PointAbsent("relevance", str(error)) from None
    entering = [
        path
        for path, module in layout.modules.items()
        if path.startswith(mlp + ".") and path != down and "weight" in module
    ]
    if len(entering) not in (1, 2):
        raise PointAbsent(
            "relevance",
            f"the MLP of block {layer} has {len(entering)} projections before {down!r}; the "
            "rules are for one (a plain MLP) or two (a gated one)",
        )
    seen: dict[str, mx.array] = {}

    def remember(path: str) -> Callable[[mx.array], mx.array]:
        def look(value: mx.array) -> mx.array:
            seen[path] = value
            return value

        return look

    def rule(value: mx.array) -> mx.array:
        share = 1.0 / len(entering)
        parts = [_linear(value, share * _ratio(value, seen[path]), seen[path]) for path in entering]
        return mx.stop_gradient(value) + sum(parts[1:], parts[0])

    return {**{path: remember(path) for path in entering}, f"{down}.input": rule}
