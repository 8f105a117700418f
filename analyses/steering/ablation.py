"""Ablating a direction: projecting it out of what writes to the residual stream."""

from __future__ import annotations

import math
from collections.abc import Callable

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.arrays import evaluate, held, number
from mlxray.checks.arguments import checked
from mlxray.errors import EditError, InputError

#: What a layer may add to the stream.
_ADDS = ("attn_add", "mixer_add", "mlp_add")


def unit(direction: mx.array) -> mx.array:
    """A direction (D,) at length 1, float32.

    Raises:
        InputError: if it has another number of axes, is zero, or is not finite.
    """
    if not isinstance(direction, mx.array) or direction.ndim != 1:
        kind = getattr(direction, "shape", type(direction).__name__)
        raise InputError(f"a direction is an mx.array (D,); got {kind}.")
    kept = held(direction.astype(mx.float32))
    length = number(mx.linalg.norm(kept))
    if not (math.isfinite(length) and length > 0):
        raise InputError("the direction is zero or not finite.")
    found: mx.array = kept / length
    evaluate(found)
    return found


@checked("direction")
def ablate_direction(direction: mx.array) -> Callable[[mx.array], mx.array]:
    """An edit that takes a direction out of an activation: ``x - (x·r) r``.

    r is the direction at length 1, and the last axis of the activation is projected. At every
    place that writes to the stream (`ablate_stream`) this is directional ablation (Arditi et al.
    2024, arXiv:2406.11717).

    Args:
        direction: (D,), of any length.

    Raises:
        InputError: if it is zero, not finite, or has another number of axes.
    """
    return _Projection(unit(direction))


class _Projection:
    """Takes a unit direction out of the last axis."""

    #: Where the direction is gone already.
    may_change_nothing = True

    def __init__(self, direction: mx.array) -> None:
        self._direction = direction

    def __call__(self, activation: mx.array) -> mx.array:
        r = self._direction
        if activation.shape[-1] != r.shape[0]:
            raise EditError(
                f"the direction has {r.shape[0]} dimensions; the activation {activation.shape[-1]}."
            )
        exact = activation.astype(mx.float32)
        return (exact - (exact @ r)[..., None] * r).astype(activation.dtype)


@checked()
def stream_writers(model: InterpretableModel) -> list[str]:
    """Addresses of all that writes to the residual stream.

    That is ``embed`` and what each layer's sub-layers add. Where a layer's additions cannot be
    seen or are not all that it does to the stream, its ``resid_post`` stands there as well.

    Raises:
        PointAbsent: if the model has no single stream.
    """
    layout = model.layout
    here = {(s.point, s.layer): s.address for s in layout.statuses() if s.available}
    found = [here["embed", None]] if ("embed", None) in here else []
    for layer in range(layout.n_layers):
        stream = layout.site(("resid_post", layer)).key
        adds = [here[point, layer] for point in _ADDS if (point, layer) in here]
        found += adds
        if not adds or "sum" in layout.roles(layer).departures:
            found.append(stream)
    return [layout.site(address).key for address in found]


@checked("direction")
def ablate_stream(
    model: InterpretableModel, direction: mx.array
) -> list[tuple[str, Callable[..., mx.array]]]:
    """A direction taken out of all that writes to the residual stream, as interventions.

    Args:
        model: The model.
        direction: (D,), of any length.

    Returns:
        Pairs (address, edit) for traces, hooks and generation.

    Raises:
        InputError: if the direction cannot be one.
        PointAbsent: if the model has no single stream.
    """
    edit = ablate_direction(direction)
    return [(address, edit) for address in stream_writers(model)]
