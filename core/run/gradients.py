"""Exact gradients at any set of points, in one forward and one backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

from ..errors import InputError
from ..points.layout import Layout
from ..points.vocabulary import AddressLike
from ..seams.edits import Edit
from ..tokens import Batch
from .run import Run
from .tail import execute_at

Scalar = Callable[[mx.array], mx.array]


def gradients(
    layout: Layout,
    batch: Batch,
    metric: Scalar,
    addresses: Sequence[AddressLike],
    *,
    edits: Sequence[tuple[str, Callable[..., Any]]] = (),
    positions: Sequence[int] | None = None,
) -> tuple[mx.array, dict[str, mx.array]]:
    """Differentiate a number of the logits with respect to activations.

    A zero is added at each point and differentiated with respect to, so the gradient is the
    model's own, through quantised weights too.

    Args:
        layout: The model.
        batch: What runs.
        metric: Logits (B, S, V) → a scalar array.
        addresses: Points or module paths whose value is one array.
        edits: Edits in force during the pass, before the probes.
        positions: Give `metric` the logits (B, P, V) of these positions only, which is cheaper;
            of prompts of unequal length, each one's own.

    Returns:
        The metric's value, and address → gradient of the activation's shape; evaluated.

    Raises:
        InputError: if the metric is not a scalar, or there are no addresses, or an address holds
            several arrays, or a prompt does not have one of the positions.
        EditNeverFired: if an edit meets no call.
    """
    if not addresses:
        raise InputError("gradients need at least one address.")
    sites = [layout.site(a) for a in addresses]
    rows = None if positions is None else batch.indices(positions)

    def fresh() -> list[Edit]:
        return [Edit(address, fn, allow_unchanged=True) for address, fn in edits]

    look = Run(layout, watch=[s.key for s in sites], edits=fresh())
    look.execute(batch.ids, lengths=batch.lengths)
    for edit in look.edits:
        edit.settle()
    probes = {s.key: _probe(s.key, s.read(look)) for s in sites}

    def value(probes: dict[str, mx.array]) -> mx.array:
        planted = [
            Edit(key, lambda a, p=probe: a + p, allow_unchanged=True)
            for key, probe in probes.items()
        ]
        run = Run(layout, edits=[*fresh(), *planted])
        if rows is None:
            result = metric(run.execute(batch.ids, lengths=batch.lengths))
        else:
            result = metric(execute_at(run, batch.ids, rows, lengths=batch.lengths))
        if result.size != 1:
            raise InputError(f"the metric returned shape {result.shape}; a scalar is needed.")
        return result.reshape(())

    number, found = mx.value_and_grad(value)(probes)
    mx.eval(number, found)
    return number, found


def _probe(key: str, value: Any) -> mx.array:
    if not isinstance(value, mx.array):
        raise InputError(
            f"{key!r} holds {type(value).__name__}, not one array: a gradient needs a point, or "
            f"one call of the module ({key + '#0'!r})."
        )
    return mx.zeros_like(value)
