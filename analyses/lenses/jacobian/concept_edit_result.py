"""What an edit in the lens' coordinates did to a prompt, beside what chance does."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar

from mlxray.results.base import AnalysisResult


@dataclass
class ConceptEditResult(AnalysisResult):
    """An edited run beside runs with random changes of the same size.

    A control adds, at each layer and position, a random direction that is as long as what the edit
    added there.

    Attributes:
        edit: ``"steer"`` or ``"swap"``.
        score_name: What the scores are, in nats.
        clean_score, edited_score: Of the run without and with the edit.
        control_scores: Of each control.
        watched: Tokens of interest, as text.
        clean_probabilities, edited_probabilities, control_probabilities: Theirs, in this order, at
            the last position; of the controls the mean.
        clean_answer, edited_answer: The most probable next token.
        layers: The layers that were edited.
        sizes: Layer → length of the change over that of the stream, mean over the positions.
        reach: Layer → share of the positions that changed.
    """

    result_type: ClassVar[str] = "concept_edit"

    edit: str
    score_name: str
    clean_score: float
    edited_score: float
    control_scores: list[float]
    watched: list[str]
    clean_probabilities: list[float]
    edited_probabilities: list[float]
    control_probabilities: list[float]
    clean_answer: str
    edited_answer: str
    layers: list[int]
    sizes: dict[int, float]
    reach: dict[int, float]

    @property
    def effect(self) -> float:
        """By how much the edit raised the score."""
        return self.edited_score - self.clean_score

    @property
    def control_effects(self) -> list[float]:
        """By how much each control raised it."""
        return [score - self.clean_score for score in self.control_scores]

    @property
    def as_large(self) -> int:
        """Controls whose effect is as large as the edit's, in either direction."""
        return sum(abs(effect) >= abs(self.effect) for effect in self.control_effects)

    def summary(self) -> str:
        controls = self.control_effects
        text = (
            f"{self.edit} at layers {', '.join(map(str, self.layers))}: {self.score_name} "
            f"{self.clean_score:.2f} → {self.edited_score:.2f} ({self.effect:+.2f}); random "
            f"directions of the same size {fmean(controls):+.2f} "
            f"({min(controls):+.2f} to {max(controls):+.2f}), {self.as_large} of "
            f"{len(controls)} as large; {self.clean_answer!r} → {self.edited_answer!r}"
        )
        return self.warned(text)

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        named = [f"p({token})" for token in self.watched]
        mean = fmean(self.control_effects)
        table: list[list[Any]] = [
            ["clean", self.clean_score, 0.0, *self.clean_probabilities],
            [self.edit, self.edited_score, self.effect, *self.edited_probabilities],
            ["random, mean", self.clean_score + mean, mean, *self.control_probabilities],
        ]
        return ["run", self.score_name, "effect", *named], table
