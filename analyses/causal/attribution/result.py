"""What attribution patching estimated, and how far the estimate was checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx

from mlxray.arrays import nested
from mlxray.results.base import AnalysisResult


@dataclass(frozen=True)
class Certificate:
    """Estimates against exact patching.

    Attributes:
        cells: (layer, head or None, position or None) of each checked cell.
        estimated, exact: Effects, in the order of `cells`.
        top: How many of the first cells were the largest estimates; the others were drawn.
        correlation: Pearson's r over all checked cells; None where it is not defined.
        sign_agreement: Share of cells whose signs agree, of those with an exact effect that is
            more than rounding; None if there are none.
        largest_missed: Largest exact effect among the drawn cells, in absolute value.
    """

    cells: list[tuple[int, int | None, int | None]]
    estimated: list[float]
    exact: list[float]
    top: int
    correlation: float | None
    sign_agreement: float | None
    largest_missed: float | None


@dataclass
class AttributionResult(AnalysisResult):
    """Estimated effects of patching clean activations into the corrupted run.

    Attributes:
        attribution_scores: (layers,), or (layers, heads) for a point with heads: the metric's
            estimated change when the whole activation is patched.
        by_position: The same split over token positions, (…, S); their sum is the score.
        layers: Layers looked at; rows of the scores.
        component: The point.
        method: How the estimate was made.
        metric_name: The metric.
        certificate: The check against exact patching, if asked for.
    """

    result_type: ClassVar[str] = "attribution"

    attribution_scores: mx.array
    by_position: mx.array
    layers: list[int]
    component: str
    method: str
    metric_name: str
    certificate: Certificate | None = None

    def top_components(self, k: int = 5) -> list[tuple[Any, float]]:
        """The k largest scores in absolute value: (layer, …) or ((layer, head), …)."""
        flat = nested(self.attribution_scores.reshape(-1))
        names: list[Any] = list(self.layers)
        if self.attribution_scores.ndim == 2:
            heads = range(self.attribution_scores.shape[1])
            names = [(layer, head) for layer in self.layers for head in heads]
        return sorted(zip(names, flat, strict=True), key=lambda pair: -abs(pair[1]))[:k]

    def summary(self) -> str:
        """The strongest component, and the certificate if there is one."""
        name, score = self.top_components(1)[0]
        text = f"{self.method} of {self.component}: strongest {name} ({score:+.3g})"
        if self.certificate and self.certificate.correlation is not None:
            text += f", r = {self.certificate.correlation:.2f} with exact patching"
        return text

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        pairs = self.top_components(self.attribution_scores.size)
        return ["component", "score"], [[str(name), score] for name, score in pairs]


@dataclass
class AttributionMapResult(AnalysisResult, Mapping[str, AttributionResult]):
    """Several points estimated in one backward pass: point → its attribution.

    Attributes:
        maps: As the mapping gives them.
        tokens: The corrupted prompt's tokens as text, or its ids without a tokenizer.
    """

    result_type: ClassVar[str] = "attribution_map"

    maps: dict[str, AttributionResult]
    tokens: list[str]

    def __getitem__(self, point: str) -> AttributionResult:
        return self.maps[point]

    def __iter__(self) -> Iterator[str]:
        return iter(self.maps)

    def __len__(self) -> int:
        return len(self.maps)

    def summary(self) -> str:
        """The strongest component of each point."""
        return "; ".join(result.summary() for result in self.maps.values())

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        table = [
            [point, str(name), score]
            for point, result in self.maps.items()
            for name, score in result.top_components(5)
        ]
        return ["point", "component", "score"], table
