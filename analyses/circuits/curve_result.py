"""How faithful circuits of growing size are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import mlx.core as mx

from mlxray.arrays import nested
from mlxray.display import counted
from mlxray.results.base import AnalysisResult

from .circuit_result import CircuitResult, Edge


@dataclass
class CircuitCurveResult(AnalysisResult):
    """Faithfulness and completeness by size of the circuit, over pairs of prompts.

    Attributes:
        sizes: Edges of each circuit, dead ends dropped, ascending.
        faithfulness: (N,) mean over pairs: 1 where the circuit alone does what the model does.
        faithfulness_interval: (2, N) 95 % interval of the mean; None for one pair.
        completeness: (N,) mean share that is left *without* the circuit: 0 where nothing is.
        completeness_interval: The same for it.
        scores: Mean score of every edge, strongest first.
        target: The faithfulness asked for.
        circuit: The smallest circuit tried that reaches it on the mean, or None.
        pairs: How many pairs of prompts.
    """

    result_type: ClassVar[str] = "circuit_curve"

    sizes: list[int]
    faithfulness: mx.array
    faithfulness_interval: mx.array | None
    completeness: mx.array
    completeness_interval: mx.array | None
    scores: list[Edge]
    target: float
    circuit: CircuitResult | None
    pairs: int

    def summary(self) -> str:
        """The smallest circuit that is faithful enough."""
        if self.circuit is None:
            best = max(nested(self.faithfulness))
            return f"no circuit tried reaches faithfulness {self.target:.0%}; the best {best:.0%}"
        return (
            f"{len(self.circuit.edges)} of {counted(len(self.scores), 'edge')} reach faithfulness "
            f"{self.circuit.faithfulness:.0%} over {counted(self.pairs, 'pair')} "
            f"(asked for {self.target:.0%})"
        )

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        """One row for each size."""
        columns = ["edges", "faithfulness", "low", "high", "completeness", "low ", "high "]
        table = []
        parts = (
            (self.faithfulness, self.faithfulness_interval),
            (self.completeness, self.completeness_interval),
        )
        for at, size in enumerate(self.sizes):
            row: list[Any] = [size]
            for mean, interval in parts:
                value = nested(mean)[at]
                low, high = (value, value)
                if interval is not None:
                    low, high = nested(interval)[0][at], nested(interval)[1][at]
                row += [value, low, high]
            table.append(row)
        return columns, table
