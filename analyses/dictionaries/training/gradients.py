"""Functions whose gradients are not those that tracing through them would give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx

from mlxray.top_k import top_k

from ..types.sparse import gather_decode, scatter_features


def jump(bandwidth: float) -> Callable[[mx.array, mx.array], mx.array]:
    """JumpReLU with straight-through gradients (Rajamanoharan et al. 2024b).

    Args:
        bandwidth: ε of the rectangle kernel K.

    Returns:
        (pre (N, F), threshold (F,)) → features. The gradient of the threshold θ is
        −(θ / ε) K((pre − θ) / ε), that of `pre` is 1 where it is above.
    """

    @mx.custom_function
    def jumped(pre: mx.array, threshold: mx.array) -> mx.array:
        return mx.where(pre > threshold, pre, 0)

    @jumped.vjp
    def slopes(primals: Any, cotangent: mx.array, output: mx.array) -> tuple[mx.array, mx.array]:
        pre, threshold = primals
        near = _kernel(pre, threshold, bandwidth)
        slope = mx.sum(mx.where(near, cotangent, 0), axis=0)
        return mx.where(pre > threshold, cotangent, 0), -threshold / bandwidth * slope

    return cast(Callable[[mx.array, mx.array], mx.array], jumped)


def step(bandwidth: float) -> Callable[[mx.array, mx.array], mx.array]:
    """1 where pre > threshold, else 0; the threshold's gradient is −(1 / ε) K((pre − θ) / ε).

    Args:
        bandwidth: ε of the rectangle kernel K.
    """

    @mx.custom_function
    def stepped(pre: mx.array, threshold: mx.array) -> mx.array:
        return (pre > threshold).astype(pre.dtype)

    @stepped.vjp
    def slopes(primals: Any, cotangent: mx.array, output: mx.array) -> tuple[mx.array, mx.array]:
        pre, threshold = primals
        near = _kernel(pre, threshold, bandwidth)
        slope = mx.sum(mx.where(near, cotangent, 0), axis=0)
        return mx.zeros_like(pre), -slope / bandwidth

    return cast(Callable[[mx.array, mx.array], mx.array], stepped)


def _kernel(pre: mx.array, threshold: mx.array, bandwidth: float) -> mx.array:
    return mx.abs(pre - threshold) < bandwidth / 2


def select(pre: mx.array, k: int) -> tuple[mx.array, mx.array]:
    """The k largest of each row, negative ones set to 0: values (N, k) and indices (N, k).

    The gradient is written back to the places of the values, which differ within a row: no sum.
    """
    indices, _ = top_k(mx.stop_gradient(pre), k, ordered=False)

    @mx.custom_function
    def chosen(pre: mx.array, indices: mx.array) -> mx.array:
        return mx.maximum(mx.take_along_axis(pre, indices, axis=-1), 0)

    @chosen.vjp
    def slopes(primals: Any, cotangent: mx.array, output: mx.array) -> tuple[mx.array, mx.array]:
        pre, indices = primals
        slope = mx.where(output > 0, cotangent, 0)
        return scatter_features(slope, indices, pre.shape[-1]), mx.zeros_like(indices)

    return cast(mx.array, chosen(pre, indices)), indices


@mx.custom_function
def sparse_decode(values: mx.array, indices: mx.array, decoder: mx.array) -> mx.array:
    """Sparse features times a decoder: (N, k), (N, k), (F, d) → (N, d).

    Values get their gradient from the k rows of the decoder that they multiply. The decoder's
    is one dense product: adding 131,072 rows one by one takes longer on all devices tried.
    """
    return gather_decode(values, indices, decoder)


@sparse_decode.vjp
def _sparse_decode_slopes(
    primals: Any, cotangent: mx.array, output: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    values, indices, decoder = primals
    slopes = (decoder[indices] @ cotangent[..., None]).squeeze(-1)
    dense = scatter_features(values, indices, decoder.shape[0])
    return slopes, mx.zeros_like(indices), dense.T @ cotangent


@mx.custom_function
def project(x: mx.array, bias: mx.array, encoder: mx.array) -> mx.array:
    """(x − bias) @ encoder: (N, d), (d,), (d, F) → (N, F).

    The bias's gradient is summed over tokens before it goes through the encoder: a product of a
    row in place of one of N rows.
    """
    return (x - bias) @ encoder


@project.vjp
def _project_slopes(
    primals: Any, cotangent: mx.array, output: mx.array
) -> tuple[mx.array, mx.array, mx.array]:
    x, bias, encoder = primals
    summed = mx.sum(cotangent, axis=0)
    # What is read is data: nothing asks for its gradient.
    return mx.zeros_like(x), -(encoder @ summed), (x - bias).T @ cotangent
