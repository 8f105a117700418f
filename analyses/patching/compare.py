"""How far logits are from others, and whether two prompts are told apart by theirs."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from mlxray.arrays import number
from mlxray.errors import AnalysisError
from mlxray.tokens import Batch


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


def check_apart(
    batches: tuple[Batch, Batch],
    position: int,
    clean: mx.array,
    corrupted: mx.array,
    read: Sequence[int],
) -> None:
    """Refuse two prompts that are the same up to the position that is measured.

    Their tokens decide. Logits are looked at as well, and with a tolerance,
    since a model that is not causal may tell the prompts apart all the same.

    Args:
        batches: The prompts.
        position: Where the logits are measured.
        clean, corrupted: Logits (P, V).
        read: Their positions.

    Raises:
        AnalysisError: if the logits are the same there.
    """
    end = max(read)
    same = mx.array_equal(batches[0].ids[:, : end + 1], batches[1].ids[:, : end + 1]).item()
    if same and alike(clean, corrupted):
        raise AnalysisError(
            f"both prompts give the same logits at position {position}: nothing to recover. "
            "Their tokens differ after it only."
        )


def alike(first: mx.array, second: mx.array) -> bool:
    """Whether two arrays differ by no more than rounding in their dtype."""
    return relative_error(second, first) <= 64 * mx.finfo(first.dtype).eps
