"""Activations as rows of features, and back: (B, S, F) whatever axes a point has."""

from __future__ import annotations

import math
from typing import Any

import mlx.core as mx

from mlxray.arrays import evaluate
from mlxray.errors import AnalysisError, EditError, InputError
from mlxray.points.vocabulary import tokens_axis

from .labels import Floats


def flat(activation: mx.array, address: str, shape: tuple[int, ...], who: str) -> mx.array:
    """An activation at an address as (B, S, F) float32, lazy.

    Args:
        activation: As an edit gets it.
        address: Where.
        shape: Of one token's part, as it was when `who` was made; F is its size.
        who: What a message calls it.

    Raises:
        EditError: if the activation has another shape.
    """
    first = mx.moveaxis(activation, tokens_axis(address), 1)
    if first.shape[2:] != shape:
        raise EditError(
            f"{who} at {address!r} has shape {shape}; the activation has {first.shape[2:]} for "
            "each token. It belongs to another model or point."
        )
    return first.astype(mx.float32).reshape(*first.shape[:2], math.prod(shape))


def unflat(rows: mx.array, activation: mx.array, address: str) -> mx.array:
    """(B, S, F) in the axes and the dtype of an activation."""
    axis = tokens_axis(address)
    shape = mx.moveaxis(activation, axis, 1).shape
    return mx.moveaxis(rows.reshape(shape), 1, axis).astype(activation.dtype)


def matrix(values: Any, address: str, examples: int | None = None) -> Floats:
    """Activations (N, …) as (N, F) float64.

    Raises:
        InputError: if they are no array of floats with an axis of examples and one of features, or
            not of `examples` examples.
        AnalysisError: if one is not finite.
    """
    import numpy as np

    if isinstance(values, mx.array):
        evaluate(values)
        values = values.astype(mx.float32)
    table: Any = np.asarray(values)
    if table.ndim < 2 or table.dtype.kind != "f":
        raise InputError(
            f"the activations at {address!r} are an array of floats (examples, features); got "
            f"{table.dtype} {table.shape}."
        )
    if examples is not None and len(table) != examples:
        raise InputError(f"{len(table)} activations at {address!r} for {examples} examples.")
    rows: Floats = table.reshape(len(table), -1).astype(np.float64)
    broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if broken.size:
        raise AnalysisError(
            f"the activations at {address!r} are not finite numbers in {broken.size} of "
            f"{len(rows)} examples, the first being {broken[0]}."
        )
    return rows
