"""What is put in place of an activation: another run's, nothing, or an average."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.errors import InputError
from mlxray.tokens import Batch

from .grid import Grid
from .patches import axes
from .sweep import Sweep

SOURCES = ("clean", "zero", "mean", "resample")


def source_values(
    model: InterpretableModel,
    sweep: Sweep,
    grid: Grid,
    clean: Batch,
    source: str,
    reference: Sequence[Any] | None,
    seed: int,
) -> dict[str, mx.array]:
    """Address → what a patched place takes its value from, shaped like the base's activation.

    Args:
        model: The model.
        sweep: Of the base prompt.
        grid: Whose addresses are patched.
        clean: Source of "clean".
        source: One of `SOURCES`.
        reference: Prompts for "mean" and "resample".
        seed: For which prompt is resampled.

    Raises:
        InputError: if the reference is missing, given for nothing, or has no prompt that fits.
    """
    needed = source in ("mean", "resample")
    if needed and not reference:
        raise InputError(f"source={source!r} needs reference=[prompts].")
    if reference and not needed:
        raise InputError(f"reference is for source='mean' or 'resample'; got {source!r}.")
    if source == "resample":
        other = _another(model, sweep, reference or [], seed)
        return sweep.sources(other, grid.addresses)
    values = sweep.sources(clean, grid.addresses)
    if source == "zero":
        return {address: mx.zeros_like(value) for address, value in values.items()}
    if source == "mean":
        _, axis = axes(grid.component)
        return {
            address: mx.broadcast_to(mean, values[address].shape).astype(values[address].dtype)
            for address, mean in _means(model, reference or [], grid.addresses, axis).items()
        }
    return values


def _means(
    model: InterpretableModel, prompts: Sequence[Any], addresses: Sequence[str], axis: int
) -> dict[str, mx.array]:
    """Mean over all tokens of all prompts, with 1 at the position axis."""
    totals: dict[str, mx.array] = {}
    count = 0
    for prompt in prompts:
        batch = model.tokens.batch(prompt)
        cache = model.activations(batch, addresses)
        count += batch.lengths[0]
        for address in addresses:
            total = mx.sum(cache[address].astype(mx.float32), axis=axis, keepdims=True)
            totals[address] = totals[address] + total if address in totals else total
        mx.eval(totals)
    return {address: total / count for address, total in totals.items()}


def _another(model: InterpretableModel, sweep: Sweep, prompts: Sequence[Any], seed: int) -> Batch:
    import numpy as np

    batches = [model.tokens.batch(prompt) for prompt in prompts]
    fitting = [
        b
        for b in batches
        if b.ids.shape == sweep.ids.shape and not mx.array_equal(b.ids, sweep.ids).item()
    ]
    if not fitting:
        raise InputError(
            f"no prompt of the reference has {sweep.ids.shape[1]} tokens and differs from the base."
        )
    return fitting[int(np.random.default_rng(seed).integers(len(fitting)))]
