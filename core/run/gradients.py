"""Exact gradients at any set of points, in one forward and one backward pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx

from ..arrays import evaluate
from ..checks.finite import NaNCheck
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
    if positions is not None and not len(positions):
        raise InputError("the list of positions is empty; leave it out for all.")
    if not addresses:
        raise InputError("gradients need at least one address.")
    sites = [layout.site(a) for a in addresses]
    look = Run(layout, watch=[s.key for s in sites], edits=_edits(edits))
    look.execute(batch.ids, lengths=batch.lengths)
    for edit in look.edits:
        edit.settle()
    values = {s.key: s.read(look) for s in sites}
    number, found, _ = gradients_like(
        layout, batch, metric, values, edits=edits, positions=positions
    )
    check = NaNCheck({"the metric": number} | {f"the gradient at {k}": v for k, v in found.items()})
    evaluate(number, found, *check.pending)
    check.warn(stacklevel=5)
    return number, found


def gradients_like(
    layout: Layout,
    batch: Batch,
    metric: Scalar,
    values: Mapping[str, Any],
    *,
    edits: Sequence[tuple[str, Callable[..., Any]]] = (),
    positions: Sequence[int] | None = None,
    keep: bool = False,
) -> tuple[mx.array, dict[str, mx.array], dict[str, mx.array]]:
    """As `gradients`, where activations of the same shapes are known: of a run of other tokens.

    Args:
        layout, batch, metric, edits, positions: See `gradients`.
        values: Canonical address → an array of its activation's shape and type.
        keep: Keep the activations too.

    Returns:
        The metric's value, gradients by address, and activations by address if they were to be
        kept; lazy.
    """
    rows = None if positions is None else batch.indices(positions)
    # Points of one shape share their zeros: each is differentiated with respect to by itself.
    zeros: dict[Any, mx.array] = {}
    probes = {key: _probe(key, value, zeros) for key, value in values.items()}

    def value(probes: dict[str, mx.array]) -> tuple[mx.array, dict[str, mx.array]]:
        planted = [Edit(key, Plant(probe), allow_unchanged=True) for key, probe in probes.items()]
        run = Run(layout, watch=list(probes) if keep else (), edits=[*_edits(edits), *planted])
        if rows is None:
            result = metric(run.execute(batch.ids, lengths=batch.lengths))
        else:
            result = metric(execute_at(run, batch.ids, rows, lengths=batch.lengths))
        if not isinstance(result, mx.array):
            kind = type(result).__name__
            raise InputError(f"the metric returned {kind}; a gradient needs an MLX array.")
        if result.size != 1:
            raise InputError(f"the metric returned shape {result.shape}; a scalar is needed.")
        return result.reshape(()), run.values()

    (number, kept), found = mx.value_and_grad(value)(probes)
    return number, found, kept


def _edits(edits: Sequence[tuple[str, Callable[..., Any]]]) -> list[Edit]:
    return [Edit(address, fn, allow_unchanged=True) for address, fn in edits]


@dataclass(frozen=True, slots=True)
class Plant:
    """An edit that adds a probe."""

    probe: mx.array
    edit_arguments: ClassVar[int] = 1

    def __call__(self, activation: mx.array) -> mx.array:
        return activation + self.probe


def _probe(key: str, value: Any, zeros: dict[Any, mx.array]) -> mx.array:
    if not isinstance(value, mx.array):
        raise InputError(
            f"{key!r} holds {type(value).__name__}, not one array: a gradient needs a point, or "
            f"one call of the module ({key + '#0'!r})."
        )
    kind = value.shape, value.dtype
    if kind not in zeros:
        zeros[kind] = mx.zeros_like(value)
    return zeros[kind]
