"""Functions whose gradients are not those that tracing through them would give, or cost less.

Masks are multiplied: where half of a mask is on, MLX's `where` takes a CPU 25 times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx

from mlxray.top_k import top_k

from ..types.sparse import gather_decode, gather_products, scatter_features
from .largest import kth_largest


def positive(x: mx.array) -> mx.array:
    """max(x, 0) of (N, F)."""
    # With a row of zeros: beside a lone number a CPU takes almost twice as long.
    return mx.maximum(x, mx.zeros(x.shape[-1], x.dtype))


def rectify(pre: mx.array) -> mx.array:
    """max(pre, 0) of (N, F)."""
    return cast(mx.array, _rectify(pre))


@mx.custom_function
def _rectify(pre: mx.array) -> mx.array:
    return positive(pre)


@_rectify.vjp
def _rectify_slope(pre: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
    return cotangent * mx.sign(output)


def open_gates(gates: mx.array, magnitude: mx.array) -> mx.array:
    """max(magnitude, 0) where gates, which are not negative, are on; they get no gradient."""
    return cast(mx.array, _open_gates(gates, magnitude))


@mx.custom_function
def _open_gates(gates: mx.array, magnitude: mx.array) -> mx.array:
    return mx.sign(gates) * positive(magnitude)


@_open_gates.vjp
def _open_gates_slopes(
    primals: Any, cotangent: mx.array, output: mx.array
) -> tuple[mx.array, mx.array]:
    return mx.zeros_like(primals[0]), cotangent * mx.sign(output)


def jump(bandwidth: float) -> Callable[[mx.array, mx.array], tuple[mx.array, mx.array]]:
    """JumpReLU and its L0 with straight-through gradients (Rajamanoharan et al. 2024b).

    Args:
        bandwidth: ε of the rectangle kernel K.

    Returns:
        (pre (N, F), threshold (F,), not negative) → features (N, F), and how many are on, (N,). The
        gradient of the threshold θ is −(θ / ε) K((pre − θ) / ε) for features, and
        −(1 / ε) K((pre − θ) / ε) for L0. That of `pre` is 1 where it is above, for features, and
        0 for L0.
    """

    @mx.custom_function
    def jumped(pre: mx.array, threshold: mx.array) -> tuple[mx.array, mx.array]:
        on = pre > threshold
        return on.astype(pre.dtype) * pre, mx.sum(on, axis=-1).astype(pre.dtype)

    @jumped.vjp
    def slopes(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, mx.array]:
        (pre, threshold), (features, l0) = primals, cotangents
        near = (mx.abs(pre - threshold) < bandwidth / 2).astype(pre.dtype)
        slope = threshold * mx.sum(near * features, axis=0) + l0 @ near
        return features * mx.sign(outputs[0]), -slope / bandwidth

    return cast(Callable[[mx.array, mx.array], tuple[mx.array, mx.array]], jumped)


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


def select_batch(pre: mx.array, kept: int) -> mx.array:
    """The `kept` largest of all of (N, F) where they are positive, else 0."""

    @mx.custom_function
    def chosen(pre: mx.array) -> mx.array:
        features = positive(pre)
        threshold = kth_largest(features.reshape(-1), kept)
        return (features >= threshold).astype(pre.dtype) * features

    @chosen.vjp
    def slope(pre: mx.array, cotangent: mx.array, output: mx.array) -> mx.array:
        return cotangent * mx.sign(output)

    return cast(mx.array, chosen(pre))


def nested_decode(ends: tuple[int, ...]) -> Callable[[mx.array, mx.array], list[mx.array]]:
    """What each part of the features writes.

    Args:
        ends: Where parts end; the last one with all features, F.

    Returns:
        (features (N, F), decoder (F, d)) → an array (N, d) for each part. Differentiating
        slices would fill an array of zeros for each of them.
    """
    parts = [slice(start, end) for start, end in zip((0, *ends), ends, strict=False)]

    @mx.custom_function
    def decoded(code: mx.array, decoder: mx.array) -> list[mx.array]:
        return [code[:, part] @ decoder[part] for part in parts]

    @decoded.vjp
    def slopes(primals: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, mx.array]:
        code, decoder = primals
        pairs = list(zip(parts, cotangents, strict=True))
        codes = [written @ decoder[part].T for part, written in pairs]
        decoders = [code[:, part].T @ written for part, written in pairs]
        return mx.concatenate(codes, axis=1), mx.concatenate(decoders, axis=0)

    return cast(Callable[[mx.array, mx.array], list[mx.array]], decoded)


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
    slopes = gather_products(cotangent, indices, decoder)
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
