"""Crosscoders: one set of features that reads and writes several points of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from mlxray.errors import InputError

from .activations import Activation
from .shapes import check_floats, check_shape, check_width

if TYPE_CHECKING:
    from .features import CrosscoderFeatures


@dataclass(frozen=True, eq=False, kw_only=True)
class Crosscoder:
    """One set of features for n points (Lindsey et al. 2024).

    ``features = activation(Σ_p x_p @ encoder[p] + encoder_bias)`` and
    ``output_p = features @ decoder[:, p] + decoder_bias[p]``.

    Attributes:
        encoder: (n, d, F).
        encoder_bias: (F,).
        decoder: (F, n, d).
        decoder_bias: (n, d).
        activation: From pre-activations to features.
        points: n addresses, or none.
        metadata: Where it comes from, how it was trained.

    Raises:
        InputError: if a tensor has a shape that does not fit; it names the tensor and both shapes.
    """

    encoder: mx.array
    encoder_bias: mx.array
    decoder: mx.array
    decoder_bias: mx.array
    activation: Activation
    points: tuple[str, ...] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_floats("encoder", self.encoder, 3)
        n, width, features = self.encoder.shape
        encoder = f"encoder has shape {(n, width, features)}"
        check_shape("encoder_bias", self.encoder_bias, (features,), encoder)
        check_shape("decoder", self.decoder, (features, n, width), encoder)
        check_shape("decoder_bias", self.decoder_bias, (n, width), encoder)
        self.activation.check(features)
        if self.points is not None:
            object.__setattr__(self, "points", tuple(self.points))
            if len(self.points) != n:
                raise InputError(f"points has {len(self.points)} addresses; {encoder}.")

    def __repr__(self) -> str:
        return f"Crosscoder({self.kind}, {self.n_points} × {self.d} → {self.n_features})"

    @property
    def kind(self) -> str:
        """The activation function."""
        return self.activation.kind

    @property
    def n_points(self) -> int:
        """Number of points, n."""
        return int(self.encoder.shape[0])

    @property
    def d(self) -> int:
        """Width of each point."""
        return int(self.encoder.shape[1])

    @property
    def n_features(self) -> int:
        """Number of features, F."""
        return int(self.encoder.shape[2])

    def encode(self, inputs: Sequence[mx.array]) -> mx.array:
        """Features: n inputs (…, d), in the order of `points` → (…, F).

        Raises:
            InputError: if there are more or fewer inputs than points, or one has another width.
        """
        if len(inputs) != self.n_points:
            raise InputError(
                f"inputs: got {len(inputs)}, but the crosscoder has {self.n_points} points."
            )
        pre = self.encoder_bias
        for number, x in enumerate(inputs):
            check_width(f"input {number}", x, self.d)
            pre = pre + x.astype(self.encoder.dtype) @ self.encoder[number]
        return self.activation(pre)

    def decode(self, features: mx.array) -> list[mx.array]:
        """Output of each point: (…, F) → n times (…, d).

        Raises:
            InputError: if `features` has another width.
        """
        check_width("features", features, self.n_features)
        return [
            features @ self.decoder[:, point] + self.decoder_bias[point]
            for point in range(self.n_points)
        ]

    def __call__(self, inputs: Sequence[mx.array]) -> list[mx.array]:
        """Reconstruct all points: n inputs (…, d) → n times (…, d)."""
        return self.decode(self.encode(inputs))

    def derived_points(self) -> tuple[CrosscoderFeatures, ...]:
        """Its features as points of a model, for ``model.attach(dictionary)``.

        Raises:
            InputError: if it does not know where in a model it stands.
        """
        from .features import CrosscoderFeatures

        return (CrosscoderFeatures(self),)
