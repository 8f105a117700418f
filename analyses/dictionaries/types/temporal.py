"""Temporal dictionaries: what the tokens before predict, and sparse features of what is new."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import mlx.core as mx

from mlxray.checks.arguments import count
from mlxray.errors import InputError

from .activations import Activation
from .normalization import NoNormalization, Normalization
from .shapes import check_floats, check_shape, check_width
from .shared import Autoencoder

#: Added to the norm that a prediction is divided by.
EPSILON = 1e-6


@dataclass(frozen=True, eq=False, kw_only=True)
class ContextAttention:
    """Attention of a token's codes (F of them) to the codes of the tokens before it.

    Weights have torch's order of axes, (out, in).

    Attributes:
        query, key: (E, F); each head has E / n_heads of them.
        value, output: (F, F).
        query_bias, key_bias: (E,).
        value_bias, output_bias: (F,).
        n_heads: Number of heads; it divides E and F.

    Raises:
        InputError: if a tensor has a shape that does not fit, or the heads do not divide it.
    """

    query: mx.array
    query_bias: mx.array
    key: mx.array
    key_bias: mx.array
    value: mx.array
    value_bias: mx.array
    output: mx.array
    output_bias: mx.array
    n_heads: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_heads", count(self.n_heads, "n_heads"))
        check_floats("query", self.query, 2)
        width, features = self.query.shape
        query = f"query has shape {(width, features)}"
        for name, shape in (("key", (width, features)), ("value", (features, features))):
            check_shape(name, getattr(self, name), shape, query)
        check_shape("output", self.output, (features, features), query)
        for name, size in (("query", width), ("key", width), ("value", features)):
            check_shape(f"{name}_bias", getattr(self, f"{name}_bias"), (size,), query)
        check_shape("output_bias", self.output_bias, (features,), query)
        if width % self.n_heads or features % self.n_heads:
            raise InputError(f"n_heads={self.n_heads} does not divide {width} and {features}.")

    def __call__(self, codes: mx.array) -> mx.array:
        """(…, S, F) → (…, S, F).

        The token at position t asks with its own codes. Keys and values are those of the positions
        before it and of an empty one before the first, whose codes are zero.
        """
        before = mx.concatenate([mx.zeros_like(codes[..., :1, :]), codes[..., :-1, :]], axis=-2)
        query = self._heads(codes @ self.query.T + self.query_bias)
        key = self._heads(before @ self.key.T + self.key_bias)
        value = self._heads(before @ self.value.T + self.value_bias)
        scores = (query * (1 / math.sqrt(query.shape[-1]))) @ key.swapaxes(-1, -2)
        tokens = codes.shape[-2]
        scores = mx.where(mx.tri(tokens, dtype=mx.bool_), scores, -mx.inf)
        pattern = mx.softmax(scores, axis=-1, precise=True)
        mixed = (pattern @ value).swapaxes(-2, -3).reshape(codes.shape)
        return mixed @ self.output.T + self.output_bias

    def _heads(self, rows: mx.array) -> mx.array:
        """(…, S, n_heads · w) → (…, n_heads, S, w)."""
        return rows.reshape(*rows.shape[:-1], self.n_heads, -1).swapaxes(-2, -3)


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class TemporalDictionary(Autoencoder):
    """An autoencoder of what a token's past does not predict (Lubana et al. 2025, 2511.01836).

    With x normalised, less the bias if `subtract_decoder_bias`, and W the encoder divided by 4 d:
    each layer of attention maps relu(residual @ W) to predicted codes, the residual's share along
    ``codes @ decoder`` is taken out of it, and the codes in that share are added to those of the
    layers before. The features are ``activation(residual @ W)`` of what is left at last. The
    output is ``denormalize((features + predicted codes) @ decoder + decoder_bias)``.

    The axis before the last is that of tokens, and its first row is where the text begins.

    Attributes:
        decoder: (F, d), W_dec.
        decoder_bias: (d,), b_dec.
        layers: One or more `ContextAttention`, in their order.
        activation: From pre-activations to features.
        encoder: (d, F), W_enc; None for the transposed decoder (tied weights).
        subtract_decoder_bias: Whether the encoder reads x − decoder_bias.
        normalization: What is done to x first, and undone on the output.
        reads: The address in the model that it reads, which is what it reconstructs.
        metadata: Where it comes from, how it was trained.

    Raises:
        InputError: if a tensor has a shape that does not fit; it names the tensor and both shapes.
    """

    kind: ClassVar[str] = "temporal"
    needs_text: ClassVar[bool] = True

    decoder: mx.array
    decoder_bias: mx.array
    layers: Iterable[ContextAttention]
    activation: Activation
    encoder: mx.array | None = None
    subtract_decoder_bias: bool = True
    normalization: Normalization = field(default_factory=NoNormalization)
    reads: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        check_floats("decoder", self.decoder, 2)
        decoder = f"decoder has shape {tuple(self.decoder.shape)}"
        check_shape("decoder_bias", self.decoder_bias, (self.d_out,), decoder)
        if self.encoder is not None:
            check_shape("encoder", self.encoder, (self.d_in, self.n_features), decoder)
        for number, layer in enumerate(self.layers):
            square = (self.n_features, self.n_features)
            check_shape(f"layer {number}: value", layer.value, square, decoder)
        self.activation.check(self.n_features)
        self.normalization.check(self.d_in, self.d_out)

    def encode_with_predictions(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """Features and predicted codes of a text: (…, S, d) → twice (…, S, F).

        Raises:
            InputError: if `x` has another width, or no axis of tokens.
        """
        check_width("x", x, self.d_in)
        if x.ndim < 2:
            raise InputError(
                f"the features of a temporal dictionary depend on the tokens before: x is "
                f"(…, S, {self.d_in}), from the first token on; got shape {tuple(x.shape)}."
            )
        residual = self.normalization.normalize(x.astype(self.decoder.dtype))
        if self.subtract_decoder_bias:
            residual = residual - self.decoder_bias
        encoder = self.decoder.T if self.encoder is None else self.encoder
        factor = 1 / (4 * self.d_in)
        predicted = mx.zeros((*x.shape[:-1], self.n_features), residual.dtype)
        for layer in self.layers:
            codes = mx.maximum(layer(mx.maximum((residual * factor) @ encoder, 0)), 0)
            direction = codes @ self.decoder
            share = _share(residual, direction)
            predicted = predicted + codes * share
            residual = residual - share * direction
        return self.activation((residual * factor) @ encoder), predicted

    def encode(self, x: mx.array) -> mx.array:
        """Features, of what is new at each token: (…, S, d) → (…, S, F).

        Raises:
            InputError: if `x` has another width, or no axis of tokens.
        """
        return self.encode_with_predictions(x)[0]

    def decode(self, features: mx.array, x: mx.array | None = None) -> mx.array:
        """The output, predictions included: (…, S, F) → (…, S, d).

        Args:
            features: As `encode` gives them.
            x: (…, S, d), the input, which predictions are made from; needed.

        Raises:
            InputError: if a width does not fit, or `x` is missing.
        """
        check_width("features", features, self.n_features)
        if x is None:
            raise InputError(
                "a temporal dictionary adds what the tokens before predict: pass the input as "
                "well, dictionary.decode(features, x)."
            )
        return self._decode(features, self.encode_with_predictions(x)[1], x)

    def __call__(self, x: mx.array) -> mx.array:
        """The reconstruction: (…, S, d) → (…, S, d).

        Raises:
            InputError: if `x` has another width, or no axis of tokens.
        """
        return self._decode(*self.encode_with_predictions(x), x)

    def _decode(self, features: mx.array, predicted: mx.array, x: mx.array) -> mx.array:
        decoded = (features + predicted) @ self.decoder + self.decoder_bias
        return self.normalization.denormalize(decoded, x.astype(self.decoder.dtype))


def _share(x: mx.array, direction: mx.array) -> mx.array:
    """How often a direction (…, d) is in x (…, d): (…, 1), computed in float32."""
    wide, along = x.astype(mx.float32), direction.astype(mx.float32)
    norm = mx.linalg.norm(along, axis=-1, keepdims=True) + EPSILON
    return (mx.sum(along * wide, axis=-1, keepdims=True) / mx.square(norm)).astype(x.dtype)
