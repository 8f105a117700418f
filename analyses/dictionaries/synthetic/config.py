"""What synthetic activations are made of: all settings, checked before anything is made."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from mlxray.checks.arguments import count, probability, real
from mlxray.errors import InputError


@dataclass(frozen=True, kw_only=True)
class SyntheticConfig:
    """How the features of synthetic activations fire, and where they point.

    The defaults are SynthSAEBench-16k (Chanin and Garriga-Alonso 2026, arXiv 2602.14687).

    Attributes:
        n_features: Features, F.
        width: Of the activations, D.
        highest, lowest: Probability that the first and the last feature fires.
        exponent: Of the power law (Zipf) in between.
        roots: Trees of features; 0 for none. A feature fires only if its parent does.
        branching: Children of each feature that has some.
        depth: Generations below a root.
        exclusive: Whether of the children of one parent at most one fires.
        compensate: Whether features are drawn more often by as much as trees and exclusion cost
            them, so that they fire about as often as without.
        scale_by_parent: Whether a child's strength is multiplied by that of its parent over the
            parent's mean.
        strengths: Mean strength of the first and the last feature, linear in between.
        deviation: (mean, standard deviation): each feature's standard deviation of its strength
            is the absolute value of a normal number with these.
        correlation_rank: Common causes of features; 0 makes them independent.
        correlation_scale: Size of a feature's share in each cause.
        orthogonal_steps: Steps of Adam that push directions apart.
        orthogonal_rate: Their learning rate.
        bias: Norm of the vector that is added to all activations.
        seed: Of everything that is drawn once: directions, deviations, causes, bias.

    Raises:
        InputError: if a setting is out of range.

    Example:
        >>> SyntheticConfig().n_features
        16384
        >>> SyntheticConfig().scaled(8).n_features
        2048
    """

    n_features: int = 16_384
    width: int = 768
    highest: float = 0.4
    lowest: float = 5e-4
    exponent: float = 0.5
    roots: int = 128
    branching: int = 4
    depth: int = 3
    exclusive: bool = True
    compensate: bool = True
    scale_by_parent: bool = True
    strengths: tuple[float, float] = (5.0, 4.0)
    deviation: tuple[float, float] = (0.5, 0.5)
    correlation_rank: int = 25
    correlation_scale: float = 0.1
    orthogonal_steps: int = 100
    orthogonal_rate: float = 3e-4
    bias: float = 0.5
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("n_features", "width"):
            self._set(name, count(getattr(self, name), name))
        for name in ("roots", "depth", "correlation_rank", "orthogonal_steps", "seed"):
            self._set(name, count(getattr(self, name), name, least=0))
        self._set("branching", count(self.branching, "branching", least=2))
        probability(self.highest, "highest")
        if not 0 < real(self.lowest, "lowest") < self.highest:
            raise InputError(f"lowest={self.lowest}: between 0 and highest ({self.highest}).")
        for name in ("exponent", "orthogonal_rate"):
            if real(getattr(self, name), name) <= 0:
                raise InputError(f"{name}={getattr(self, name)}: it is positive.")
        for name in ("bias", "correlation_scale"):
            real(getattr(self, name), name, least=0)
        for name in ("strengths", "deviation"):
            pair = getattr(self, name)
            if len(pair) != 2 or not all(0 <= real(value, name) < math.inf for value in pair):
                raise InputError(f"{name}={pair}: two numbers that are not negative.")
        if min(self.strengths) <= 0:
            raise InputError(f"strengths={self.strengths}: both are positive.")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def scaled(self, factor: int) -> SyntheticConfig:
        """The same with `factor` times fewer features, dimensions and trees.

        Probabilities stay as they are, so fewer features fire at once: about as many times fewer.

        Raises:
            InputError: if nothing would be left.
        """
        factor = count(factor, "factor", most=min(self.n_features, self.width))
        return dataclasses.replace(
            self,
            n_features=self.n_features // factor,
            width=self.width // factor,
            roots=self.roots and max(1, self.roots // factor),
        )

    def to_json(self) -> dict[str, Any]:
        """Settings as plain values."""
        return dataclasses.asdict(self)
