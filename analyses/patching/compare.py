"""How far logits are from others."""

from __future__ import annotations

import mlx.core as mx

from mlxray.arrays import number


def relative_error(logits: mx.array, expected: mx.array) -> float:
    """The largest difference, as a share of the largest expected logit.

    Equal infinities are no difference: some models rule tokens out with minus infinity. A NaN
    on either side is an infinite one.
    """
    first, second = logits.astype(mx.float32), expected.astype(mx.float32)
    error = mx.where(first == second, 0.0, mx.abs(first - second))
    error = mx.where(mx.isnan(error), mx.inf, error)
    size = mx.where(mx.isfinite(second), mx.abs(second), 0.0)
    return number(mx.max(error)) / max(number(mx.max(size)), 1e-30)
