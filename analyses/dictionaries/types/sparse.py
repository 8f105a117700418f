"""Features of a token as (values, indices): a few numbers instead of a row of thousands."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx

#: Bytes of gathered rows above which a CPU gathers them in parts, and bytes of a part, which its
#: cache holds: at 768 dimensions and k = 25 that takes a third of the time.
AT_ONCE, PART = 2**24, 2**20


def scatter_features(values: mx.array, indices: mx.array, n_features: int) -> mx.array:
    """Dense features (…, F) of values (…, k) at indices (…, k), which differ within a row."""
    dense = mx.zeros((*values.shape[:-1], n_features), dtype=values.dtype)
    return mx.put_along_axis(dense, indices, values, axis=-1)


def gather_decode(values: mx.array, indices: mx.array, decoder: mx.array) -> mx.array:
    """The product of sparse features and a decoder, by reading k rows of it per token.

    Args:
        values: (…, k).
        indices: (…, k).
        decoder: (F, d).

    Returns:
        (…, d).
    """

    def decode(values: mx.array, rows: mx.array) -> mx.array:
        return (values[..., None, :] @ rows).squeeze(-2)

    return _with_rows(decode, values, indices, decoder)


def gather_products(x: mx.array, indices: mx.array, decoder: mx.array) -> mx.array:
    """Products of each x and the k rows of a decoder that belong to it.

    Args:
        x: (…, d).
        indices: (…, k).
        decoder: (F, d).

    Returns:
        (…, k).
    """

    def multiply(x: mx.array, rows: mx.array) -> mx.array:
        return (rows @ x[..., None]).squeeze(-1)

    return _with_rows(multiply, x, indices, decoder)


def _with_rows(
    function: Callable[[mx.array, mx.array], mx.array],
    x: mx.array,
    indices: mx.array,
    decoder: mx.array,
) -> mx.array:
    """A function of x (…, n) and the rows (…, k, d) of a decoder at indices (…, k)."""
    token = indices.shape[-1] * decoder.shape[-1] * decoder.dtype.size
    tokens = indices.size // indices.shape[-1]
    gpu = mx.default_device().type == mx.DeviceType.gpu
    if gpu or indices.ndim != 2 or tokens * token <= AT_ONCE:
        return function(x, decoder[indices])
    size = max(1, PART // token)
    parts = [slice(start, start + size) for start in range(0, tokens, size)]
    return mx.concatenate([function(x[part], decoder[indices[part]]) for part in parts])
