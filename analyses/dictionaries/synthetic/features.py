"""Features that are known: drawn, sent through their trees, and written into activations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlxray.arrays import evaluate
from mlxray.checks.arguments import count

from ..training.batches import check_point
from . import trees
from .config import SyntheticConfig
from .directions import apart, unit_rows

#: The one point of synthetic data.
POINT = "synthetic"
#: Rows that are drawn at once.
ROWS = 1024
#: A feature's own part of its cause is at least this, so that causes explain no more than 99 %.
_LEAST_OWN = 0.01

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Sample:
    """Activations and the features in them.

    Attributes:
        activations: (n, D) float32.
        rows, features: (m,) a row and a feature that fires in it, by row.
        strengths: (m,) positive.
    """

    activations: mx.array
    rows: trees.Ints
    features: trees.Ints
    strengths: Floats

    @property
    def l0(self) -> float:
        """Features that fire per row, mean."""
        return len(self.rows) / self.activations.shape[0]


class SyntheticFeatures:
    """Features with known directions, as training data that never ends.

    Rows are made when they are asked for, each batch from a seed of its own.

    Args:
        config: How they fire, and where they point.

    Attributes:
        config: As given.
        directions: (F, D) float32, norm 1.
        bias: (D,) float32.
        probabilities: (F,) with which features should fire.
        drawn: (F,) with which they are drawn, before trees and exclusion.
        means, deviations: (F,) of their strength.

    Example:
        >>> known = SyntheticFeatures(SyntheticConfig().scaled(64))
        >>> known.sample(100).activations.shape
        (100, 12)
    """

    def __init__(self, config: SyntheticConfig) -> None:
        self.config = config
        rng = np.random.default_rng(config.seed)
        shape = (config.n_features, config.width)
        start = mx.array(rng.standard_normal(shape, np.float32))
        bias = mx.array(rng.standard_normal(config.width, np.float32))
        self.directions = apart(start, config.orthogonal_steps, config.orthogonal_rate)
        self.bias = config.bias * unit_rows(bias)
        evaluate(self.bias)
        mean, spread = config.deviation
        self.deviations: Floats = np.abs(
            mean + spread * rng.standard_normal(config.n_features, np.float32)
        )
        self.means: Floats = np.linspace(*config.strengths, config.n_features, dtype=np.float32)
        self.trees = trees.make_trees(config)
        self.probabilities = zipf(config)
        self.drawn = self.probabilities
        if config.compensate:
            self.drawn = self.trees.corrected(self.probabilities)
        causes = (config.n_features, config.correlation_rank)
        self._causes: Floats = np.float32(config.correlation_scale) * rng.standard_normal(
            causes, np.float32
        )
        explained = np.square(self._causes).sum(axis=1)
        too_much = explained > 1 - _LEAST_OWN
        self._causes[too_much] *= np.sqrt((1 - _LEAST_OWN) / explained[too_much])[:, None]
        own = np.sqrt(1 - np.square(self._causes).sum(axis=1))
        # A feature fires if causes and its own part, normal with variance 1 together, exceed this.
        known = mx.array((1 - 2 * self.drawn).astype(np.float32))
        limit = np.sqrt(2) * np.array(mx.erfinv(mx.clip(known, -1 + 1e-7, 1 - 1e-7)))
        self._limit, self._own = mx.array(limit.astype(np.float32)), mx.array(own)
        evaluate(self._limit, self._own)

    def sample(self, rows: int, seed: int | Sequence[int] = 0) -> Sample:
        """Draw rows.

        Args:
            rows: How many.
            seed: The same seed draws the same rows.
        """
        rows = count(rows, "rows")
        seeds = [seed] if isinstance(seed, int) else list(seed)
        parts = [
            self._draw(min(ROWS, rows - start), start, np.random.default_rng([*seeds, start]))
            for start in range(0, rows, ROWS)
        ]
        row, feature, strength = (np.concatenate(p) for p in zip(*parts, strict=True))
        return Sample(self.activations(row, feature, strength, rows), row, feature, strength)

    def activations(
        self, row: trees.Ints, feature: trees.Ints, strength: Floats, rows: int
    ) -> mx.array:
        """(rows, D): what features of these strengths add up to, with the bias."""
        parts = []
        for start in range(0, rows, ROWS):
            low, high = np.searchsorted(row, [start, start + ROWS])
            dense = np.zeros((min(ROWS, rows - start), self.config.n_features), np.float32)
            dense[row[low:high] - start, feature[low:high]] = strength[low:high]
            parts.append(mx.array(dense) @ self.directions + self.bias)
            evaluate(parts[-1])
        made = mx.concatenate(parts)
        evaluate(made)
        return made

    def _draw(
        self, rows: int, first: int, rng: np.random.Generator
    ) -> tuple[trees.Ints, trees.Ints, Floats]:
        """Rows from `first` on: which features fire in which row, and how strongly."""
        common = mx.array(rng.standard_normal((rows, self.config.correlation_rank), np.float32))
        # Given the common causes features are independent, with this probability to fire.
        excess = (common @ mx.array(self._causes).T - self._limit) / self._own
        probability = np.array(0.5 + 0.5 * mx.erf(excess / np.sqrt(2)))
        row, feature = np.nonzero(rng.random(probability.shape, np.float32) < probability)
        noise = rng.standard_normal(len(row), np.float32)
        strength = np.maximum(self.means[feature] + self.deviations[feature] * noise, 0)
        scale = self.means if self.config.scale_by_parent else None
        strength = trees.apply(self.trees, row, feature, strength, scale, rng)
        on = strength > 0
        return row[on] + first, feature[on], strength[on]


class SyntheticData:
    """Rows of `SyntheticFeatures` as training data; none is read twice, and none is stored.

    Args:
        known: The features.
        tokens: Rows in an epoch.
        seed: Of the rows.

    Example:
        >>> known = SyntheticFeatures(SyntheticConfig().scaled(64))
        >>> train_dictionary(SyntheticData(known, 100_000), 64, k=4, batch_size=1000)
    """

    def __init__(self, known: SyntheticFeatures, tokens: int, seed: int = 0) -> None:
        self.known, self.tokens = known, count(tokens, "tokens")
        self.seed = count(seed, "seed", least=0)
        self.widths: Mapping[str, int] = {POINT: known.config.width}

    def steps(self, batch_size: int) -> int:
        """Whole batches in one epoch."""
        return self.tokens // batch_size

    def batches(
        self,
        batch_size: int,
        points: Sequence[str] | None = None,
        *,
        seed: int = 0,
        epochs: int = 1,
        start: int = 0,
    ) -> Iterator[Mapping[str, mx.array]]:
        """Batches: address → (batch_size, D), beginning at batch `start`.

        Raises:
            AddressError: if another point is asked for.
        """
        for point in points or ():
            check_point(point, self.widths)
        for step in range(start, epochs * self.steps(batch_size)):
            sample = self.known.sample(batch_size, (self.seed, seed, step))
            yield {POINT: sample.activations}


def zipf(config: SyntheticConfig) -> npt.NDArray[np.float64]:
    """(F,) probabilities that fall by a power law from the highest to the lowest."""
    law = np.arange(1, config.n_features + 1, dtype=np.float64) ** -config.exponent
    if len(law) == 1:
        return np.array([config.highest])
    share: npt.NDArray[np.float64] = (law - law[-1]) / (law[0] - law[-1])
    return config.lowest + (config.highest - config.lowest) * share
