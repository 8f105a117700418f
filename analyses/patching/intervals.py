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
    gaps: Sequence[float] | None = None,
) -> tuple[mx.array, mx.array | None]:
    """Mean over the first axis and its percentile bootstrap interval (Efron 1979).

    With `gaps` it is a ratio of means: the mean value over the mean gap. Examples are drawn
    together with their own gaps, so the interval is that of the ratio.

    Args:
        values: One array for each example, all of one shape.
        seed: Of the resampling.
        level: Share of resampled means between the ends.
        gaps: For each example what its values are a part of.

    Returns:
        The mean, and (2, …) its lower and upper end; None for a single example.
    """
    import numpy as np

    table = np.stack([np.array(value) for value in values])
    wholes = np.ones(len(table)) if gaps is None else np.array(gaps, dtype=np.float64)
    mean = (table.mean(axis=0, dtype=np.float64) / wholes.mean()).astype(table.dtype)
    if len(table) < 2:
        return mx.array(mean), None
    drawn = np.random.default_rng(seed).integers(len(table), size=(RESAMPLES, len(table)))
    counts = np.stack([np.bincount(row, minlength=len(table)) for row in drawn])
    totals = np.tensordot(counts, table.astype(np.float64), axes=1)
    below = (counts @ wholes).reshape(-1, *[1] * (table.ndim - 1))
    # Gaps of mixed signs may cancel in a draw, which then says nothing.
    means = totals / np.where(below == 0, np.nan, below)
    ends = np.nanquantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return mx.array(mean), mx.array(ends.astype(mean.dtype))
