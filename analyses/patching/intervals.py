"""Means over pairs of prompts, and how far they can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

#: Resamples of a bootstrap interval.
RESAMPLES = 1000


def mean_and_interval(
    values: Sequence[mx.array],
    seed: int,
    *,
    level: float = 0.95,
    weights: Sequence[float] | None = None,
) -> tuple[mx.array, mx.array | None]:
    """Mean over the first axis and its percentile bootstrap interval (Efron 1979).

    Args:
        values: One array for each example, all of one shape.
        seed: Of the resampling.
        level: Share of resampled means between the ends.
        weights: Of the examples in the mean, resampled with them; None for equal ones.

    Returns:
        The mean, and (2, …) its lower and upper end; None for a single example.
    """
    import numpy as np

    table = np.stack([np.array(value) for value in values])
    share = np.ones(len(table)) if weights is None else np.array(weights, dtype=np.float64)
    mean = np.average(table, axis=0, weights=share).astype(table.dtype)
    if len(table) < 2:
        return mx.array(mean), None
    drawn = np.random.default_rng(seed).integers(len(table), size=(RESAMPLES, len(table)))
    counts = np.stack([np.bincount(row, minlength=len(table)) for row in drawn]) * share
    means = np.tensordot(counts / counts.sum(axis=1, keepdims=True), table, axes=1)
    ends = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return mx.array(mean), mx.array(ends.astype(mean.dtype))
