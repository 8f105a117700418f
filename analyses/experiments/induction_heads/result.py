"""Induction heads: their scores, and what repeated sequences lose without them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx

from mlxray.arrays import nested, number
from mlxray.display import counted

from ...attention.heads_result import HeadScore, HeadScoresResult

#: The score that says what an induction head is.
MATCHING = "prefix_matching"


@dataclass(frozen=True)
class HeadAblation:
    """Losses with heads switched off in one way.

    Attributes:
        top: (samples, S − 1) loss of each token but the first, without the induction heads.
        random: (draws, samples, S − 1), without as many other heads.
    """

    top: mx.array
    random: mx.array


@dataclass
class InductionResult(HeadScoresResult):
    """Scores of all heads on repeated random tokens, and the loss with and without the best.

    ``result.heads("prefix_matching")`` ranks all heads; `tokens` are the first sample's. Losses
    are in nats; entry i of a row is the loss of token i + 1, given those before it.

    Attributes:
        prompts: Token ids of each sample.
        threshold: A head is an induction head if its prefix-matching score is above it.
        start: Where the first copy begins: 1 behind a beginning-of-sequence token, or 0.
        period: Tokens of a copy.
        candidates: How many tokens the random ones were drawn from.
        losses: (samples, S − 1) of the model itself.
        ablated: The (layer, head) switched off, strongest first.
        draws: As many other heads, drawn at random, for each draw.
        ablations: How they were switched off → losses; empty if no head was.
    """

    result_type: ClassVar[str] = "induction_heads"

    prompts: list[list[int]]
    threshold: float
    start: int
    period: int
    candidates: int
    losses: mx.array
    ablated: list[tuple[int, int]]
    draws: list[list[tuple[int, int]]]
    ablations: Mapping[str, HeadAblation]

    @property
    def induction_heads(self) -> list[HeadScore]:
        """The heads above the threshold, best first."""
        return [h for h in self.heads(MATCHING) if h.score > self.threshold]

    @property
    def data(self) -> dict[str, Any]:
        """The result's fields, and the induction heads."""
        return {**super().data, "induction_heads": self.induction_heads}

    def first_loss(self, losses: mx.array) -> mx.array:
        """Mean loss of the first copy: tokens that cannot be predicted.

        Args:
            losses: (…, samples, S − 1).

        Returns:
            (…), the mean over samples and tokens.
        """
        return mx.mean(losses[..., max(self.start, 1) - 1 : self.start + self.period - 1], (-2, -1))

    def repeat_loss(self, losses: mx.array) -> mx.array:
        """Mean loss of the later copies but for the second copy's first token.

        That one is as random as those before it: what stands before it came only once.

        Args:
            losses: (…, samples, S − 1).

        Returns:
            (…), the mean over samples and tokens.
        """
        return mx.mean(losses[..., self.start + self.period :], (-2, -1))

    def effect(self, how: str) -> float:
        """How much the repeat loss rises without the induction heads, in nats.

        Raises:
            KeyError: if they were not switched off in that way.
        """
        return number(self.repeat_loss(self._ablation(how).top) - self.repeat_loss(self.losses))

    def random_effects(self, how: str) -> list[float]:
        """The same for each draw of other heads.

        Raises:
            KeyError: as in `effect`.
        """
        losses = self.repeat_loss(self._ablation(how).random)
        effects: list[float] = nested(losses - self.repeat_loss(self.losses))
        return effects

    def _ablation(self, how: str) -> HeadAblation:
        if how not in self.ablations:
            ways = ", ".join(self.ablations) or "none, since no head was switched off"
            raise KeyError(f"no ablation {how!r}; there are: {ways}")
        return self.ablations[how]

    def summary(self) -> str:
        found = self.induction_heads
        named = ", ".join(map(str, found[:6])) + (", …" if len(found) > 6 else "")
        text = f"{counted(len(found), 'induction head')} above {self.threshold}"
        text += f": {named}" if found else f" (the best: {self.heads(MATCHING)[0]})"
        text += f"; loss on repeats {number(self.repeat_loss(self.losses)):.2f} nats"
        if not self.ablations:
            return text
        how, ablation = next(iter(self.ablations.items()))
        count = len(self.ablated)
        best, others = (
            ("the best", "another") if count == 1 else (f"the {count} best", f"{count} others")
        )
        without = number(self.repeat_loss(ablation.top))
        random = number(mx.mean(self.repeat_loss(ablation.random)))
        return f"{text}, {without:.2f} without {best} ({how}), {random:.2f} without {others}"

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """A row for the model, and two for each way of switching heads off; losses in nats."""
        columns = ["switched off", "by", "first copy", "repeats", "from draw to draw"]
        table: list[list[Any]] = [["nothing", "", *self._means(self.losses), ""]]
        for how, ablation in self.ablations.items():
            named = " ".join(f"L{layer}H{head}" for layer, head in self.ablated)
            table.append([named, how, *self._means(ablation.top), ""])
            others = f"{counted(len(self.ablated), 'other')}, {counted(len(self.draws), 'draw')}"
            each = nested(self.repeat_loss(ablation.random))
            spread = f"{min(each):.4f} to {max(each):.4f}"
            table.append([others, how, *self._means(ablation.random), spread])
        return columns, table

    def _means(self, losses: mx.array) -> list[float]:
        return [number(mx.mean(part(losses))) for part in (self.first_loss, self.repeat_loss)]
