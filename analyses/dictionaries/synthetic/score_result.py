"""How well a dictionary finds known features: the report of `score_dictionary`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx

from mlxray.results.base import AnalysisResult


@dataclass(eq=False)
class SyntheticScore(AnalysisResult):
    """A dictionary against features that are known.

    A learned feature is a detector of the known one whose direction is most like its own.

    Attributes:
        described: The dictionary in a line.
        rows_read: Rows that were counted.
        f1: Mean over learned features of 2 · precision · recall / (precision + recall).
        precision: Mean share of the rows that turn a feature on in which the known one fires.
        recall: Mean share of the rows in which the known feature fires that turn it on.
        mcc: Mean absolute cosine over the best one-to-one matching of learned and known directions.
        uniqueness: Known features that are most like a learned one, per learned feature.
        l0: Learned features on per row, mean.
        true_l0: Known features that fire per row, mean.
        explained_variance: As in `DictionaryReport`.
        dead: Share of learned features that no row turned on.
        likeness: (F,) of each learned feature, the absolute cosine with the known one.
        matched: (F,) the number of that known feature.
        f1_of_each: (F,) the F1 of each learned feature.
        frequencies: (F,) how often its known feature fires.
    """

    result_type: ClassVar[str] = "synthetic_score"

    described: str
    rows_read: int
    f1: float
    precision: float
    recall: float
    mcc: float
    uniqueness: float
    l0: float
    true_l0: float
    explained_variance: float
    dead: float
    likeness: mx.array
    matched: mx.array
    f1_of_each: mx.array
    frequencies: mx.array

    def summary(self) -> str:
        """One line for people."""
        return self.warned(
            f"{self.described}: F1 {self.f1:.3f}, MCC {self.mcc:.3f}, explained variance "
            f"{self.explained_variance:.3f}, {self.l0:.1f} features per row of {self.true_l0:.1f} "
            f"that fire, {self.dead:.1%} dead, over {self.rows_read} rows"
        )

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """Name and value of every number."""
        names = [n for n, v in self.data.items() if isinstance(v, (int, float))]
        return ["measure", "value"], [[name, self.data[name]] for name in names]
