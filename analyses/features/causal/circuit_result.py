"""A circuit of features: the result of `feature_circuit`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from ...circuits.circuit_result import CircuitResult


@dataclass
class FeatureCircuitResult(CircuitResult):
    """Features that a behaviour needs, and what each passes on.

    A `CircuitResult` whose nodes are features, ``"L10.mlp.f42"``, and whose last receiver is
    ``"logits"``. Its `total_edges` are those that were tried.

    Attributes:
        effects: Node → by how much the metric falls when the feature is ablated, mean over texts.
        activations: Node → its value of largest magnitude in the texts.
        total: The effect of ablating all features of all dictionaries at once.
        completeness: (metric with the circuit's features ablated − with all ablated) / (untouched
            − with all ablated): 0 means that the circuit leaves nothing out. None if `total` is 0.
        metric_name: The metric, in whose unit effects and edges are.
        texts: How many texts.
        features_tested: Number of features that were tried.
    """

    result_type: ClassVar[str] = "feature_circuit"

    effects: dict[str, float] = field(default_factory=dict)
    activations: dict[str, float] = field(default_factory=dict)
    total: float = 0.0
    completeness: float | None = None
    metric_name: str = ""
    texts: int = 1
    features_tested: int = 0

    @property
    def nodes(self) -> list[str]:
        """The features, layer by layer, in each the largest effect first."""
        return list(self.effects)

    def to_graph(self) -> dict[str, list[dict[str, Any]]]:
        """Nodes, ``"logits"`` among them, and edges as plain dictionaries."""
        graph = super().to_graph()
        graph["nodes"] = [
            {"id": name, "effect": self.effects[name], "activation": self.activations[name]}
            for name in self.nodes
        ]
        graph["nodes"].append({"id": "logits"})
        return graph
