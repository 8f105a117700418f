"""What a sweep over layers and strengths of steering found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import mlx.core as mx

from mlxray.arrays import nested
from mlxray.results.base import AnalysisResult


class SteeringCell(NamedTuple):
    """One steered run of a sweep.

    Attributes:
        layer, strength: Where and how much.
        score: What was to become large; NaN where the model's output is not finite.
        cost: Perplexity on neutral text over that of the unsteered model.
        answer: The most probable next token of the first prompt.
    """

    layer: int
    strength: float
    score: float
    cost: float
    answer: str


@dataclass
class SteeringSweepResult(AnalysisResult):
    """Score and cost by layer and strength.

    Attributes:
        score: (layers, strengths): mean over the prompts; NaN where a strength is too much for
            the model to give numbers.
        cost: (layers, strengths): perplexity on neutral text, steered over unsteered.
        layers: Rows.
        strengths: Columns.
        point: Where the vector was added.
        score_name: What the score is.
        base_score: The score without steering.
        base_perplexity: Perplexity of the neutral text without steering.
        base_answer: The most probable next token of the first prompt, without steering.
        answers: The same by layer and strength.
        max_cost: Cells that cost more are not the best.
        norm_scaled: Whether a strength counts in mean norms of the activation.
    """

    result_type: ClassVar[str] = "steering_sweep"

    score: mx.array
    cost: mx.array
    layers: list[int]
    strengths: list[float]
    point: str
    score_name: str
    base_score: float
    base_perplexity: float
    base_answer: str
    answers: list[list[str]]
    max_cost: float
    norm_scaled: bool = True

    def cells(self) -> list[SteeringCell]:
        """Every cell, layer by layer."""
        scores, costs = nested(self.score), nested(self.cost)
        return [
            SteeringCell(
                layer, strength, scores[row][column], costs[row][column], self.answers[row][column]
            )
            for row, layer in enumerate(self.layers)
            for column, strength in enumerate(self.strengths)
        ]

    @property
    def best(self) -> SteeringCell | None:
        """The highest score within the limit of cost, the weakest of equals; None if none is."""
        allowed = [c for c in self.cells() if math.isfinite(c.score) and c.cost <= self.max_cost]
        return max(allowed, key=lambda cell: (cell.score, -abs(cell.strength)), default=None)

    @property
    def not_finite(self) -> list[SteeringCell]:
        """Cells whose strength was too much: the model gave NaN or infinity."""
        return [c for c in self.cells() if not (math.isfinite(c.score) and math.isfinite(c.cost))]

    def summary(self) -> str:
        """The best cell, and how many were too strong."""
        broken = self.not_finite
        after = ""
        if broken:
            first = f"layer {broken[0].layer}, strength {broken[0].strength:g}"
            share = f"{len(broken)} of {len(self.cells())} cells"
            after = f"; too strong for the model in {share} (first: {first})"
        best = self.best
        if best is None:
            return f"steering at {self.point}: no cell costs at most {self.max_cost:g}×{after}"
        return (
            f"steering at {self.point}: layer {best.layer}, strength {best.strength:g} takes "
            f"{self.score_name} from {self.base_score:.3g} to {best.score:.3g} at "
            f"{best.cost:.3f}× the perplexity (limit {self.max_cost:g}×){after}"
        )

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """Cells within the limit first, by score; those that are not finite last."""

        def order(cell: SteeringCell) -> tuple[bool, bool, float]:
            finite = math.isfinite(cell.score)
            return not finite, not cell.cost <= self.max_cost, -cell.score if finite else 0.0

        columns = ["layer", "strength", "score", "perplexity ×", "answer"]
        return columns, [list(cell) for cell in sorted(self.cells(), key=order)]
