"""Statistics over eight pairs of a random GPT-2: mlxray beside a plain loop over the bare model.

The pairs' gaps between the clean and the corrupted prompt go from 0.036 to 13.5 logits. Run
``python tests/benchmarks/pair_sets.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import mlxray  # noqa: F401  (first, so that MLX finds a fast BLAS)

import numpy as np  # isort: skip
from rich.console import Console
from rich.table import Table

from mlxray import InterpretableModel
from mlxray.analyses.datasets.pairs import PairSet, PromptPair

sys.path.insert(0, str(Path(__file__).parents[1] / "analyses"))
import plain_gpt2 as plain


def correlation(found: dict[tuple[str, str], float], expected: np.ndarray) -> float:
    scores = np.array([found[edge] for edge in plain.edges()])
    return float(np.corrcoef(scores, expected)[0, 1])


def main() -> None:
    console = Console(width=100)
    network = plain.random_gpt2()
    gaps = [plain.gap(network, pair) for pair in plain.PAIRS]
    console.print("gaps in logits: " + ", ".join(f"{gap:.3g}" for gap in gaps))
    expected = np.mean([plain.edge_changes(network, pair) for pair in plain.PAIRS], axis=0)
    expected_mlp = sum(plain.first_mlp_change(network, pair) for pair in plain.PAIRS) / sum(gaps)
    size, share = plain.smallest_circuit(network, plain.PAIRS, expected)

    model = InterpretableModel(network)
    pairs = PairSet([PromptPair(tuple(p[0]), tuple(p[1]), p[2], p[3]) for p in plain.PAIRS])
    table = Table("", "plain loop", 'normalize="mean"', 'normalize="pair"')
    rows: dict[str, list[str]] = {
        "edge scores, correlation with the plain loop": ["1"],
        "effect of the first MLP": [f"{expected_mlp:+.3f}"],
        "its 95 % interval": [""],
        f"edges that reach {plain.TARGET:.0%}": [str(size)],
        "their faithfulness": [f"{share:.1%}"],
    }
    warnings = []
    for normalize in ("mean", "pair"):
        curve = model.circuit_curve(
            pairs, sizes=plain.SIZES, target=plain.TARGET, steps=1, normalize=normalize
        )
        patching = model.activation_patching(
            pairs, component="mlp", metric="logit_diff", layers=[0], normalize=normalize
        )
        low, high = (end[0].item() for end in patching.interval)
        circuit = curve.circuit
        found = [
            f"{correlation({(s, r): x for s, r, x in curve.scores}, expected):.3f}",
            f"{patching.effect_matrix[0].item():+.3f}",
            f"{low:+.2f} to {high:+.2f}",
            "none" if circuit is None else str(len(circuit.edges)),
            "" if circuit is None else f"{circuit.faithfulness:.1%}",
        ]
        for row, value in zip(rows.values(), found, strict=True):
            row.append(value)
        warnings += [f"normalize={normalize!r}: {warning}" for warning in curve.warnings]
    for name, row in rows.items():
        table.add_row(name, *row)
    console.print(table)
    for warning in warnings:
        console.print(warning)


if __name__ == "__main__":
    main()
