"""How long a training will take and how much room its files need, before it begins."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.analyses.activations import estimate_harvest
from mlxray.analyses.activations.estimate import Estimate, size_text, time_text
from mlxray.analyses.activations.texts import Texts
from mlxray.arrays import arrays_of, evaluate
from mlxray.checks.arguments import count

from .train import make_plans
from .training.batches import Planned
from .training.config import DictionaryConfig
from .training.plan import Plan
from .training.run import Run

#: With fewer steps than this, timing some of them first is not worth it.
WORTH_TIMING = 60


@dataclass(frozen=True)
class TrainingEstimate:
    """What a training will take.

    Attributes:
        dictionaries: How many are trained.
        steps: Of each.
        tokens: Tokens read, each as often as it comes.
        bytes: Of the finished dictionaries in float32.
        checkpoint_bytes: Of a checkpoint: parameters and both moments.
        seconds: Of all steps, from some that were timed; None if there are only a few.
    """

    dictionaries: int
    steps: int
    tokens: int
    bytes: int
    checkpoint_bytes: int
    seconds: float | None

    def __str__(self) -> str:
        what = "1 dictionary" if self.dictionaries == 1 else f"{self.dictionaries} dictionaries"
        text = (
            f"{what}: {self.steps:,} steps over {self.tokens:,} tokens, {size_text(self.bytes)}, "
            f"and {size_text(self.checkpoint_bytes)} for the checkpoint"
        )
        return text if self.seconds is None else f"{text}, about {time_text(self.seconds)}"


def estimate_training(
    data: Planned,
    configs: Sequence[DictionaryConfig],
    *,
    batch_size: int = 4096,
    epochs: int = 1,
    steps: int | None = None,
) -> TrainingEstimate:
    """How long `train_dictionaries` would take with the same arguments, and the room it needs.

    Times two steps of each dictionary on random numbers; the data itself is not read.

    Args:
        data, configs, batch_size, epochs, steps: As in `train_dictionaries`.

    Raises:
        InputError: if training would take no step at all, or settings do not fit the data.
        AddressError: if the data lacks a point.
    """
    batch_size, epochs = count(batch_size, "batch_size"), count(epochs, "epochs")
    plans, total, _ = make_plans(data, configs, batch_size, epochs, steps)
    timed = total >= WORTH_TIMING
    tried = [_try(plan, batch_size if timed else 1, timed=timed) for plan in plans]
    numbers = sum(size for size, _ in tried)
    return TrainingEstimate(
        dictionaries=len(plans),
        steps=total,
        tokens=total * batch_size,
        bytes=4 * numbers,
        checkpoint_bytes=12 * numbers,
        seconds=total * sum(seconds for _, seconds in tried) if timed else None,
    )


def _try(plan: Plan, rows: int, *, timed: bool) -> tuple[int, float]:
    """Parameters of a dictionary, and seconds for a step."""
    keys = mx.random.split(mx.random.key(0), len(plan.widths))
    batch = {
        point: mx.random.normal((rows, width), key=key)
        for key, (point, width) in zip(keys, plan.widths.items(), strict=True)
    }
    evaluate(batch)
    run = Run(plan, batch)
    best = float("inf") if timed else 0.0
    for _ in range(2 * timed):
        started = time.perf_counter()
        run.advance(batch, record=False)
        best = min(best, time.perf_counter() - started)
    return sum(a.size for a in arrays_of(run.state["parameters"])), best


@dataclass(frozen=True)
class Expected:
    """What a harvest would give to train on.

    Attributes:
        harvest: Its estimate.
        widths: Address → D.
    """

    harvest: Estimate
    widths: Mapping[str, int]

    @classmethod
    def of(
        cls,
        model: InterpretableModel,
        texts: Texts,
        points: Sequence[str],
        settings: Mapping[str, Any],
    ) -> Expected:
        """Reads the texts and runs the model on one token.

        Args:
            model, texts, points: As in `harvest`.
            settings: Others of its arguments, by name.
        """
        found = estimate_harvest(model, texts, points, **settings)
        return cls(found, widths_of(model, points))

    @property
    def tokens(self) -> int:
        """Rows in all, at most."""
        return self.harvest.tokens

    def steps(self, batch_size: int) -> int:
        """Whole batches in one epoch."""
        return self.tokens // batch_size


def widths_of(model: InterpretableModel, points: Sequence[str]) -> dict[str, int]:
    """Address → D, from a run on one token.

    Raises:
        AddressError: if the model lacks a point.
    """
    cache = model.activations([0], list(points))
    return {point: int(cache[point].shape[-1]) for point in points}
