"""The largest numbers of each row, without sorting the row."""

from __future__ import annotations

import math

import mlx.core as mx

#: Groups that are smaller than this save nothing over sorting.
SMALLEST_GROUP = 8


def top_k(x: mx.array, k: int, *, ordered: bool = True) -> tuple[mx.array, mx.array]:
    """The k largest numbers of each row, best first, equal ones in the order of their indices.

    On a GPU MLX sorts all of a row to partition it, which costs many times what reading it does.
    Here a row is cut into groups; the k groups with the largest maxima hold the k largest numbers,
    and only these are sorted.

    Args:
        x: (…, N) floating-point numbers. NaN counts as minus infinity; where `ordered` is False it
            may count as the largest.
        k: How many, between 1 and N.
        ordered: False if they may come in any order, and any of equal numbers may be chosen. A
            CPU then sorts nothing.

    Returns:
        Indices (…, k), uint32, and values (…, k) of `x`'s type.

    Raises:
        ValueError: if `k` is out of range.

    Example:
        >>> indices, values = top_k(mx.array([[1.0, 5.0, 5.0, 2.0]]), 2)
        >>> indices.tolist(), values.tolist()
        ([[1, 2]], [[5.0, 5.0]])
    """
    size = x.shape[-1]
    if not 1 <= k <= size:
        raise ValueError(f"k is between 1 and {size}, the numbers in a row; got {k}.")
    known = mx.where(mx.isnan(x), -mx.inf, x) if ordered else x
    # About as many groups as numbers in the groups that are chosen: the least to sort.
    group = 1 << round(math.log2(math.sqrt(size / k)))
    if k == 1:
        indices = mx.argmax(known, axis=-1, keepdims=True)
    elif group >= SMALLEST_GROUP and not ordered and size % group == 0:
        indices = _from_columns(known, k, group)
    elif group >= SMALLEST_GROUP:
        indices = _from_groups(known, k, group, ordered)
    else:
        indices = _best(known, k, ordered)
    return indices, mx.take_along_axis(x, indices, axis=-1)


def _best(x: mx.array, k: int, ordered: bool) -> mx.array:
    """Indices of the k largest numbers, without groups."""
    # On a GPU MLX sorts in order to partition.
    if ordered or k == x.shape[-1] or mx.default_device().type == mx.DeviceType.gpu:
        return mx.argsort(-x, axis=-1)[..., :k]
    return mx.argpartition(x, x.shape[-1] - k, axis=-1)[..., -k:]


def _from_columns(x: mx.array, k: int, group: int) -> mx.array:
    """The same as `_from_groups` in any order, with groups of numbers that lie far apart.

    A CPU finds the maxima of columns at least twice as fast as those of neighbours.
    """
    columns = x.reshape(*x.shape[:-1], group, -1)
    best = _best(mx.max(columns, axis=-2), k, False)[..., None, :]
    values = mx.take_along_axis(columns, best, axis=-1).reshape(*x.shape[:-1], -1)
    rows = columns.shape[-1] * mx.arange(group, dtype=best.dtype)[:, None]
    indices = (best + rows).reshape(*x.shape[:-1], -1)
    return mx.take_along_axis(indices, _best(values, k, False), axis=-1)


def _from_groups(x: mx.array, k: int, group: int, ordered: bool) -> mx.array:
    """Indices of the k largest numbers, found among those of the k groups with largest maxima.

    Equal maxima count in the order of the groups, so equal numbers do in the order of indices.
    """
    size = x.shape[-1]
    missing = -size % group
    if missing:
        ordered = True  # so that nothing of the padding is chosen among equal numbers
        x = mx.pad(x, [*[(0, 0)] * (x.ndim - 1), (0, missing)], constant_values=-mx.inf)
    grouped = x.reshape(*x.shape[:-1], -1, group)
    best = _best(mx.max(grouped, axis=-1), k, ordered)
    if ordered:  # in the order of indices, which sorting by value, being stable, keeps
        best = mx.sort(best, axis=-1)
    best = best[..., None]
    values = mx.take_along_axis(grouped, best, axis=-2).reshape(*x.shape[:-1], -1)
    indices = (best * group + mx.arange(group, dtype=best.dtype)).reshape(*x.shape[:-1], -1)
    return mx.take_along_axis(indices, _best(values, k, ordered), axis=-1)
