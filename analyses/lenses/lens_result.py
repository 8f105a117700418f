"""What a lens found: the tokens that each layer would predict at each position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlxray.results.base import AnalysisResult

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
    plain_fields: ClassVar[frozenset[str]] = frozenset({"predictions", "probabilities"})

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
        last, position = self.layers[-1], self.positions[-1]
        token, _, text = self.predictions[last][-1][0]
        probability = self.probabilities[last][-1][0]
        settled = last
        for layer in reversed(self.layers):
            if self.predictions[layer][-1][0][0] != token:
                break
            settled = layer
        return (
            f"after {self.tokens[position]!r} layer {last} predicts {text!r} "
            f"({probability:.0%}), on top since layer {settled}"
        )

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        ranked = any(len(cell) > 1 for cell in self.predictions[self.layers[0]])
        table: list[list[Any]] = []
        for layer in self.layers:
            cells = zip(
                self.positions, self.predictions[layer], self.probabilities[layer], strict=True
            )
            for position, predictions, probabilities in cells:
                place = [layer, position, self.tokens[position]]
                for rank, ((_, _, text), probability) in enumerate(
                    zip(predictions, probabilities, strict=True), 1
                ):
                    table.append([*place, *([rank] if ranked else []), text, probability])
        rank_column = ["rank"] if ranked else []
        return ["layer", "position", "token", *rank_column, "prediction", "probability"], table
