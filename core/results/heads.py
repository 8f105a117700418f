"""Scores of attention heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx

from .base import AnalysisResult


@dataclass(frozen=True, order=True)
class HeadScore:
    """How strongly one head shows a behaviour, 0 to 1."""

    layer: int
    head: int
    score: float


@dataclass
class HeadScoresResult(AnalysisResult):
    """One or more scores for every head.

    Attributes:
        layers: The layers looked at; rows of each matrix.
        scores: name → (layers, heads).
        tokens: The prompt's tokens as text, where one prompt was used.
    """

    result_type: ClassVar[str] = "head_scores"

    layers: list[int]
    scores: dict[str, mx.array]
    tokens: list[str]

    def top(self, name: str, k: int = 5) -> list[HeadScore]:
        """The k heads that score highest, best first."""
        matrix: Any = self.scores[name].tolist()
        heads = [
            HeadScore(self.layers[row], head, float(score))
            for row, scores in enumerate(matrix)
            for head, score in enumerate(scores)
        ]
        return sorted(heads, key=lambda h: -h.score)[:k]

    def summary(self) -> str:
        best = {name: self.top(name, 1)[0] for name in self.scores}
        parts = [f"{name} L{h.layer}H{h.head} {h.score:.2f}" for name, h in best.items()]
        return "strongest heads: " + ", ".join(parts)

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        table = [[name, h.layer, h.head, h.score] for name in self.scores for h in self.top(name)]
        return ["behaviour", "layer", "head", "score"], table
