"""Attention patterns of one prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx

from mlxray.arrays import nested
from mlxray.display import counted
from mlxray.results.base import AnalysisResult


@dataclass
class AttentionResult(AnalysisResult, Mapping[int, mx.array]):
    """Attention probabilities by layer; ``result[layer]`` is (H, S, S), rows sum to 1.

    Attributes:
        tokens: The prompt's tokens, as text.
        patterns: layer → (H, S, S) float32: query position × key position.
    """

    result_type: ClassVar[str] = "attention"

    tokens: list[str]
    patterns: dict[int, mx.array]

    def __getitem__(self, layer: int) -> mx.array:
        return self.patterns[layer]

    def __iter__(self) -> Iterator[int]:
        return iter(self.patterns)

    def __len__(self) -> int:
        return len(self.patterns)

    def summary(self) -> str:
        heads = sum(p.shape[0] for p in self.patterns.values())
        where = counted(len(self.patterns), "layer"), counted(len(self.tokens), "token")
        return f"{counted(heads, 'head')} in {where[0]} over {where[1]}"

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        table = []
        for layer, pattern in self.patterns.items():
            keys = nested(mx.argmax(pattern, axis=-1))
            weights = nested(mx.max(pattern, axis=-1))
            for head, (key, weight) in enumerate(zip(keys, weights, strict=True)):
                table.append([layer, head, self.tokens[-1], self.tokens[key[-1]], weight[-1]])
        return ["layer", "head", "last token", "looks most at", "weight"], table
