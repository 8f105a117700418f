"""The prompts whose features are ablated, each with what stands in for its features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mlxray import InterpretableModel
from mlxray.errors import InputError
from mlxray.tokens import Batch

from ...datasets.pairs import AlignedPairs, PairSet
from ...datasets.prompts import pair
from ...patching.measure import MetricLike
from ...prompts import warn_past_context


@dataclass(frozen=True)
class Prompt:
    """A prompt.

    Attributes:
        batch: The prompt.
        other: The prompt of equal length whose features stand in; None for zeros.
        options: The metric's keywords.
    """

    batch: Batch
    other: Batch | None
    options: Mapping[str, Any] | None


def prompts_of(
    model: InterpretableModel,
    text: Any,
    corrupted: Any,
    metric: MetricLike,
    metric_kwargs: Mapping[str, Any] | None,
) -> list[Prompt]:
    """One prompt for each text.

    Args:
        model: The model.
        text: A prompt, a list of prompts, or pairs.
        corrupted: None, or as many prompts.
        metric, metric_kwargs: The metric, and keywords for all prompts.

    Raises:
        InputError: if texts and corrupted prompts do not pair.
    """
    if isinstance(text, (PairSet, AlignedPairs)):
        if corrupted is not None:
            raise InputError("the pairs hold their corrupted prompts: leave corrupted out.")
        aligned = text.aligned(model) if isinstance(text, PairSet) else text
        return [
            Prompt(
                *pair(model, each.clean, each.corrupted),
                {**each.keywords_for(metric), **(metric_kwargs or {})},
            )
            for each in aligned
        ]
    rows = model.tokens.batch(text).rows()
    if corrupted is None:
        batches = [model.tokens.batch([row]) for row in rows]
        for batch in batches:
            warn_past_context(model, batch.lengths[0])
        return [Prompt(batch, None, metric_kwargs) for batch in batches]
    others = model.tokens.batch(corrupted).rows()
    if len(rows) != len(others):
        raise InputError(
            f"{len(rows)} texts and {len(others)} corrupted prompts: give as many of each."
        )
    pairs = zip(rows, others, strict=True)
    return [Prompt(*pair(model, one, other), metric_kwargs) for one, other in pairs]
