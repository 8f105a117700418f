"""What the residual stream is the sum of."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mlx.core as mx

from ...arrays import number
from ...errors import AnalysisError, PointAbsent
from ...points.layout import Layout

#: What a block may add to the stream, and the letter of its parts.
ADDS = {"mixer_add": "x", "attn_add": "a", "mlp_add": "m"}


def added_points(layout: Layout) -> list[tuple[str, int]]:
    """The (point, layer) that add to a model's residual stream, in order."""
    found = []
    for layer in range(layout.n_layers):
        for point in ADDS:
            try:
                layout.site((point, layer))
            except PointAbsent:
                continue
            found.append((point, layer))
    return found


def adds_up(parts: Sequence[mx.array], whole: mx.array) -> bool:
    """Whether `parts` sum to `whole`, to the rounding of its dtype."""
    rounding = 4 * mx.finfo(whole.dtype).eps * len(parts) ** 0.5
    return bool(_gap(parts, whole) <= rounding)


def check_sum(parts: Sequence[mx.array], whole: mx.array) -> None:
    """Refuse parts of a residual stream that do not sum to it.

    Args:
        parts: What was written, each (…, D).
        whole: The stream, (…, D).

    Raises:
        AnalysisError: if the gap is more than the rounding of the stream's dtype, or something is
            no finite number.
    """
    if not math.isfinite(_gap(parts, whole)):
        raise AnalysisError(
            "the residual stream, or what is written to it, is not a finite number: weights that "
            "are NaN, or numbers too large for the model's dtype."
        )
    if not adds_up(parts, whole):
        raise AnalysisError(
            "the residual stream is not the sum of the embedding and of what attention and MLPs "
            f"add (relative gap {_gap(parts, whole):.1e}): something else is written to it, or "
            "scaled on the way."
        )


def _gap(parts: Sequence[mx.array], whole: mx.array) -> float:
    """Largest gap, relative to the sizes that were added in its dimension."""
    wide = [part.astype(mx.float32) for part in parts]
    total, size = mx.zeros_like(wide[0]), mx.zeros_like(wide[0])
    for part in wide:
        total, size = total + part, size + mx.abs(part)
    least = mx.maximum(1e-6 * mx.max(size), 1e-30)
    gap: mx.array = mx.abs(total - whole.astype(mx.float32)) / mx.maximum(size, least)
    return number(mx.max(gap))
