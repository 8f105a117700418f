"""Activation functions of sparse dictionaries: from pre-activations to features.

Each is a small frozen object that is called with pre-activations (…, F) and returns features
(…, F). Thresholds are kept and compared in float32, since a half-precision threshold moves in
steps larger than training wants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import mlx.core as mx

from mlxray.checks.arguments import count
from mlxray.errors import InputError
from mlxray.top_k import top_k

from .shapes import check_floats, check_shape
from .sparse import scatter_features


@dataclass(frozen=True, eq=False)
class Activation:
    """Base of all activation functions.

    Attributes:
        kind: The name of the function.
    """

    kind: ClassVar[str]

    def __call__(self, pre: mx.array) -> mx.array:
        """Features (…, F) of pre-activations (…, F), in their dtype."""
        raise NotImplementedError

    def check(self, n_features: int) -> None:
        """See that the function fits a dictionary of `n_features` features.

        Raises:
            InputError: if it does not.
        """


@dataclass(frozen=True, eq=False)
class ReLU(Activation):
    """max(pre, 0)."""

    kind: ClassVar[str] = "relu"

    def __call__(self, pre: mx.array) -> mx.array:
        return mx.maximum(pre, 0)


@dataclass(frozen=True, eq=False)
class JumpReLU(Activation):
    """pre where pre > threshold (and positive), else 0 (Rajamanoharan et al. 2024b).

    Attributes:
        threshold: (F,), kept as float32.
    """

    kind: ClassVar[str] = "jumprelu"

    threshold: mx.array

    def __post_init__(self) -> None:
        check_floats("threshold", self.threshold, 1)
        object.__setattr__(self, "threshold", self.threshold.astype(mx.float32))

    def __call__(self, pre: mx.array) -> mx.array:
        return _above(pre, self.threshold)

    def check(self, n_features: int) -> None:
        check_shape("threshold", self.threshold, (n_features,), "it has one number per feature")


@dataclass(frozen=True, eq=False)
class BatchTopK(Activation):
    """What top-k over a batch learns, applied to each token alone: pre where pre > threshold.

    Bussmann et al. 2024. In training the k · N largest of a batch of N tokens are kept; the mean
    of the smallest one kept is the threshold.

    Attributes:
        k: Features per token, on average over the training batches.
        threshold: One number for all features.
    """

    kind: ClassVar[str] = "batch_topk"

    k: int
    threshold: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", count(self.k, "k"))
        object.__setattr__(self, "threshold", float(self.threshold))

    def __call__(self, pre: mx.array) -> mx.array:
        return _above(pre, mx.array(self.threshold, mx.float32))

    def check(self, n_features: int) -> None:
        _check_k(self.k, n_features)


@dataclass(frozen=True, eq=False)
class SparseActivation(Activation):
    """Base of those that keep exactly k features of each token.

    Attributes:
        k: How many.
    """

    k: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", count(self.k, "k"))

    def sparse(self, pre: mx.array) -> tuple[mx.array, mx.array]:
        """Values (…, k) and indices (…, k) of the features that are kept."""
        raise NotImplementedError

    def __call__(self, pre: mx.array) -> mx.array:
        values, indices = self.sparse(pre)
        return scatter_features(values, indices, pre.shape[-1])

    def check(self, n_features: int) -> None:
        _check_k(self.k, n_features)


@dataclass(frozen=True, eq=False)
class TopK(SparseActivation):
    """The k largest pre-activations, negative ones among them set to 0 (Gao et al. 2024)."""

    kind: ClassVar[str] = "topk"

    def sparse(self, pre: mx.array) -> tuple[mx.array, mx.array]:
        indices, values = top_k(pre, self.k)
        return mx.maximum(values, 0), indices


@dataclass(frozen=True, eq=False)
class AbsTopK(SparseActivation):
    """The k pre-activations of largest magnitude, with their signs."""

    kind: ClassVar[str] = "abstopk"

    def sparse(self, pre: mx.array) -> tuple[mx.array, mx.array]:
        indices, _ = top_k(mx.abs(pre), self.k)
        return mx.take_along_axis(pre, indices, axis=-1), indices


@dataclass(frozen=True, eq=False)
class Gated(Activation):
    """One path decides which features are on, another how much (Rajamanoharan et al. 2024a).

    With pre-activations z (no bias added yet): features are
    ``relu(z * exp(log_magnitude) + magnitude_bias)`` where ``z + gate_bias > 0``, else 0.

    Attributes:
        gate_bias: (F,), often called b_gate.
        magnitude_bias: (F,), often called b_mag.
        log_magnitude: (F,), often called r_mag.
    """

    kind: ClassVar[str] = "gated"

    gate_bias: mx.array
    magnitude_bias: mx.array
    log_magnitude: mx.array

    def __call__(self, pre: mx.array) -> mx.array:
        magnitude = mx.maximum(pre * mx.exp(self.log_magnitude) + self.magnitude_bias, 0)
        return mx.where(pre + self.gate_bias > 0, magnitude, 0).astype(pre.dtype)

    def check(self, n_features: int) -> None:
        for name in ("gate_bias", "magnitude_bias", "log_magnitude"):
            reason = "it has one number per feature"
            check_shape(name, getattr(self, name), (n_features,), reason)


def _above(pre: mx.array, threshold: mx.array) -> mx.array:
    keep = (pre.astype(mx.float32) > threshold) & (pre > 0)
    return mx.where(keep, pre, mx.zeros_like(pre))


def _check_k(k: int, n_features: int) -> None:
    if k > n_features:
        raise InputError(
            f"k={k}, but the dictionary has {n_features} features: choose a smaller k."
        )
