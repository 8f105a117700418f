"""The k-th largest of very many numbers."""

from __future__ import annotations

import math

import mlx.core as mx

#: Groups that are smaller than this save nothing.
SMALLEST_GROUP = 4


def kth_largest(values: mx.array, k: int) -> mx.array:
    """The k-th largest of many numbers that are not negative.

    A CPU finds it by quickselect, among the numbers of the k groups with the largest maxima, which
    hold the k largest. A GPU would sort everything for that, so there the bits are bisected, whose
    order as integers is that of the numbers: each round counts once, which costs a small part of
    sorting.

    Args:
        values: (n,), not negative.
        k: From 1 to n.
    """
    if mx.default_device().type == mx.DeviceType.gpu:
        return bisect_bits(values, k)
    group = 1 << round(math.log2(math.sqrt(values.size / k)))
    if group >= SMALLEST_GROUP and values.size % group == 0:
        # Groups of numbers that lie far apart: their maxima are found twice as fast.
        columns = values.reshape(group, -1)
        best = mx.argpartition(mx.max(columns, axis=0), columns.shape[1] - k)[-k:]
        values = mx.take(columns, best, axis=1).reshape(-1)
    place = values.size - k
    return mx.partition(values, place)[place]


def bisect_bits(values: mx.array, k: int) -> mx.array:
    """The same by counting alone."""
    wide = values.astype(mx.float32).view(mx.int32)
    low, high = mx.array(0, mx.int32), mx.max(wide)
    for _ in range(31):
        # At least k are as large as `low`; the answer is `low` when nothing lies between.
        middle = low + (high - low + 1) // 2
        enough = mx.sum(wide >= middle) >= k
        low, high = mx.where(enough, middle, low), mx.where(enough, high, middle - 1)
    return low.view(mx.float32).astype(values.dtype)
