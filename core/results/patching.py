"""What patching found: how much of the clean behaviour each component brings back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx

from ..arrays import number
from .base import AnalysisResult


@dataclass
class PatchingResult(AnalysisResult, Mapping[int, float]):
    """Effects by layer, or by layer and head.

    As a mapping it gives layer → recovery in percent (the largest over heads where there are).

    Attributes:
        effect_matrix: (layers,) or (layers, heads): the metric, 1 = the clean behaviour is back.
        layers: The layers tested; rows of the matrix.
        component: What was patched.
        metric_name: The metric's name.
    """

    result_type: ClassVar[str] = "patching"

    effect_matrix: mx.array
    layers: list[int]
    component: str
    metric_name: str

    def _row(self, layer: int) -> mx.array:
        if layer not in self.layers:
            raise KeyError(layer)
        return self.effect_matrix[self.layers.index(layer)]

    def __getitem__(self, layer: int) -> float:
        return 100.0 * number(mx.max(self._row(layer)))

    def __iter__(self) -> Iterator[int]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def top_components(self, k: int = 5) -> list[Any]:
        """The k largest effects, best first: (layer, effect), or ((layer, head), effect)."""
        flat: Any = self.effect_matrix.reshape(-1).tolist()
        heads = self.effect_matrix.shape[1] if self.effect_matrix.ndim == 2 else 0
        names: list[Any] = list(self.layers)
        if heads:
            names = [(layer, head) for layer in self.layers for head in range(heads)]
        return sorted(zip(names, flat, strict=True), key=lambda pair: -pair[1])[:k]

    def summary(self) -> str:
        name, effect = self.top_components(1)[0]
        return f"patching {self.component}: {name} recovers most ({effect:.0%}, {self.metric_name})"

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        return ["component", "effect"], [[str(n), e] for n, e in self.top_components(10**9)]
