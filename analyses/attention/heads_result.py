"""Scores of attention heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, overload

import mlx.core as mx

from mlxray.arrays import nested
from mlxray.display import counted
from mlxray.results.base import AnalysisResult


@dataclass(frozen=True, order=True)
class HeadScore:
    """How strongly one head shows a behaviour; 1 is the most."""

    layer: int
    head: int
    score: float

    def __str__(self) -> str:
        return f"L{self.layer}H{self.head} {self.score:.2f}"


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

    def heads(self, name: str) -> list[HeadScore]:
        """Every head's score of that name, best first; equal ones by layer and head.

        Raises:
            KeyError: if there is no score of that name.
        """
        if name not in self.scores:
            raise KeyError(f"no score {name!r}; there are {', '.join(self.scores)}")
        found = [
            HeadScore(layer, head, score)
            for layer, row in zip(self.layers, nested(self.scores[name]), strict=True)
            for head, score in enumerate(row)
        ]
        return sorted(found, key=lambda h: (-h.score, h.layer, h.head))

    def top(self, name: str, k: int = 5) -> list[HeadScore]:
        """The k heads that score highest, best first."""
        return self.heads(name)[:k]

    def summary(self) -> str:
        best = [f"{name} {self.top(name, 1)[0]}" for name in self.scores]
        return "strongest heads: " + ", ".join(best)

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        table = [[name, h.layer, h.head, h.score] for name in self.scores for h in self.top(name)]
        return ["behaviour", "layer", "head", "score"], table


@dataclass
class HeadTypesResult(HeadScoresResult, Mapping[str, list[tuple[int, int]]]):
    """Which heads show which behaviour: ``result[type]`` lists (layer, head), strongest first.

    Attributes:
        threshold: A head is of a type if its score is above it.
    """

    result_type: ClassVar[str] = "head_types"

    threshold: float

    def __getitem__(self, name: str) -> list[tuple[int, int]]:
        return [(h.layer, h.head) for h in self.heads(name) if h.score > self.threshold]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def data(self) -> dict[str, Any]:
        """The result's fields, and the heads of each type."""
        return {**super().data, "types": dict(self)}

    def summary(self) -> str:
        counts = ", ".join(f"{len(heads)} {name}" for name, heads in self.items())
        return f"heads that score above {self.threshold}: {counts}"

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        table = [
            [name, h.layer, h.head, h.score]
            for name in self.scores
            for h in self.heads(name)
            if h.score > self.threshold
        ]
        return ["type", "layer", "head", "score"], table


@dataclass
class DetectedHeadsResult(HeadScoresResult, Sequence[HeadScore]):
    """The heads that show one behaviour, as a list of `HeadScore`, best first.

    Attributes:
        behaviour: Name of the score that decides.
        threshold: A head is listed if its score is above it.
    """

    result_type: ClassVar[str] = "detected_heads"

    behaviour: str
    threshold: float

    @property
    def detected(self) -> list[HeadScore]:
        """The heads above the threshold, best first."""
        return [h for h in self.heads(self.behaviour) if h.score > self.threshold]

    @overload
    def __getitem__(self, index: int) -> HeadScore: ...

    @overload
    def __getitem__(self, index: slice) -> list[HeadScore]: ...

    def __getitem__(self, index: int | slice) -> HeadScore | list[HeadScore]:
        return self.detected[index]

    def __len__(self) -> int:
        return len(self.detected)

    @property
    def data(self) -> dict[str, Any]:
        """The result's fields, and the heads detected."""
        return {**super().data, "detected": self.detected}

    def summary(self) -> str:
        found = ", ".join(map(str, self.detected[:5])) or "none"
        return (
            f"{counted(len(self), self.behaviour.replace('_', ' ') + ' head')} above "
            f"{self.threshold}: {found}"
        )

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        return ["layer", "head", "score"], [[h.layer, h.head, h.score] for h in self.detected]
