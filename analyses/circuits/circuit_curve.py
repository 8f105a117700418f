"""Faithfulness and completeness of circuits of growing size, over many pairs of prompts."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from tqdm import tqdm

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.arrays import evaluate, nested
from mlxray.checks.arguments import count
from mlxray.errors import InputError

from ..datasets.alignment import AlignedPair, AlignedPairs
from ..datasets.pairs import PairSet
from ..patching.gaps import Normalize, check_gaps, check_normalize, gap_warnings
from ..patching.intervals import mean_and_interval
from ..patching.measure import MOST_STEPS
from .circuit import Bench, bench, edge_weights, names
from .circuit_result import CircuitResult, Edge, EdgeScoresResult
from .curve_result import CircuitCurveResult
from .edge_attribution import edge_scores
from .edges import sent

SIZES = (3, 5, 8, 12, 20, 30, 50, 80, 120, 200, 350)


@analysis(result=CircuitCurveResult)
def circuit_curve(
    model: InterpretableModel,
    pairs: PairSet | AlignedPairs,
    *,
    sizes: Sequence[int] = SIZES,
    target: float = 0.85,
    metric: str = "logit_diff",
    steps: int = 5,
    seed: int = 0,
    normalize: Normalize = "mean",
    verbose: bool = False,
) -> CircuitCurveResult:
    """Rank edges by EAP-IG over pairs, and try circuits of the strongest ones exactly.

    The score of an edge is its mean over the pairs (Hanna et al. 2024), as a share of the mean
    gap between the clean and the corrupted run. A circuit of n edges is the n strongest without
    dead ends; everything else carries the corrupted run's values. Its faithfulness is (metric of
    the circuit − corrupted) / (clean − corrupted), each a mean over the pairs; its completeness
    is the same for the model without it. What makes these shares hard to trust (gaps of both
    signs, or near the resolution of the logits' dtype) is in the result's `warnings`.

    Args:
        model: The model.
        pairs: Pairs with a correct and an incorrect answer each, or sets of them for "prob_diff";
            or what their `aligned` gives, where a choice is to be made about lengths.
        sizes: Numbers of edges to try.
        target: Faithfulness that the returned circuit has to reach.
        metric: Name of a metric that can be differentiated; its tokens are the pairs' answers.
        steps: Of EAP-IG; 1 is EAP.
        seed: For the intervals.
        normalize: "mean" divides mean changes by the mean gap; "pair" divides each pair's changes
            by its own gap, and then averages, so that pairs with small gaps count most.
        verbose: Show progress.

    Raises:
        InputError: for pairs that do not fit, or no sizes.
        AnalysisError: if the metric does not tell the clean from the corrupted runs.
    """
    check_normalize(normalize)
    steps = count(steps, "steps", most=MOST_STEPS)
    wanted = sorted({count(size, "a size, in edges,") for size in sizes})
    if not wanted:
        raise InputError("sizes is empty: give at least one number of edges.")
    aligned = pairs.aligned(model) if isinstance(pairs, PairSet) else pairs
    grounds = [
        _bench(model, pair, metric) for pair in tqdm(aligned, desc="runs", disable=not verbose)
    ]
    measures = [ground.measure for ground in grounds]
    check_gaps(measures, normalize)
    # What each pair's changes are divided by, before they are averaged.
    mean_gap = statistics.fmean(ground.gap for ground in grounds)
    gaps = [ground.gap if normalize == "pair" else mean_gap for ground in grounds]
    scores = _mean_scores(model, grounds, gaps, steps, verbose)
    ranking = EdgeScoresResult(scores, "EAP-IG" if steps > 1 else "EAP", 1.0, 0.0)
    circuits = _distinct([ranking.circuit(edges=size) for size in wanted])
    if not circuits:
        raise InputError(
            f"the {wanted[-1]} strongest edges hold no path from embed to logits: try larger sizes."
        )
    faithful, complete = _try(grounds, circuits, verbose)
    means = [_mean(changes, grounds, normalize, seed) for changes in (faithful, complete)]
    chosen = None
    for circuit, value in zip(circuits, nested(means[0][0]), strict=True):
        if value >= target:
            chosen = circuit
            chosen.faithfulness = value
            break
    return CircuitCurveResult(
        [len(circuit.edges) for circuit in circuits],
        *means[0],
        *means[1],
        scores=ranking.top(len(scores)),
        target=target,
        circuit=chosen,
        pairs=len(grounds),
        warnings=gap_warnings(measures, normalize),
    )


def _bench(model: InterpretableModel, pair: AlignedPair, metric: str) -> Bench:
    return bench(model, pair.clean, pair.corrupted, metric, pair.keywords_for(metric), raw=True)


def _mean(
    changes: list[mx.array], grounds: Sequence[Bench], normalize: Normalize, seed: int
) -> tuple[mx.array, mx.array | None]:
    """Changes of the metric over pairs, as shares of its gap."""
    gaps = [ground.gap for ground in grounds]
    if normalize == "mean":
        return mean_and_interval(changes, seed, gaps=gaps)
    return mean_and_interval([c / gap for c, gap in zip(changes, gaps, strict=True)], seed)


def _mean_scores(
    model: InterpretableModel,
    grounds: Sequence[Bench],
    gaps: Sequence[float],
    steps: int,
    verbose: bool,
) -> list[Edge]:
    graph = grounds[0].graph
    total = mx.zeros((len(graph.receivers), len(graph.senders)))
    for ground, gap in zip(tqdm(grounds, desc="scores", disable=not verbose), gaps, strict=True):
        senders = sent(model.layout, graph, ground.ids)
        scores = edge_scores(
            model,
            graph,
            ground.ids,
            senders,
            ground.others,
            ground.measure,
            steps=steps,
            positions=ground.positions,
        )
        total = total + scores / gap
        evaluate(total)
    matrix = nested(total / len(grounds))
    return [(s, r, matrix[graph.receiver(r)][graph.sender(s)]) for s, r in graph.edges]


def _distinct(circuits: Sequence[CircuitResult]) -> list[CircuitResult]:
    """Those with edges, without repeats: dropping dead ends may leave the same circuit."""
    found: dict[int, CircuitResult] = {}
    for circuit in circuits:
        if circuit.edges:
            found.setdefault(len(circuit.edges), circuit)
    return [found[size] for size in sorted(found)]


def _try(
    grounds: Sequence[Bench], circuits: Sequence[CircuitResult], verbose: bool
) -> tuple[list[mx.array], list[mx.array]]:
    """By pair, how far above the corrupted run each circuit is alone, and the model without it."""
    graph = grounds[0].graph
    kept = [edge_weights(graph, names(circuit.edges)) for circuit in circuits]
    left = [graph.mask() - weights for weights in kept]
    faithful, complete = [], []
    for ground in tqdm(grounds, desc="circuits", disable=not verbose):
        changes = ground.values([*kept, *left]) - ground.corrupted_value
        evaluate(changes)
        faithful.append(changes[: len(kept)])
        complete.append(changes[len(kept) :])
    return faithful, complete


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Circuits of growing size."""
    return [circuit_curve]
