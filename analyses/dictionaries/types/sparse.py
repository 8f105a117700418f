"""Features of a token as (values, indices): a few numbers instead of a row of thousands."""

from __future__ import annotations

import mlx.core as mx


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
    rows = decoder[indices]  # (…, k, d)
    return (values[..., None, :] @ rows).squeeze(-2)
