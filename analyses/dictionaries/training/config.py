"""What to train: all settings of one dictionary, checked before anything runs."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any

from mlxray.checks.arguments import count, real
from mlxray.errors import InputError, nearest

#: Kinds that keep a fixed number of features, per token or on average.
TOP_K_KINDS = ("topk", "batch_topk", "matryoshka")
KINDS = ("relu", "gated", "jumprelu", *TOP_K_KINDS)
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class DictionaryConfig:
    """How one dictionary is made.

    What it reads and writes decides what it is: one point makes an autoencoder, or a transcoder
    if `writes` names another; several points make a crosscoder, or a cross-layer transcoder if
    `writes` names as many. During training activations are scaled to mean squared norm 1, per
    point, which is what coefficients, thresholds and bandwidths refer to; the scales are folded
    into the finished dictionary.

    Attributes:
        kind: relu (with an L1 penalty), gated, jumprelu, topk, batch_topk, or matryoshka (a
            batch_topk whose first features reconstruct by themselves).
        n_features: Features; of a cross-layer transcoder, features of each layer.
        reads: Address or addresses; the only point of the data if left out.
        writes: Address or addresses of what is reconstructed; `reads` if left out.
        skip: Whether a linear map goes past the features (skip transcoder).
        k: Features per token of topk, batch_topk and matryoshka; in a cross-layer transcoder,
            per token and layer on average. The smaller of 32 and n_features if left out.
        sparsity: Coefficient of the L1 penalty (relu: 0.1, gated: 0.3 if left out) or of L0
            (jumprelu: 0.001, or 1 with a target).
        target_l0: For jumprelu: the penalty is then sparsity · (L0 / target_l0 − 1)², of each
            token.
        prefixes: For matryoshka: how many of the first features make each reconstruction, the
            last one all. F/16, F/8, F/4, F/2 and F if left out.
        learning_rate: Peak rate of AdamW; 2e-4 / √(n_features / 2¹⁴) if left out.
        weight_decay: Of AdamW, on the encoder.
        warmup: Steps in which the rate rises from 0; a tenth of all, at most 1000, if left out.
        decay: Part of all steps, at the end, in which the rate falls to 0.
        sparsity_warmup: Steps in which `sparsity` rises from 0; a fifth of all, at most 5000, if
            left out.
        auxiliary: Coefficient of the loss that teaches dead features the others' error.
        auxiliary_k: Dead features that take part for each token, the strongest of them where they
            are more; half the width written if left out.
        dead_after: Tokens without activity that make a feature dead; a tenth of all tokens that
            training reads, at most 10 million, if left out.
        norm: Activations are scaled to mean squared norm `norm`² instead, and everything that
            refers to 1 is translated, so that the loss stays what it was. Steps of Adam have the
            same size on any scale, so with a larger one biases and thresholds move less beside
            weights. Conerly et al. (2024) take the root of the width.
        clip: Largest norm of the whole gradient, on the scale of `norm`; a longer one is
            shortened to it. None if left out.
        bandwidth: Width of the kernel of jumprelu's straight-through gradients.
        initial_threshold: Of jumprelu.
        dtype: Of activations in matrix products, float32 or bfloat16. Parameters, thresholds and
            the optimizer stay float32.
        seed: Of the first parameters.

    Raises:
        InputError: if a setting is out of range or does not belong to the kind.
    """

    n_features: int
    kind: str = "topk"
    reads: str | tuple[str, ...] | None = None
    writes: str | tuple[str, ...] | None = None
    skip: bool = False
    k: int | None = None
    sparsity: float | None = None
    target_l0: float | None = None
    prefixes: tuple[int, ...] | None = None
    learning_rate: float | None = None
    weight_decay: float = 0.0
    warmup: int | None = None
    decay: float = 0.2
    sparsity_warmup: int | None = None
    auxiliary: float = 1 / 32
    auxiliary_k: int | None = None
    dead_after: int | None = None
    norm: float = 1.0
    clip: float | None = None
    bandwidth: float = 0.001
    initial_threshold: float = 0.001
    dtype: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, known in (("kind", KINDS), ("dtype", DTYPES)):
            value = getattr(self, name)
            if value not in known:
                raise InputError(f"{name}={value!r} is unknown. {nearest(str(value), known)}")
        self._set("n_features", count(self.n_features, "n_features"))
        self._set("seed", count(self.seed, "seed", least=0))
        self._check_k()
        self._check_sparsity()
        self._check_prefixes()
        for name in ("warmup", "sparsity_warmup"):
            if getattr(self, name) is not None:
                self._set(name, count(getattr(self, name), name, least=0))
        for name in ("auxiliary_k", "dead_after"):
            if getattr(self, name) is not None:
                self._set(name, count(getattr(self, name), name))
        for name in ("learning_rate", "norm", "clip", "bandwidth", "initial_threshold"):
            value = getattr(self, name)
            if value is not None and not 0 < real(value, name) < math.inf:
                raise InputError(f"{name}={value}: it is positive.")
        real(self.weight_decay, "weight_decay", least=0)
        real(self.auxiliary, "auxiliary", least=0)
        real(self.decay, "decay", least=0, most=1)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_k(self) -> None:
        if self.kind in TOP_K_KINDS:
            k = min(32, self.n_features) if self.k is None else count(self.k, "k")
            if k > self.n_features:
                raise InputError(
                    f"k={k}, but the dictionary has {self.n_features} features: choose a smaller k."
                )
            self._set("k", k)
        elif self.k is not None:
            raise InputError(
                f"k={self.k}: a {self.kind} dictionary has no k; set sparsity"
                + (", or target_l0." if self.kind == "jumprelu" else ".")
            )

    def _check_sparsity(self) -> None:
        if self.kind in TOP_K_KINDS:
            if self.sparsity is not None:
                raise InputError(f"sparsity: a {self.kind} dictionary has none; set k.")
        else:
            default = {"relu": 0.1, "gated": 0.3, "jumprelu": 0.001}[self.kind]
            if self.target_l0 is not None:
                default = 1.0
            given = default if self.sparsity is None else self.sparsity
            self._set("sparsity", real(given, "sparsity", least=0))
        if self.target_l0 is not None:
            if self.kind != "jumprelu":
                raise InputError(f"target_l0: a {self.kind} dictionary has none; jumprelu does.")
            if not 0 < real(self.target_l0, "target_l0") <= self.n_features:
                raise InputError(
                    f"target_l0={self.target_l0}: it lies between 0 and n_features "
                    f"({self.n_features})."
                )

    def _check_prefixes(self) -> None:
        if self.kind != "matryoshka":
            if self.prefixes is not None:
                raise InputError(f"prefixes: a {self.kind} dictionary has none; matryoshka does.")
            return
        given = self.prefixes
        if given is None:
            given = tuple(sorted({max(1, self.n_features >> shift) for shift in range(5)}))
        prefixes = tuple(count(p, "prefixes") for p in given)
        rising = all(a < b for a, b in itertools.pairwise(prefixes))
        if not prefixes or not rising or prefixes[-1] != self.n_features:
            raise InputError(
                f"prefixes={prefixes}: they rise and end with n_features ({self.n_features})."
            )
        self._set("prefixes", prefixes)

    def to_json(self) -> dict[str, Any]:
        """Settings as plain values."""
        plain = dataclasses.asdict(self)
        return {n: list(v) if isinstance(v, tuple) else v for n, v in plain.items()}
