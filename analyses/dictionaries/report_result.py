"""What a dictionary does to a model: the report of `evaluate_dictionary`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx

from mlxray.results.base import AnalysisResult


@dataclass(eq=False)
class DictionaryReport(AnalysisResult):
    """How well a dictionary stands in for the activations that it reconstructs.

    Attributes:
        described: The dictionary in a line.
        tokens: Tokens that were counted.
        l0: Active features per token, mean.
        explained_variance: 1 − Σ‖y − ŷ‖² / Σ‖y − ȳ‖²; both sums go over all tokens and
            dimensions, and ȳ is the mean over tokens of each dimension. So dimensions count by
            their variance, and a constant prediction has 0.
        loss_clean: Cross-entropy of the model's next-token predictions, nats per token.
        loss_spliced: The same, with the reconstruction in place of the activations.
        loss_zero: The same, with zeros there.
        loss_mean: The same, with the mean over tokens there.
        loss_recovered: (loss_zero − loss_spliced) / (loss_zero − loss_clean): 1 is as good as the
            model's own activations, 0 as bad as zeros. None if zeros do no harm.
        loss_recovered_from_mean: The same, against the mean.
        dead: Share of features that no token turned on. It falls with more tokens.
        frequencies: (F,), share of tokens that turn each feature on; features of all layers, one
            layer after the other, where there are several.
    """

    result_type: ClassVar[str] = "dictionary_report"

    described: str
    tokens: int
    l0: float
    explained_variance: float
    loss_clean: float
    loss_spliced: float
    loss_zero: float
    loss_mean: float
    loss_recovered: float | None
    loss_recovered_from_mean: float | None
    dead: float
    frequencies: mx.array

    def summary(self) -> str:
        """One line for people."""
        recovered = "unknown" if self.loss_recovered is None else f"{self.loss_recovered:.1%}"
        return self.warned(
            f"{self.described}: loss recovered {recovered}, explained variance "
            f"{self.explained_variance:.4f}, {self.l0:.1f} features per token, {self.dead:.1%} "
            f"dead, over {self.tokens} tokens"
        )

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """Name and value of every number."""
        names = [n for n in self.data if n not in ("described", "frequencies")]
        return ["measure", "value"], [[name, self.data[name]] for name in names]
