"""Matching pursuit: features are found one after the other, each in what the last ones left."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

import mlx.core as mx

from mlxray.arrays import truth
from mlxray.checks.arguments import count, real

from .normalization import NoNormalization, Normalization
from .shapes import check_floats, check_shape, check_width
from .shared import Autoencoder, LinearDecoder


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class MatchingPursuit(LinearDecoder, Autoencoder):
    """An autoencoder without an encoder (Costa et al. 2025, "From flat to hierarchical").

    The residual begins as ``normalize(x) − decoder_bias``. Each step takes the feature whose row of
    the decoder has the largest product with it, adds the product (if positive) to that feature, and
    subtracts the product times the row from the residual. Rows are meant to have norm 1, and are
    used as they are. The output is ``denormalize(features @ decoder + decoder_bias)``.

    Attributes:
        decoder: (F, d), W_dec.
        decoder_bias: (d,), b_dec.
        residual_threshold: A token is done after the step that leaves its residual with a smaller
            norm than this; 0 for never.
        max_iterations: Most steps; None for d.
        stop_on_repeat: Whether a token is done after the first step that turns on no new feature
            (SAELens' ``stop_on_duplicate_support``).
        normalization: What is done to x first, and undone on the output.
        reads: The address in the model that it reads, which is what it reconstructs.
        metadata: Where it comes from, how it was trained.

    Raises:
        InputError: if a tensor has a shape that does not fit, or a number makes no sense.

    Example:
        >>> pursuit = MatchingPursuit(decoder=mx.eye(2), decoder_bias=mx.zeros(2))
        >>> pursuit.encode(mx.array([3.0, -1.0])).tolist()
        [3.0, 0.0]
    """

    kind: ClassVar[str] = "matching_pursuit"
    needs_text: ClassVar[bool] = False

    decoder: mx.array
    decoder_bias: mx.array
    residual_threshold: float = 1e-2
    max_iterations: int | None = None
    stop_on_repeat: bool = True
    normalization: Normalization = field(default_factory=NoNormalization)
    reads: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_floats("decoder", self.decoder, 2)
        decoder = f"decoder has shape {tuple(self.decoder.shape)}"
        check_shape("decoder_bias", self.decoder_bias, (self.d_out,), decoder)
        threshold = real(self.residual_threshold, "residual_threshold", least=0)
        object.__setattr__(self, "residual_threshold", threshold)
        if self.max_iterations is not None:
            most = count(self.max_iterations, "max_iterations")
            object.__setattr__(self, "max_iterations", most)
        self.normalization.check(self.d_in, self.d_out)

    def encode_sparse(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """The steps: values (…, n) and indices (…, n), in the order in which they were made.

        A feature that two steps chose is there twice, and counts with the sum. Steps after a token
        is done have value 0. `n` is the number of steps of the token that took most.

        Raises:
            InputError: if `x` has another width.
        """
        check_width("x", x, self.d_in)
        read = self.normalization.normalize(x.astype(self.decoder.dtype)) - self.decoder_bias
        residual = read.reshape(math.prod(x.shape[:-1]), self.d_in)
        done = mx.zeros((residual.shape[0], 1), mx.bool_)
        values: list[mx.array] = []
        indices: list[mx.array] = []
        for _ in range(self.max_iterations or self.d_in):
            products = mx.stop_gradient(residual) @ self.decoder.T
            index = mx.stop_gradient(mx.argmax(products, axis=1, keepdims=True))
            row = self.decoder[index[:, 0]]
            value = mx.maximum(mx.sum(residual * row, axis=1, keepdims=True), 0)
            value = mx.where(done, 0, value).astype(residual.dtype)
            residual = residual - value * row
            done = done | (value == 0)  # nothing has changed, so nothing will
            if self.stop_on_repeat:
                done = done | _repeats(index, indices)
            if self.residual_threshold > 0:
                norm = mx.linalg.norm(residual.astype(mx.float32), axis=1, keepdims=True)
                done = done | (norm < self.residual_threshold)
            values.append(value)
            indices.append(index)
            if truth(mx.all(done)):
                break
        shape = (*x.shape[:-1], len(values))
        return (
            mx.concatenate(values, axis=1).reshape(shape),
            mx.concatenate(indices, axis=1).reshape(shape),
        )

    def encode(self, x: mx.array) -> mx.array:
        """Features: (…, d) → (…, F), in the decoder's dtype.

        Each step is evaluated, to see whether all tokens are done.

        Raises:
            InputError: if `x` has another width.
        """
        values, indices = self.encode_sparse(x)
        tokens, steps = math.prod(x.shape[:-1]), values.shape[-1]
        values, indices = values.reshape(tokens, steps), indices.reshape(tokens, steps)
        dense = mx.zeros((tokens, self.n_features), values.dtype)
        rows = mx.arange(tokens)[:, None]
        return dense.at[rows, indices].add(values).reshape(*x.shape[:-1], self.n_features)

    def __call__(self, x: mx.array) -> mx.array:
        """The reconstruction: (…, d) → (…, d).

        Raises:
            InputError: if `x` has another width.
        """
        values, indices = self.encode_sparse(x)
        return self.decode_sparse(values, indices, x)

    def _finish(self, decoded: mx.array, x: mx.array | None) -> mx.array:
        if x is not None:
            check_width("x", x, self.d_in)
            x = x.astype(self.decoder.dtype)
        return self.normalization.denormalize(decoded + self.decoder_bias, x)


def _repeats(index: mx.array, indices: list[mx.array]) -> mx.array:
    """Whether a step (N, 1) chose a feature that a step before chose, and so turned on."""
    if not indices:
        return mx.zeros(index.shape, mx.bool_)
    return mx.any(mx.concatenate(indices, axis=1) == index, axis=1, keepdims=True)
