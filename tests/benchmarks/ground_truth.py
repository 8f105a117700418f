"""How well each method of circuit discovery ranks the planted edges: area under the ROC curve.

Run ``python tests/benchmarks/ground_truth.py``.
"""

from __future__ import annotations

import mlxray  # noqa: F401  (first, so that MLX finds a fast BLAS)

import mlx.core as mx  # isort: skip
import numpy as np
from rich.console import Console
from rich.table import Table

from mlxray import InterpretableModel
from mlxray.analyses import acdc, edge_attribution_patching
from mlxray.analyses.circuits.circuit import bench, edge_weights
from mlxray.testing.planted import PLANTED, Planted


def area(scores: dict[tuple[str, str], float], true: frozenset[tuple[str, str]]) -> float:
    """Chance that a true edge scores above a false one (ties count half)."""
    hits = np.array([abs(scores[e]) for e in scores if e in true])[:, None]
    others = np.array([abs(scores[e]) for e in scores if e not in true])[None]
    return float(np.mean((hits > others) + 0.5 * (hits == others)))


def estimated(planted: Planted, steps: int) -> dict[tuple[str, str], float]:
    model = InterpretableModel(planted.model)
    found = edge_attribution_patching(
        model, planted.clean, planted.corrupted, steps=steps, **metric(planted)
    )
    return {(s, r): score for s, r, score in found.scores}


def exact(planted: Planted) -> dict[tuple[str, str], float]:
    ground = bench(
        InterpretableModel(planted.model), planted.clean, planted.corrupted, **metric(planted)
    )
    whole = ground.graph.mask()
    found = {}
    for edge in ground.graph.edges:
        value = ground.values([whole - edge_weights(ground.graph, [edge])])[0]
        found[edge] = ground.clean_value - value.item()
    return found


def searched(planted: Planted) -> dict[tuple[str, str], float]:
    """The largest threshold at which ACDC keeps the edge."""
    model = InterpretableModel(planted.model)
    found: dict[tuple[str, str], float] = {}
    for threshold in (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1):
        kept = acdc(model, planted.clean, planted.corrupted, threshold, **metric(planted))
        found |= {(s, r): threshold for s, r, _ in kept.edges}
    return {edge: found.get(edge, 0.0) for edge in planted.candidates}


def metric(planted: Planted) -> dict[str, object]:
    tokens = {"correct_token": planted.correct, "incorrect_token": planted.incorrect}
    return {"metric": "logit_diff", "metric_kwargs": tokens}


METHODS = {
    "exact edge patching": exact,
    "EAP": lambda p: estimated(p, 1),
    "EAP-IG (5)": lambda p: estimated(p, 5),
    "ACDC": searched,
}


def main() -> None:
    table = Table("planted model", "edges", *METHODS, title="ROC AUC on planted circuits")
    for name, make in PLANTED.items():
        planted = make()
        cells = [f"{area(method(planted), planted.edges):.3f}" for method in METHODS.values()]
        table.add_row(name, f"{len(planted.edges)} of {len(planted.candidates)}", *cells)
    Console().print(table)
    Console().print(f"device: {mx.default_device()}")


if __name__ == "__main__":
    main()
