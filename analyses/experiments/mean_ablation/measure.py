"""What an ablated run is scored by."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.arrays import nested, number
from mlxray.errors import AnalysisError, InputError

from ...metrics.common import compared, picked
from ...patching.measure import Measure, bind
from .settings import Settings


def bound_measure(model: InterpretableModel, settings: Settings, logits: mx.array) -> Measure:
    """What a cell is scored by: the metric of the settings, else the probability.

    Args:
        model, settings: What is ablated, and how.
        logits: (P, V) with nothing ablated, at the positions that the metric gets.

    Raises:
        InputError: for a metric that needs a corrupted run, or keywords that it does not have.
    """
    if settings.metric is None:
        return bind(model, probability, logits, logits)
    try:
        return bind(model, settings.metric, logits, logits, settings.metric_kwargs)
    except (InputError, AnalysisError) as error:
        if "NaN" not in str(error) and not isinstance(error, AnalysisError):
            raise  # its keywords are at fault
        raise InputError(
            f"{error} An ablation has no corrupted run, so a metric gets the unablated logits in "
            "its place: one that divides by their difference cannot be used; kl_divergence, "
            "cross_entropy_diff, prob_diff or a function of your own can."
        ) from error


def probability(
    patched: mx.array, clean: mx.array, corrupted: mx.array, *, per_example: bool = False
) -> mx.array | float:
    """Probability of the token that is likeliest with nothing ablated, (B,) or its mean."""
    rows, base = compared(patched, clean)
    found = picked(mx.softmax(rows, axis=-1), mx.argmax(base, axis=-1))
    return found if per_example else number(mx.mean(found))


def check_logits(logits: mx.array, places: Sequence[str]) -> None:
    """Refuse rows (N, V) that are no distribution; minus infinity for some tokens is allowed."""
    totals: list[bool] = nested(mx.isfinite(mx.logsumexp(logits.astype(mx.float32), axis=-1)))
    for place, fine in zip(places, totals, strict=True):
        if not fine:
            raise AnalysisError(f"the model's logits {place} are not finite numbers.")
