"""Attribution of queries and keys with the softmax done exactly (AtP*, Kramár et al. 2024).

A softmax that is saturated has no gradient to speak of although patching a query or a key may
move all of its weight. So the patched pattern is computed, and only what follows the pattern is
taken to first order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.tokens import Batch

Scalar = Callable[[mx.array], mx.array]


def query_effects(
    model: InterpretableModel,
    batches: tuple[Batch, Batch],
    layers: Sequence[int],
    metric: Scalar,
    position: int,
) -> mx.array:
    """(layers, H, S): the effect of each clean query in the corrupted run.

    `metric` is of the logits (1, 1, V) at `position`. A row of the pattern depends on its own
    query alone, so one run with all queries of a layer patched has each patched row.
    """
    rows = []
    for layer, gradient, pattern in _patterns(model, batches[1], layers, metric, position):
        patched = _with_clean(model, batches, layer, "q", "pattern")
        rows.append(mx.sum(gradient * (patched - pattern), axis=-1)[0])
    return mx.stack(rows)


def key_effects(
    model: InterpretableModel,
    batches: tuple[Batch, Batch],
    layers: Sequence[int],
    metric: Scalar,
    position: int,
) -> mx.array:
    """(layers, K, S): the effect of each clean key in the corrupted run.

    Patching key j replaces one logit of every row. With weights p, ratio r of the new to the old
    exponential of that logit, and total 1 + p_j (r − 1), the row becomes p / total, but
    p_j r / total at j.
    """
    rows = []
    for layer, gradient, pattern in _patterns(model, batches[1], layers, metric, position):
        old = model.activations(batches[1], [("scores", layer)])["scores", layer]
        new = _with_clean(model, batches, layer, "k", "scores")
        masked = old == -mx.inf
        ratio = mx.exp(mx.where(masked, 0.0, new) - mx.where(masked, 0.0, old))
        total = 1 + pattern * (ratio - 1)
        whole = mx.sum(gradient * pattern, axis=-1, keepdims=True)
        own = gradient * pattern
        after = (whole - own + own * ratio) / total
        by_query_head = mx.sum(after - whole, axis=-2)[0]
        shared = by_query_head.reshape(model.layout.heads(layer, kv=True), -1, old.shape[-1])
        rows.append(mx.sum(shared, axis=1))
    return mx.stack(rows)


def _patterns(
    model: InterpretableModel,
    batch: Batch,
    layers: Sequence[int],
    metric: Scalar,
    position: int,
) -> list[tuple[int, mx.array, mx.array]]:
    """(layer, gradient of the metric with respect to the pattern, the pattern)."""
    addresses = [f"layers.{layer}.pattern" for layer in layers]
    _, gradients = model.gradients(batch, metric, addresses, positions=[position])
    patterns = model.watch(batch, "pattern", layers)
    return [
        (layer, gradients[address], patterns[layer])
        for layer, address in zip(layers, addresses, strict=True)
    ]


def _with_clean(
    model: InterpretableModel, batches: tuple[Batch, Batch], layer: int, point: str, read: str
) -> mx.array:
    """A point of the corrupted run with the layer's clean queries or keys."""
    clean = model.activations(batches[0], [(point, layer)])[point, layer]
    _, cache = model.run_with_cache(
        batches[1],
        [(read, layer)],
        interventions={f"layers.{layer}.{point}": lambda _: clean},
        allow_unchanged=True,
    )
    value: mx.array = cache[read, layer]
    return value
