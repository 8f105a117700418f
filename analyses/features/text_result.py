"""Which features a text turns on: the result of `get_top_features_for_text`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, overload

from mlxray.display import counted, show_token
from mlxray.results.base import AnalysisResult


@dataclass
class TopFeaturesResult(AnalysisResult, Sequence[tuple[int, float]]):
    """The most active features of a text: a list of (feature, activation).

    Attributes:
        place: Where the dictionary reads.
        features: (feature, its largest value in the text), largest first.
        positions: The token at which each has that value.
        tokens: The text's tokens, as text.
        activations: For each of the features its value on each token.
        active: Number of features that are active anywhere in the text.
    """

    result_type: ClassVar[str] = "top_features"

    place: str
    features: list[tuple[int, float]]
    positions: list[int]
    tokens: list[str]
    activations: list[list[float]]
    active: int

    @overload
    def __getitem__(self, index: int) -> tuple[int, float]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[int, float]]: ...

    def __getitem__(self, index: Any) -> Any:
        return self.features[index]

    def __len__(self) -> int:
        return len(self.features)

    def summary(self) -> str:
        """The most active feature, and on which token."""
        head = f"{self.place}: {counted(self.active, 'active feature')}"
        if self.features:
            feature, value = self.features[0]
            token = show_token(self.tokens[self.positions[0]], 24)
            head += f", most f{feature} ({value:.3g} on “{token}”)"
        return self.warned(head)

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        table = [
            [feature, value, position, show_token(self.tokens[position], 24)]
            for (feature, value), position in zip(self.features, self.positions, strict=True)
        ]
        return ["feature", "activation", "position", "token"], table
