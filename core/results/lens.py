"""What a lens found: the tokens that each layer would predict at each position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .base import AnalysisResult

Prediction = tuple[int, float, str]


@dataclass
class LensResult(AnalysisResult, Mapping[int, list[list[Prediction]]]):
    """Predictions by layer and position; ``result[layer][i]`` lists (token id, logit, text).

    Attributes:
        tokens: Every token of the prompt, as text.
        positions: The positions looked at, as indices into `tokens`; ``result[layer][i]``
            belongs to ``positions[i]``.
        layers: The layers looked at.
        predictions: layer → position → the top predictions, best first.
        probabilities: The same shape, with each prediction's probability.
        point: The point that was read.
    """

    result_type: ClassVar[str] = "lens"

    tokens: list[str]
    positions: list[int]
    layers: list[int]
    predictions: dict[int, list[list[Prediction]]]
    probabilities: dict[int, list[list[float]]]
    point: str = "resid_post"

    def __getitem__(self, layer: int) -> list[list[Prediction]]:
        return self.predictions[layer]

    def __iter__(self) -> Iterator[int]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def summary(self) -> str:
        last = self.layers[-1]
        token, probability = self.predictions[last][-1][0][2], self.probabilities[last][-1][0]
        position = self.positions[-1]
        settled = last
        for layer in reversed(self.layers):
            if self.predictions[layer][-1][0][2] != token:
                break
            settled = layer
        return (
            f"after {self.tokens[position]!r} layer {last} predicts {token!r} "
            f"({probability:.0%}), on top since layer {settled}"
        )

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        table = []
        for layer in self.layers:
            for i, position in enumerate(self.positions):
                best = self.predictions[layer][i][0]
                chance = self.probabilities[layer][i][0]
                table.append([layer, position, self.tokens[position], best[2], chance])
        return ["layer", "position", "token", "prediction", "probability"], table
