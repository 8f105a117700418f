"""What is done to activations before a dictionary reads them, and undone on what it writes.

`normalize` returns the normalised input; `denormalize` maps a reconstruction back. Where the
scale belongs to the token (layer norm, unit norm), the way back needs the token's own input.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import mlx.core as mx

from mlxray.errors import InputError

from .shapes import check_shape


@dataclass(frozen=True, eq=False)
class Normalization:
    """Base of all normalisations.

    Attributes:
        kind: Its name.
        per_token: Whether the way back needs the token's input.
    """

    kind: ClassVar[str]
    per_token: ClassVar[bool] = False

    def normalize(self, x: mx.array) -> mx.array:
        """(…, d_in) → (…, d_in)."""
        raise NotImplementedError

    def denormalize(self, y: mx.array, x: mx.array | None = None) -> mx.array:
        """(…, d_out) → (…, d_out).

        Args:
            y: What the decoder gave.
            x: The input before it was normalised; needed if `per_token`.

        Raises:
            InputError: if `x` is needed and missing.
        """
        raise NotImplementedError

    def denormalize_change(self, change: mx.array, x: mx.array | None = None) -> mx.array:
        """How much `denormalize` of y changes where y changes by this: (…, d_out) → (…, d_out).

        Zeros stay zeros, to the bit.

        Raises:
            InputError: if `x` is needed and missing.
        """
        raise NotImplementedError

    def check(self, d_in: int, d_out: int) -> None:
        """See that it fits a dictionary.

        Raises:
            InputError: if it does not.
        """

    def _input(self, x: mx.array | None) -> mx.array:
        if x is None:
            raise InputError(
                f"normalization {self.kind!r} scales each token by itself: pass the input as well, "
                "dictionary.decode(features, x)."
            )
        return x


@dataclass(frozen=True, eq=False)
class NoNormalization(Normalization):
    """Activations as they are; also where a scale is folded into the weights."""

    kind: ClassVar[str] = "none"

    def normalize(self, x: mx.array) -> mx.array:
        return x

    def denormalize(self, y: mx.array, x: mx.array | None = None) -> mx.array:
        return y

    def denormalize_change(self, change: mx.array, x: mx.array | None = None) -> mx.array:
        return change


@dataclass(frozen=True, eq=False)
class Scale(Normalization):
    """One constant: inputs are multiplied by it, outputs divided.

    Attributes:
        factor: For the input.
        output_factor: For the output, where it differs (transcoders).
    """

    kind: ClassVar[str] = "scale"

    factor: float
    output_factor: float | None = None

    def __post_init__(self) -> None:
        for name in ("factor", "output_factor"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} is a positive number; got {value}.")

    def normalize(self, x: mx.array) -> mx.array:
        return x * self.factor

    def denormalize(self, y: mx.array, x: mx.array | None = None) -> mx.array:
        return y / (self.factor if self.output_factor is None else self.output_factor)

    def denormalize_change(self, change: mx.array, x: mx.array | None = None) -> mx.array:
        return self.denormalize(change)


@dataclass(frozen=True, eq=False)
class TokenNorm(Normalization):
    """Each token is scaled to norm √d (SAELens' ``constant_norm_rescale``)."""

    kind: ClassVar[str] = "token_norm"
    per_token: ClassVar[bool] = True

    def normalize(self, x: mx.array) -> mx.array:
        return x * _token_factor(x)

    def denormalize(self, y: mx.array, x: mx.array | None = None) -> mx.array:
        return y / _token_factor(self._input(x))

    def denormalize_change(self, change: mx.array, x: mx.array | None = None) -> mx.array:
        return self.denormalize(change, x)


@dataclass(frozen=True, eq=False)
class LayerNorm(Normalization):
    """Each token less its mean, divided by (standard deviation + epsilon).

    The standard deviation divides by d − 1, as torch does by default and SAELens with it.
    """

    kind: ClassVar[str] = "layer_norm"
    per_token: ClassVar[bool] = True

    epsilon: float = 1e-5

    def normalize(self, x: mx.array) -> mx.array:
        mean, deviation = _moments(x)
        return (x - mean) / (deviation + self.epsilon)

    def denormalize(self, y: mx.array, x: mx.array | None = None) -> mx.array:
        mean, deviation = _moments(self._input(x))
        return y * deviation + mean

    def denormalize_change(self, change: mx.array, x: mx.array | None = None) -> mx.array:
        _, deviation = _moments(self._input(x))
        return change * deviation

    def check(self, d_in: int, d_out: int) -> None:
        if d_in < 2:
            raise InputError(f"a layer norm needs at least 2 dimensions; got d_in={d_in}.")


@dataclass(frozen=True, eq=False)
class Standardize(Normalization):
    """Each dimension less its mean, divided by its standard deviation over the data.

    Attributes:
        mean: (d_in,).
        std: (d_in,), positive.
        output_mean: (d_out,) of the outputs, where they are other activations (transcoders).
        output_std: (d_out,).
    """

    kind: ClassVar[str] = "standardize"

    mean: mx.array
    std: mx.array
    output_mean: mx.array | None = None
    output_std: mx.array | None = None

    def normalize(self, x: mx.array) -> mx.array:
        return (x - self.mean) / self.std

    def denormalize(self, y: mx.array, x: mx.array | None = None) -> mx.array:
        mean = self.mean if self.output_mean is None else self.output_mean
        std = self.std if self.output_std is None else self.output_std
        return y * std + mean

    def denormalize_change(self, change: mx.array, x: mx.array | None = None) -> mx.array:
        return change * (self.std if self.output_std is None else self.output_std)

    def check(self, d_in: int, d_out: int) -> None:
        check_shape("mean", self.mean, (d_in,), f"d_in is {d_in}")
        check_shape("std", self.std, (d_in,), f"d_in is {d_in}")
        for name, own in (("output_mean", self.mean), ("output_std", self.std)):
            given = getattr(self, name)
            check_shape(name, own if given is None else given, (d_out,), f"d_out is {d_out}")


def _token_factor(x: mx.array) -> mx.array:
    return math.sqrt(x.shape[-1]) / mx.linalg.norm(x, axis=-1, keepdims=True)


def _moments(x: mx.array) -> tuple[mx.array, mx.array]:
    mean = mx.mean(x, axis=-1, keepdims=True)
    return mean, mx.std(x - mean, axis=-1, keepdims=True, ddof=1)
