"""Circuits of the embedded model: how small, how faithful, and how far attribution is right.

Run ``python tests/benchmarks/pocket_circuits.py [PAIRS]``. For each task: the smallest circuit
that EAP-IG's ranking finds at 85 % faithfulness, on the mean over pairs, and the correlation of
attribution with exact patching for each kind of component, over cells (layer, head, position) of
several pairs.
"""

from __future__ import annotations

import statistics
import sys

from rich.console import Console
from rich.table import Table

from mlxray import InterpretableModel
from mlxray.analyses.datasets.generators import agreement, capitals, greater_than, induction, ioi
from mlxray.analyses.datasets.pairs import PairSet
from mlxray.arrays import nested

PAIRS = 30
#: Finely enough that the smallest circuit is hardly missed.
SIZES = (*range(4, 41), 45, 50, 60, 80, 100, 150, 200)
#: Kinds of component, and their points.
KINDS = {"resid": "resid_post", "attn": "attn_out", "mlp": "mlp_out", "heads": "z"}
METHODS = ("gradient", "integrated_gradients")
#: Pairs, and cells of each pair and kind, that are patched exactly.
CHECKED, TOP, DRAWN = 5, 20, 20


def tasks(pairs: int) -> dict[str, PairSet]:
    """Held-out pairs of each task."""
    return {
        "induction (value)": induction(pairs, corruption="value"),
        "induction (query)": induction(pairs, corruption="query"),
        "induction (key)": induction(pairs, corruption="key"),
        "IOI": ioi(pairs),
        "capitals": capitals(pairs),
        "agreement": agreement(pairs),
        "greater-than": greater_than(pairs),
    }


def metric_of(pairs: PairSet) -> str:
    """Where several answers are right, their probability; else the difference of two logits."""
    return "prob_diff" if len(pairs[0].correct) > 1 else "logit_diff"


def circuit_row(model: InterpretableModel, pairs: PairSet) -> list[str]:
    """Edges, faithfulness with its interval, completeness with its interval."""
    curve = model.circuit_curve(pairs, sizes=SIZES, target=0.85, metric=metric_of(pairs))
    if curve.circuit is None:
        return ["none", "–", "–", "–", "–"]
    at = curve.sizes.index(len(curve.circuit.edges))
    row = [f"{len(curve.circuit.edges)} of {len(curve.scores)}"]
    for mean, interval in (
        (curve.faithfulness, curve.faithfulness_interval),
        (curve.completeness, curve.completeness_interval),
    ):
        row.append(percent(nested(mean)[at]))
        row.append("–" if interval is None else " – ".join(map(percent, nested(interval[:, at]))))
    return row


def percent(share: float) -> str:
    """Without the sign of a zero that rounding made."""
    return f"{round(share, 2) + 0.0:.0%}"


def correlations(model: InterpretableModel, pairs: PairSet, method: str) -> list[str]:
    """Median over pairs, and the least, of the certificate's r, for each kind of component."""
    cells, metric = [], metric_of(pairs)
    for point in KINDS.values():
        found = []
        for pair in pairs.aligned(model)[:CHECKED]:
            checked = model.attribution_patching(
                list(pair.clean),
                list(pair.corrupted),
                point,
                metric,
                metric_kwargs=pair.keywords_for(metric),
                method=method,
                verify_top=TOP,
                verify_random=DRAWN,
            ).certificate
            assert checked is not None
            if checked.correlation is not None:
                found.append(checked.correlation)
        cells.append(f"{statistics.median(found):.3f} ({min(found):.2f})" if found else "–")
    return cells


def tables(model: InterpretableModel, pairs: int) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, columns, rows) of both tables."""
    sets = tasks(pairs)
    circuits = [[name, *circuit_row(model, found)] for name, found in sets.items()]
    checks = [
        [name, method.replace("_", " "), *correlations(model, found, method)]
        for name, found in sets.items()
        for method in METHODS
    ]
    shares = ["faithfulness", "95 %", "completeness", "95 % "]
    return [
        (f"smallest circuit of at least 85 %, {pairs} pairs", ["task", "edges", *shares], circuits),
        (
            f"correlation of attribution with exact patching: median (least) of {CHECKED} pairs",
            ["task", "method", *KINDS],
            checks,
        ),
    ]


def main() -> None:
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    for title, columns, rows in tables(InterpretableModel("pocket"), pairs):
        table = Table(*columns, title=title)
        for row in rows:
            table.add_row(*row)
        Console().print(table)


if __name__ == "__main__":
    main()
