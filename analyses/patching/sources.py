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
            for address, mean in token_means(model, reference or [], grid.addresses, axis).items()
        }
    return values


def token_means(
    model: InterpretableModel,
    prompts: Sequence[Any],
    addresses: Sequence[str],
    axis: int,
    *,
    first: int = 0,
) -> dict[str, mx.array]:
    """Mean over the tokens of all prompts, float32, with 1 at the position axis.

    Args:
        model: The model.
        prompts: One prompt each.
        addresses: Of equal position axis.
        axis: The position axis.
        first: Leading tokens of each prompt that are left out.

    Raises:
        InputError: if an entry holds several prompts, or no token is left.
    """
    totals: dict[str, mx.array] = {}
    count = 0
    for prompt in prompts:
        batch = model.tokens.batch(prompt)
        if len(batch.lengths) != 1:
            raise InputError("each entry of the reference is one prompt.")
        if batch.lengths[0] <= first:
            continue
        cache = model.activations(batch, addresses)
        count += batch.lengths[0] - first
        for address in addresses:
            value = mx.split(cache[address], [first], axis=axis)[1] if first else cache[address]
            total = mx.sum(value.astype(mx.float32), axis=axis, keepdims=True)
            totals[address] = totals[address] + total if address in totals else total
        mx.eval(totals)
    if not count:
        raise InputError("there is no token to take a mean over.")
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
