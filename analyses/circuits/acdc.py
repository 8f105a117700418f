"""Automatic circuit discovery: remove edges one after the other while the behaviour stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
from tqdm import tqdm

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.arrays import nested
from mlxray.errors import InputError

from ..datasets.prompts import UnequalPair, pair
from ..patching.measure import MetricLike
from .circuit import Bench, bench, edge_weights
from .circuit_result import CircuitResult, connected
from .edges import Graph, graph_of, sent

#: Edges that one forward pass tries together.
BATCH = 16

ABLATIONS = ("resample", "zero", "mean")


@analysis(result=CircuitResult)
def acdc(
    model: InterpretableModel,
    clean: Any,
    corrupted: Any,
    threshold: float = 0.01,
    components: Sequence[str] = ("attn", "mlp"),
    layers: Sequence[int] | None = None,
    *,
    metric: MetricLike = "kl_divergence",
    metric_kwargs: Mapping[str, Any] | None = None,
    ablation: str = "resample",
    position: int = -1,
    verbose: bool = False,
    unequal: UnequalPair = "refuse",
) -> CircuitResult:
    """Find the edges that a behaviour needs (ACDC; Conmy et al. 2023).

    Receivers are visited from the output back to the input. At each, senders are tried from the
    latest to the earliest: an edge is removed if the metric falls by less than `threshold`
    against the graph as it then stands. With the default metric that is the paper's rule, a
    rise in KL(clean ‖ circuit) below the threshold.

    Args:
        model: The model.
        clean, corrupted: Prompts of equal length.
        threshold: Least loss of the metric that keeps an edge.
        components: ``"attn"`` and/or ``"mlp"``: whose edges are tried; others stay.
        layers: Layers whose receivers are tried; None for all (and the output).
        metric: Higher is nearer to clean.
        metric_kwargs: Its keywords.
        ablation: What a removed edge carries: the corrupted run's value (``"resample"``),
            ``"zero"``, or the mean over the corrupted prompt's positions (``"mean"``).
        position: Position whose logits are measured.
        verbose: Show a progress bar.
        unequal: "refuse" prompts of different length, or "trim" the beginning of the longer one,
            so that the last tokens stand at the same positions.

    Returns:
        The edges that stayed, each with the loss that its removal would have cost.

    Raises:
        InputError: for prompts that do not pair, or an unknown component or ablation.
    """
    _check(threshold, components, ablation)
    graph = graph_of(model.layout)
    wanted = None if layers is None else set(model.layer_indices(layers))
    batches = pair(model, clean, corrupted, unequal)
    others = _ablated(model, graph, batches[1].ids, ablation)
    ground = bench(model, *batches, metric, metric_kwargs, position=position, others=others)
    kept = dict.fromkeys(graph.edges, 0.0)
    order = [
        (receiver, count)
        for receiver, count in zip(graph.receivers, graph.upstream, strict=True)
        if _tried(receiver, components, wanted)
    ]
    total = sum(count for _, count in order)
    current = _values(ground, [list(kept)])[0]
    with tqdm(total=total, desc="acdc", disable=not verbose) as bar:
        for receiver, count in reversed(order):
            waiting = [s for s in reversed(graph.senders[:count]) if _tried(s, components, None)]
            current = _prune(ground, kept, receiver, waiting, threshold, current)
            bar.update(count)
    edges = connected([(s, r, loss) for (s, r), loss in kept.items()])
    result = CircuitResult(edges, threshold, len(graph.edges), method="ACDC")
    result.faithfulness = ground.faithfulness((s, r) for s, r, _ in edges)
    return result


def _prune(
    ground: Bench,
    kept: dict[tuple[str, str], float],
    receiver: str,
    waiting: list[str],
    threshold: float,
    current: float,
) -> float:
    """Try the edges into one receiver, in order; returns the metric of what stands.

    Several are tried in one pass, each on top of the ones before it as if those had been
    removed. Up to the first that has to stay this is what trying them one by one gives; from
    there the next pass goes on.
    """
    while waiting:
        batch = waiting[:BATCH]
        trials = []
        left = dict(kept)
        for sender in batch:
            left.pop((sender, receiver))
            trials.append(list(left))
        for tried, value in enumerate(_values(ground, trials)):
            loss = current - value
            if loss >= threshold:
                kept[batch[tried], receiver] = loss
                waiting = waiting[tried + 1 :]
                break
            del kept[batch[tried], receiver]
            current = value
        else:
            waiting = waiting[len(batch) :]
    return current


def _values(ground: Bench, trials: list[list[tuple[str, str]]]) -> list[float]:
    values = ground.values([edge_weights(ground.graph, edges) for edges in trials])
    found: list[float] = nested(values)
    return found


def _tried(name: str, components: Sequence[str], layers: set[int] | None) -> bool:
    if name in ("embed", "logits"):
        return True
    kind = "attn" if name[0] == "a" else "mlp"
    return kind in components and (layers is None or int(name[1:].split(".")[0]) in layers)


def _check(threshold: float, components: Sequence[str], ablation: str) -> None:
    if not threshold >= 0:
        raise InputError(f"a threshold is not negative; got {threshold}.")
    unknown = sorted(set(components) - {"attn", "mlp"})
    if unknown or not components:
        raise InputError(f"components are 'attn' and 'mlp'; got {unknown or 'none'}.")
    if ablation not in ABLATIONS:
        raise InputError(f"ablation is one of {', '.join(ABLATIONS)}; got {ablation!r}.")


def _ablated(
    model: InterpretableModel, graph: Graph, corrupted: mx.array, ablation: str
) -> mx.array:
    values = sent(model.layout, graph, corrupted)
    if ablation == "zero":
        return mx.zeros_like(values)
    if ablation == "mean":
        return mx.broadcast_to(mx.mean(values, axis=2, keepdims=True), values.shape)
    return values


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Automatic circuit discovery."""
    return [acdc]
