"""Learning a subspace: Adam on the free parameters of an orthonormal basis."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np

from mlxray.arrays import evaluate, number
from mlxray.errors import AnalysisError

from ..examples.labels import Floats
from .orthonormal import free_gradient, orthonormal, random_basis
from .runs import Interchanges

_BETAS, _EPSILON = (0.9, 0.999), 1e-8


@dataclass(frozen=True)
class Settings:
    """How a subspace is learnt.

    Attributes:
        rank: Its directions.
        steps: Steps of Adam.
        batch_size: Counterfactuals of one step.
        learning_rate: At the first step; it falls linearly to zero.
        seed: Of the first basis and of the order of examples.
    """

    rank: int
    steps: int
    batch_size: int
    learning_rate: float
    seed: int


def learn(
    runs: Interchanges,
    features: int,
    which: Sequence[int],
    settings: Settings,
    where: str,
    after_step: Callable[[], object],
) -> tuple[Floats, list[float]]:
    """A basis (F, k) whose interchange makes the counterfactual answers likely.

    Args:
        runs: The runs.
        features: F.
        which: Examples to learn from.
        settings: How.
        where: For messages.
        after_step: Called after each step.

    Returns:
        The basis, and the loss of each step in nats.

    Raises:
        AnalysisError: if a loss or a gradient is not finite; nothing is returned of it.
    """
    free = random_basis(features, settings.rank, settings.seed)
    moments = np.zeros((2, *free.shape))
    order = _batches(which, settings)
    losses: list[float] = []
    for step in range(settings.steps):
        basis = orthonormal(free)
        batch = next(order)

        def loss(columns: mx.array, batch: list[int] = batch) -> mx.array:
            return runs.loss(columns, batch)

        value, gradient = mx.value_and_grad(loss)(mx.array(basis.astype(np.float32)))
        evaluate(value, gradient)
        losses.append(number(value))
        slope = free_gradient(free, basis, np.array(gradient, dtype=np.float64))
        if not math.isfinite(losses[-1]):
            raise AnalysisError(
                f"the loss at {where} is {losses[-1]} at step {step}: the model's own numbers are "
                "not finite there. Look at its activations, or load it in another precision."
            )
        if not np.isfinite(slope).all():
            raise AnalysisError(
                f"the gradient at {where} is not finite at step {step}, although the loss is "
                f"{losses[-1]:.3g}: load the model in float32 or bfloat16."
            )
        free = free - _adam(moments, slope, step) * settings.learning_rate * (
            1 - step / settings.steps
        )
        after_step()
    return orthonormal(free), losses


def _adam(moments: Floats, slope: Floats, step: int) -> Floats:
    """The direction of a step (Kingma & Ba 2015); `moments` (2, …) are updated in place."""
    first, second = _BETAS
    moments[0] = first * moments[0] + (1 - first) * slope
    moments[1] = second * moments[1] + (1 - second) * slope**2
    mean = moments[0] / (1 - first ** (step + 1))
    square = moments[1] / (1 - second ** (step + 1))
    found: Floats = mean / (np.sqrt(square) + _EPSILON)
    return found


def _batches(which: Sequence[int], settings: Settings) -> Iterator[list[int]]:
    """Batches without end: every example once before any comes again, as far as they fill one."""
    random = np.random.default_rng(settings.seed)
    size = min(settings.batch_size, len(which))
    while True:
        order = random.permutation(np.array(which)).tolist()
        for start in range(0, len(order) - size + 1, size):
            yield order[start : start + size]
