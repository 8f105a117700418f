"""The effect of one path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from mlxray.display import counted
from mlxray.results.base import AnalysisResult


@dataclass
class PathResult(AnalysisResult):
    """What the senders tell the receivers directly.

    Attributes:
        effect: The metric with the path patched: 1 = the clean behaviour is back (for metrics
            that are shares).
        senders, receivers: Names in the graph.
        n_frozen: Senders that kept their corrupted values.
        metric_name: The metric.
    """

    result_type: ClassVar[str] = "path_patching"

    effect: float
    senders: list[str]
    receivers: list[str]
    n_frozen: int
    metric_name: str

    def summary(self) -> str:
        frozen = counted(self.n_frozen, "sender")
        path = f"{', '.join(self.senders)} → {', '.join(self.receivers)}"
        return f"{path}: {self.effect:+.4f} ({self.metric_name}), {frozen} frozen"

    def rows(self) -> tuple[list[str], list[list[Any]]]:
        return ["sender", "receiver"], [[s, r] for s in self.senders for r in self.receivers]
