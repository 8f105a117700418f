"""Exact gradients at any set of points, in one forward and one backward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

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

    The gradient is the model's own, through quantised weights too.

    Args:
        layout: The model.
        batch: What runs.
        metric: Logits (B, S, V) → a scalar array.
        addresses: Points or module paths whose value is one array.
        edits: Edits in force during the pass, before the points.
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
    keys = list(dict.fromkeys(layout.site(address).key for address in addresses))
    number, found, _ = lazy_gradients(layout, batch, metric, keys, edits=edits, positions=positions)
    check = NaNCheck({"the metric": number} | {f"the gradient at {k}": v for k, v in found.items()})
    evaluate(number, found, *check.pending)
    check.warn(stacklevel=5)
    return number, found


def lazy_gradients(
    layout: Layout,
    batch: Batch,
    metric: Scalar,
    keys: Sequence[str],
    *,
    edits: Sequence[tuple[str, Callable[..., Any]]] = (),
    positions: Sequence[int] | None = None,
) -> tuple[mx.array, dict[str, mx.array], dict[str, mx.array]]:
    """As `gradients`, lazy, and with the activations.

    Args:
        layout, batch, metric, edits, positions: See `gradients`.
        keys: Canonical addresses.

    Returns:
        The metric's value, gradients by address, and activations by address.
    """
    rows = None if positions is None else batch.indices(positions)
    passed: dict[str, list[mx.array]] = {key: [] for key in keys}

    def value(root: mx.array) -> tuple[mx.array, dict[str, mx.array]]:
        own = _edits(edits)
        watched = [Edit(key, Gate(passed[key], root), allow_unchanged=True) for key in keys]
        run = Run(layout, watch=keys, edits=[*own, *watched])
        if rows is None:
            result = metric(run.execute(batch.ids, lengths=batch.lengths))
        else:
            result = metric(execute_at(run, batch.ids, rows, lengths=batch.lengths))
        for edit in own:
            edit.settle()
        if not isinstance(result, mx.array):
            kind = type(result).__name__
            raise InputError(f"the metric returned {kind}; a gradient needs an MLX array.")
        if result.size != 1:
            raise InputError(f"the metric returned shape {result.shape}; a scalar is needed.")
        values = {key: _one_array(key, layout.site(key).read(run)) for key in keys}
        return result.reshape(()), values

    try:
        (number, kept), _ = mx.value_and_grad(value)(mx.array(0.0))
        return number, {key: _total(passed[key], kept[key]) for key in keys}, kept
    finally:
        # The graph holds the gates, so lists that held gradients would hold it for good.
        for back in passed.values():
            back.clear()


def _edits(edits: Sequence[tuple[str, Callable[..., Any]]]) -> list[Edit]:
    return [Edit(address, fn, allow_unchanged=True) for address, fn in edits]


class Gate:
    """An edit that changes nothing and keeps the gradient that comes back through it.

    Nothing is added to the activation, so neither its shape nor its type need be known before.

    Args:
        passed: Where to keep gradients.
        root: What is differentiated with respect to: it counts as an input of every gate, so that
            the backward pass goes as far as the first of them.
    """

    edit_arguments: ClassVar[int] = 1

    def __init__(self, passed: list[mx.array], root: mx.array) -> None:
        self._root = root
        self._gate = gate = mx.custom_function(_first)

        @gate.vjp
        def back(
            given: Sequence[mx.array], gradient: mx.array, _: mx.array
        ) -> tuple[mx.array, mx.array]:
            passed.append(gradient)
            return gradient, mx.zeros_like(given[1])

    def __call__(self, activation: mx.array) -> mx.array:
        if not isinstance(activation, mx.array):
            return activation
        return cast(mx.array, self._gate(activation, self._root))


def _first(activation: mx.array, root: mx.array) -> mx.array:
    return activation


def _total(gradients: Sequence[mx.array], value: mx.array) -> mx.array:
    """Of a point that the metric does not depend on, zero."""
    total = mx.zeros_like(value) if not gradients else gradients[0]
    for gradient in gradients[1:]:
        total = total + gradient
    return total


def _one_array(key: str, value: Any) -> mx.array:
    if not isinstance(value, mx.array):
        raise InputError(
            f"{key!r} holds {type(value).__name__}, not one array: a gradient needs a point, or "
            f"one call of the module ({key + '#0'!r})."
        )
    return value
