"""Metrics of distance: how near the patched logits came to the clean ones."""

from __future__ import annotations

import mlx.core as mx

from mlxray import Metric, hookimpl, metric

from .common import Position, compared, recovered


def _norm(x: mx.array) -> mx.array:
    """Euclidean norm over the last axis that neither overflows nor underflows.

    Its gradient at zero is zero, not NaN.
    """
    largest = mx.stop_gradient(mx.max(mx.abs(x), axis=-1, keepdims=True))
    largest = mx.where((largest == 0) | mx.isinf(largest), 1.0, largest)
    total = mx.sum(mx.square(x / largest), axis=-1)
    return mx.where(total == 0, 0.0, mx.sqrt(mx.where(total == 0, 1.0, total))) * largest[..., 0]


#: Half the squared distance between unit vectors that differ by nothing but float32 rounding.
_SAME_DIRECTION = 1e-13


def _turned(a: mx.array, b: mx.array) -> mx.array:
    """``1 − cos(a, b)``, exact to rounding for small angles too: half of ‖a/‖a‖ − b/‖b‖‖²."""
    turned = mx.square(_norm(a / _norm(a)[..., None] - b / _norm(b)[..., None])) / 2
    return mx.where(turned < _SAME_DIRECTION, 0.0, turned)


@metric(aliases=("l2",))
def l2_distance(
    patched_logits: mx.array,
    clean_logits: mx.array,
    corrupted_logits: mx.array,
    *,
    position: Position = -1,
    per_example: bool = False,
    normalize: bool = True,
) -> float | mx.array:
    """Share of the Euclidean distance recovered: 1 − ‖patched − clean‖ / ‖corrupted − clean‖.

    1 where patched equals clean, 0 where it is as far away as corrupted, negative beyond. With
    ``normalize=False`` by how much the distance to clean fell.

    Raises:
        AnalysisError: if clean and corrupted are equal, or something is NaN.
    """
    patched, clean, corrupted = compared(
        patched_logits, clean_logits, corrupted_logits, position=position
    )
    gap = _norm(corrupted - clean)
    change = gap - _norm(patched - clean)
    return recovered(change, gap, name="l2_distance", per_example=per_example, normalize=normalize)


@metric(aliases=("mse",))
def mse_distance(
    patched_logits: mx.array,
    clean_logits: mx.array,
    corrupted_logits: mx.array,
    *,
    position: Position = -1,
    per_example: bool = False,
    normalize: bool = True,
) -> float | mx.array:
    """Share of the mean squared error recovered: 1 − MSE(patched) / MSE(corrupted), to clean.

    With ``normalize=False`` by how much the error fell.

    Raises:
        AnalysisError: if clean and corrupted are equal, or something is NaN.
    """
    patched, clean, corrupted = compared(
        patched_logits, clean_logits, corrupted_logits, position=position
    )
    gap, left = _norm(corrupted - clean), _norm(patched - clean)
    # In units of a gap, so that squares do not overflow: each row's own where rows stay apart.
    unit = mx.array((patched.shape[1]) ** 0.5)
    if normalize:
        unit = gap if per_example else mx.max(gap)
        unit = mx.where(unit == 0, 1.0, unit)
    whole = mx.square(gap / unit)
    change = whole - mx.square(left / unit)
    return recovered(
        change, whole, name="mse_distance", per_example=per_example, normalize=normalize
    )


@metric(aliases=("cosine",))
def cosine_distance(
    patched_logits: mx.array,
    clean_logits: mx.array,
    corrupted_logits: mx.array,
    *,
    position: Position = -1,
    per_example: bool = False,
    normalize: bool = True,
) -> float | mx.array:
    """Share of the cosine distance recovered.

    (cos(patched, clean) − cos(corrupted, clean)) / (1 − cos(corrupted, clean)): 1 where patched
    points as clean does, 0 where it points away as far as corrupted. With ``normalize=False``
    by how much the cosine rose.

    Raises:
        AnalysisError: if clean and corrupted point the same way, or something is NaN or all zero.
    """
    patched, clean, corrupted = compared(
        patched_logits, clean_logits, corrupted_logits, position=position
    )
    gap = _turned(corrupted, clean)
    change = gap - _turned(patched, clean)
    return recovered(
        change, gap, name="cosine_distance", per_example=per_example, normalize=normalize
    )


@hookimpl
def mlxray_metrics() -> list[Metric]:
    """Distances between logits."""
    return [l2_distance, cosine_distance, mse_distance]
