"""Lenses on several points of a model, side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx

from mlxray.arrays import nested
from mlxray.results.base import AnalysisResult

from ...lenses.lens_result import LensResult


@dataclass(frozen=True)
class Reading:
    """What the model's tail reads at one point.

    Attributes:
        lens: The most likely tokens by layer and position.
        answer_probability: (layers, positions) of the answer of each position.
        answer_rank: (layers, positions), 1 where the answer is the most likely token.
        entropy: (layers, positions) of the distribution read, in nats.
        kl: (layers, positions) divergence of the distribution read from the model's own,
            KL(own ‖ read), in nats: 0 where both are the same.
    """

    lens: LensResult
    answer_probability: mx.array
    answer_rank: mx.array
    entropy: mx.array
    kl: mx.array

    @property
    def layers(self) -> list[int]:
        """The layers that have the point, rows of the arrays."""
        return self.lens.layers

    def settled(self, index: int = -1) -> int | None:
        """The layer from which on the answer of a position is on top to the end, if there is one.

        Args:
            index: Into the positions read.
        """
        found = None
        ranks: list[list[int]] = nested(self.answer_rank)
        for layer, row in zip(reversed(self.layers), reversed(ranks), strict=True):
            if row[index] != 1:
                break
            found = layer
        return found

    def strongest(self, index: int = -1) -> tuple[int, float]:
        """The layer that gives the answer of a position the most probability, and how much."""
        probabilities = [row[index] for row in nested(self.answer_probability)]
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        return self.layers[best], probabilities[best]


@dataclass
class LensComparisonResult(AnalysisResult, Mapping[str, Reading]):
    """What the model's tail reads at several points: ``result["mlp_add"]`` is a `Reading`.

    Attributes:
        tokens: Every token of the prompt, as text.
        positions: The positions read, as indices into `tokens`; columns of the arrays.
        answers: Token id whose probability and rank are told, for each position.
        answer_texts: The same as text.
        readings: Point → what is read there.
    """

    result_type: ClassVar[str] = "lens_comparison"

    tokens: list[str]
    positions: list[int]
    answers: list[int]
    answer_texts: list[str]
    readings: dict[str, Reading]

    def __getitem__(self, point: str) -> Reading:
        return self.readings[point]

    def __iter__(self) -> Iterator[str]:
        return iter(self.readings)

    def __len__(self) -> int:
        return len(self.readings)

    @property
    def layers(self) -> list[int]:
        """Every layer that was read at some point."""
        return sorted({layer for reading in self.values() for layer in reading.layers})

    def summary(self) -> str:
        parts = []
        for point, reading in self.items():
            layer, probability = reading.strongest()
            settled = reading.settled()
            if settled is not None and len(reading.layers) > 1:
                parts.append(f"{point} has it on top from layer {settled} on")
            else:
                parts.append(f"{point} gives it {probability:.0%} at best (layer {layer})")
        read, answer = self.tokens[self.positions[-1]], self.answer_texts[-1]
        return f"after {read!r}, {answer!r}: {'; '.join(parts)}"

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """A row for each layer and position: what each point predicts, P of the answer there."""
        columns = ["layer", "position", "token", "answer"]
        columns += [name for point in self for name in (point, "P")]
        probabilities = {point: nested(r.answer_probability) for point, r in self.items()}
        table: list[list[Any]] = []
        for layer in self.layers:
            for index, position in enumerate(self.positions):
                row = [layer, position, self.tokens[position], self.answer_texts[index]]
                for point, reading in self.items():
                    if layer in reading.layers:
                        probability = probabilities[point][reading.layers.index(layer)][index]
                        row += [reading.lens.predictions[layer][index][0][2], f"{probability:.1%}"]
                    else:
                        row += ["-", "-"]
                table.append(row)
        return columns, table
