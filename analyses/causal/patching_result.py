"""What patching found: how much of the clean behaviour each place recovers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx

from mlxray.arrays import nested, number
from mlxray.results.base import AnalysisResult

#: What the axes behind the layers are, for each way to split a layer.
AXES = {
    "layer": (),
    "position": ("position",),
    "head": ("head",),
    "neuron": ("neuron",),
    "feature": ("feature",),
    "head_position": ("head", "position"),
}


@dataclass
class PatchingResult(AnalysisResult, Mapping[int, float]):
    """Effects by layer, and by what else was varied.

    As a mapping it gives layer → recovery in percent: the layer's own, or the largest of its
    places where heads, positions or neurons were patched one at a time.

    Attributes:
        effect_matrix: (layers, …): the metric with the place patched. Over several pairs a
            metric that is a share, or any with ``normalize="pair"``, is given as a share: the
            mean change over the mean gap, or the mean of the pairs' own shares.
        layers: The layers tested; rows of the matrix.
        component: What was patched.
        metric_name: The metric, as it was asked for.
        clean_score, corrupted_score: The same of the two runs (means over pairs).
        by: What the further axes are: a key of `AXES`.
        interval: (2, layers, …): lower and upper end of the 95 % bootstrap interval over
            pairs, each drawn with its own gap; None for one pair.
        pairs: How many pairs of prompts.
        columns: What the last axis counts, where only some were tried: positions, or numbers of
            features; None if that is all of them, from 0.
        tokens: (clean, corrupted) tokens as text at each position, where positions of one pair
            were patched; None otherwise, or if the prompts differ in length.
    """

    result_type: ClassVar[str] = "patching"

    effect_matrix: mx.array
    layers: list[int]
    component: str
    metric_name: str
    clean_score: float = 1.0
    corrupted_score: float = 0.0
    by: str = "layer"
    interval: mx.array | None = None
    pairs: int = 1
    columns: list[int] | None = None
    tokens: list[tuple[str, str]] | None = None

    @property
    def recovery(self) -> mx.array:
        """Effects on a scale from 0 (corrupted) to 1 (clean), shaped like `effect_matrix`."""
        return self.shares(self.effect_matrix)

    def shares(self, effects: mx.array) -> mx.array:
        """Values of the metric on that scale."""
        return (effects - self.corrupted_score) / (self.clean_score - self.corrupted_score)

    def __getitem__(self, layer: int) -> float:
        if layer not in self.layers:
            raise KeyError(layer)
        return 100.0 * number(mx.max(self.recovery[self.layers.index(layer)]))

    def __iter__(self) -> Iterator[int]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def top_components(self, k: int = 5) -> list[Any]:
        """The k largest effects, best first: (layer, effect), or ((layer, head), effect), …"""
        pairs = zip(self._places(), nested(self.effect_matrix.reshape(-1)), strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])[:k]

    def _places(self) -> list[Any]:
        sizes = self.effect_matrix.shape[1:]
        if not sizes:
            return list(self.layers)
        axes: list[Any] = [range(size) for size in sizes]
        if self.columns is not None:
            axes[-1] = self.columns
        return list(itertools.product(self.layers, *axes))

    def summary(self) -> str:
        """The place that recovers most."""
        place, effect = self.top_components(1)[0]
        share = (effect - self.corrupted_score) / (self.clean_score - self.corrupted_score)
        over = f", mean of {self.pairs} pairs" if self.pairs > 1 else ""
        return self.warned(
            f"patching {self.component}: {self._name(place)} recovers the most "
            f"({share:.0%} by {self.metric_name}{over})"
        )

    def _name(self, place: Any) -> str:
        if self.by == "head":
            return "L{}H{}".format(*place)
        if self.by == "layer":
            return f"layer {place}"
        names = ("layer", *AXES[self.by])
        return ", ".join(f"{name} {at}" for name, at in zip(names, place, strict=True))

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """Places by effect, largest first; over pairs, with the effect's 95 % interval."""
        numbers = [self.recovery, *(self.interval if self.interval is not None else ())]
        columns = zip(*(nested(each.reshape(-1)) for each in numbers), strict=True)
        further = dict(zip(self._places(), columns, strict=True))
        table = [
            [*(place if isinstance(place, tuple) else (place,)), effect, *further[place]]
            for place, effect in self.top_components(self.effect_matrix.size)
        ]
        ends = [] if self.interval is None else ["low", "high"]
        return ["layer", *AXES[self.by], "effect", "recovery", *ends], table
