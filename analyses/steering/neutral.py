"""What steering costs: how much worse a model predicts text that has nothing to do with it."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from mlxray import InterpretableModel
from mlxray.arrays import nested
from mlxray.errors import AnalysisError, InputError
from mlxray.tokens import Batch

from .rows import SteeredRows

#: Plain stories in words that the embedded model knows; other models read them as well.
NEUTRAL = (
    "Once upon a time, there was a happy girl named Clara. She had a dog, and the dog was very "
    "big. Every morning she played with the dog in the garden. One day the dog ran away, and "
    "Clara cried. Tom found the dog near the river and brought it back to her.",
    "Tom was a clever boy. He lived in a small house near the park. One day, he went to the park "
    "and found a red ball. He took the ball home and put it in the kitchen. Then his friend Mary "
    "came to see the ball.",
    "There once lived a big boy named James, who had a black cat. One morning James wanted to go "
    "to the station with his friend Jane. It began to rain, so they went back into the house. "
    "They sat in the kitchen and told each other stories about a small cat.",
)

_LARGEST = math.log(sys.float_info.max)


def neutral_batch(model: InterpretableModel, texts: Any) -> Batch:
    """Neutral texts as tokens; the default set for None, as much of it as the context holds.

    Raises:
        InputError: if there is none, or one has a single token, which nothing predicts.
    """
    if texts is None and model.tokenizer is None:
        raise InputError(
            "the neutral texts that mlxray has are words, and this model has no tokenizer: give "
            "neutral=[…] as token ids."
        )
    if texts is not None and not len(texts):
        raise InputError("neutral is empty: leave it out for the default texts.")
    if texts is None:
        # A context shorter than the stories gets their beginnings.
        texts = [model.encode(text)[: model.tokens.context] for text in NEUTRAL]
    batch = model.tokens.batch(texts)
    if min(batch.lengths) < 2:
        short = batch.lengths.index(min(batch.lengths))
        raise InputError(f"neutral text {short} has one token: nothing in it is predicted.")
    return batch


class Neutral:
    """Neutral texts, and their perplexity with and without steering.

    Args:
        model: The model.
        batch: The texts.
        layers: The layers that will be steered.
        budget: Bytes that the logits of one pass may take.

    Attributes:
        base: Perplexity without steering, over all predicted tokens.

    Raises:
        AnalysisError: if the unsteered model does not give finite numbers.
    """

    def __init__(
        self, model: InterpretableModel, batch: Batch, layers: Sequence[int], budget: int
    ) -> None:
        predicted = batch.ids.shape[1] - 1
        self._rows = SteeredRows(model, batch, range(predicted), layers, budget)
        self._targets = batch.ids[:, 1:]
        # The last token and padding predict nothing.
        self._counts = mx.arange(predicted)[None] < mx.array(batch.lengths)[:, None] - 1
        self._tokens = sum(batch.lengths) - len(batch.lengths)
        nats = 0.0
        for rows, logits in self._rows.plain():
            nats += sum(self._nats(rows, logits))
        self.base = self._perplexity(nats)
        if not math.isfinite(self.base):
            raise AnalysisError("the unsteered perplexity of the neutral text is not finite.")

    def costs(self, address: str, layer: int, shifts: mx.array) -> list[float]:
        """Perplexity over that of the unsteered model, for each strength's shift (T, …)."""
        nats = [0.0] * shifts.shape[0]
        for pairs, logits in self._rows.steered(address, layer, shifts):
            lost = self._nats([row for _, row in pairs], logits)
            for (strength, _), value in zip(pairs, lost, strict=True):
                nats[strength] += value
        return [self._perplexity(value) / self.base for value in nats]

    def _nats(self, rows: Sequence[int], logits: mx.array) -> list[float]:
        """Summed negative log-probability of each row's tokens; logits are (n, S - 1, V)."""
        which = mx.array(list(rows))
        exact = logits.astype(mx.float32)
        chosen = mx.take_along_axis(exact, self._targets[which][..., None], axis=-1)[..., 0]
        lost = mx.logsumexp(exact, axis=-1) - chosen
        sums: list[float] = nested(mx.sum(mx.where(self._counts[which], lost, 0.0), axis=1))
        return sums

    def _perplexity(self, nats: float) -> float:
        """Infinite where it is past all numbers, NaN where the model's output was."""
        mean = nats / self._tokens
        return math.inf if mean > _LARGEST else math.exp(mean)
