"""What training a dictionary returns: the dictionary and the course of its training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mlxray.results.base import AnalysisResult

from ..types.cross_layer import CrossLayerTranscoder
from ..types.crosscoder import Crosscoder
from ..types.dictionary import Dictionary


@dataclass(eq=False)
class TrainingResult(AnalysisResult):
    """A trained dictionary and its curves.

    Attributes:
        described: The dictionary in a line.
        steps: Steps of training.
        tokens: Tokens read, each as often as it came.
        recorded: The steps that the curves have numbers of, the first step being 1.
        curves: ``loss``, ``explained_variance`` (of the batch), ``l0`` (features per token),
            ``dead`` (share of features), a number for each recorded step.
    """

    result_type: ClassVar[str] = "dictionary_training"

    described: str
    steps: int
    tokens: int
    recorded: list[int]
    curves: dict[str, list[float]]
    # Not a field of the report: its arrays are millions of numbers.
    _dictionary: Dictionary | CrossLayerTranscoder | Crosscoder

    @property
    def dictionary(self) -> Dictionary | CrossLayerTranscoder | Crosscoder:
        """What was trained."""
        return self._dictionary

    @property
    def final(self) -> Mapping[str, float]:
        """The last number of each curve."""
        return {name: values[-1] for name, values in self.curves.items()}

    def summary(self) -> str:
        """One line for people."""
        last = self.final
        return self.warned(
            f"{self.described}: after {self.steps} steps ({self.tokens} tokens) explained variance "
            f"{last['explained_variance']:.4f}, {last['l0']:.1f} features per token, "
            f"{last['dead']:.1%} dead"
        )

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """At most 20 recorded steps, the last among them."""
        every = -(-len(self.recorded) // 20)
        chosen = list(range(len(self.recorded)))[::-1][::every][::-1]
        names = list(self.curves)
        return ["step", *names], [
            [self.recorded[i], *(self.curves[name][i] for name in names)] for i in chosen
        ]
