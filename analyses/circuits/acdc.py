"""Automatic circuit discovery: remove edges one after the other while the behaviour stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.arrays import nested
from mlxray.errors import InputError
from mlxray.tokens import Batch

from ..datasets.prompts import UnequalPair, pair
from ..patching.gaps import gap_warnings
from ..patching.measure import MetricLike, measure_of, read_positions
from ..patching.sweep import DEFAULT_BUDGET
from .acdc_nodes import NodeTrials, node_edges, nodes_of
from .acdc_search import search
from .circuit import Bench, bench
from .circuit_result import CircuitResult, connected
from .edges import Graph, graph_of, sent

#: Edges that one forward pass tries together.
BATCH = 16

BY = ("edge", "node", "block")

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
    by: str = "edge",
    max_passes: int | None = None,
    verbose: bool = False,
    unequal: UnequalPair = "refuse",
) -> CircuitResult:
    """Find the edges that a behaviour needs (ACDC; Conmy et al. 2023).

    Edges grow with the square of heads and layers: 12 layers of 12 heads have 32 thousand, 32
    layers of 32 heads 1.6 million. With ``by="node"`` whole heads and MLPs
    are tried instead, with ``by="block"`` whole attention sub-layers and MLPs; both run on any
    architecture. How many passes a search needs, and how long they take, is said before it
    starts: with `verbose`, and as a warning where it may be more than two minutes.

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
        by: "edge", "node" or "block": what is taken away one at a time.
        max_passes: Refuse to start where more passes may be needed; None for no limit.
        verbose: Tell what the search takes at most, and show a progress bar.
        unequal: "refuse" prompts of different length, or "trim" the beginning of the longer one,
            so that the last tokens stand at the same positions.

    Returns:
        The edges that stayed, each with the loss that its removal would have cost; with
        ``by="node"`` and ``"block"`` all edges among the nodes that stayed, each with its
        sender's loss. Edges that were never tried are in `untested`, and their ends are no
        `nodes` of the circuit.

    Raises:
        InputError: for prompts that do not pair, an unknown component, ablation or `by`, or
            more passes than `max_passes`.
        AnalysisError: if the metric does not tell the two prompts apart.
    """
    _check(threshold, components, ablation, by, max_passes)
    batches = pair(model, clean, corrupted, unequal)
    how = _How(threshold, components, layers, ablation, max_passes, verbose)
    if by == "edge":
        return _edges(model, batches, metric, metric_kwargs, position, how)
    return _nodes(model, batches, metric, metric_kwargs, position, how, by)


@dataclass(frozen=True)
class _How:
    """What is asked for; see `acdc`."""

    threshold: float
    components: Sequence[str]
    layers: Sequence[int] | None
    ablation: str
    max_passes: int | None
    verbose: bool


def _edges(
    model: InterpretableModel,
    batches: tuple[Batch, Batch],
    metric: MetricLike,
    metric_kwargs: Mapping[str, Any] | None,
    position: int,
    how: _How,
) -> CircuitResult:
    graph = graph_of(model.layout)
    wanted = None if how.layers is None else set(model.layer_indices(how.layers))
    others = _ablated(model, graph, batches[1].ids, how.ablation)
    ground = bench(model, *batches, metric, metric_kwargs, position=position, others=others)
    units = [
        (sender, receiver)
        for receiver, count in reversed(list(zip(graph.receivers, graph.upstream, strict=True)))
        if _tried(receiver, how.components, wanted)
        for sender in reversed(graph.senders[:count])
        if _tried(sender, how.components, None)
    ]
    trials = EdgeTrials(ground)
    found = search(
        trials,
        units,
        "edge",
        how.threshold,
        ground.clean_value,
        max_passes=how.max_passes,
        verbose=how.verbose,
    )
    tried = set(units)
    stands = [edge for edge in graph.edges if edge in found.kept or edge not in tried]
    edges = connected([(s, r, found.kept.get((s, r), 0.0)) for s, r in stands])
    result = CircuitResult(
        edges,
        how.threshold,
        len(graph.edges),
        method="ACDC",
        untested=[(s, r) for s, r, _ in edges if (s, r) not in tried],
    )
    result.warnings += ground.warnings
    result.metadata["passes"] = found.passes
    result.faithfulness = ground.faithfulness((s, r) for s, r, _ in edges)
    return result


class EdgeTrials:
    """The clean run with edges taken away.

    Args:
        ground: The pair of prompts.
    """

    def __init__(self, ground: Bench) -> None:
        import numpy as np

        self._ground = ground
        self._left = np.array(ground.graph.mask())
        self.batch = int(min(BATCH, max(1, DEFAULT_BUDGET // ground.row_bytes)))

    def values(self, part: Sequence[tuple[str, str]]) -> list[float]:
        """The metric with the first of these edges taken away, the first two, …"""
        left, kept = self._left.copy(), []
        for edge in part:
            left[self._at(edge)] = 0.0
            kept.append(mx.array(left))
        values: list[float] = nested(self._ground.values(kept))
        return values

    def remove(self, edge: tuple[str, str]) -> None:
        """Take an edge away for good."""
        self._left[self._at(edge)] = 0.0

    def _at(self, edge: tuple[str, str]) -> tuple[int, int]:
        sender, receiver = edge
        return self._ground.graph.receiver(receiver), self._ground.graph.sender(sender)


def _nodes(
    model: InterpretableModel,
    batches: tuple[Batch, Batch],
    metric: MetricLike,
    metric_kwargs: Mapping[str, Any] | None,
    position: int,
    how: _How,
    by: str,
) -> CircuitResult:
    nodes = nodes_of(model, by, how.components, how.layers)
    measure = measure_of(model, batches, metric, metric_kwargs, position)
    measure.check_gap()
    read = read_positions(metric, batches[0], position)
    trials = NodeTrials(model, batches, nodes, measure, read, how.ablation)
    found = search(
        trials,
        nodes,
        by,
        how.threshold,
        measure.ends[0],
        max_passes=how.max_passes,
        verbose=how.verbose,
    )
    every = [node.name for node in reversed(nodes)]
    losses = {node.name: loss for node, loss in found.kept.items()}
    edges = node_edges(model, [name for name in every if name in losses], losses)
    total = len(node_edges(model, every, dict.fromkeys(every, 0.0)))
    result = CircuitResult(edges, how.threshold, total, method=f"ACDC by {by}")
    result.metadata["passes"] = found.passes
    clean, corrupted = measure.ends
    result.faithfulness = (trials.value() - corrupted) / (clean - corrupted)
    result.warnings += gap_warnings([measure])
    return result


def _tried(name: str, components: Sequence[str], layers: set[int] | None) -> bool:
    if name in ("embed", "logits"):
        return True
    kind = "attn" if name[0] == "a" else "mlp"
    return kind in components and (layers is None or int(name[1:].split(".")[0]) in layers)


def _check(
    threshold: float,
    components: Sequence[str],
    ablation: str,
    by: str,
    max_passes: int | None,
) -> None:
    if by not in BY:
        raise InputError(f"by is one of {', '.join(BY)}; got {by!r}.")
    if max_passes is not None and (not isinstance(max_passes, int) or max_passes < 1):
        raise InputError(f"max_passes is a whole number, at least 1; got {max_passes!r}.")
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
