"""Edge attribution patching: an estimate for every edge from two runs and a gradient."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import mlx.core as mx

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.arrays import evaluate, start_evaluating
from mlxray.checks.arguments import count
from mlxray.errors import AnalysisError

from ..datasets.prompts import UnequalPair, pair
from ..patching.gaps import gap_warnings
from ..patching.measure import MOST_STEPS, Measure, MetricLike, measure_of, read_positions
from .circuit_result import EdgeScoresResult
from .edge_gradients import Part, gradient_parts
from .edge_table import EdgeTable
from .edges import Graph, graph_of, sent


def edge_scores(
    model: InterpretableModel,
    graph: Graph,
    ids: mx.array,
    senders: mx.array,
    others: mx.array,
    measure: Measure,
    *,
    steps: int,
    positions: Sequence[int],
) -> mx.array:
    """First-order change of the metric when an edge carries the other run's value.

    Args:
        model, graph: The model.
        ids: (1, S) the run that is changed.
        senders, others: (senders, 1, S, D) what they write in this run and in the other.
        measure: The metric.
        steps: Points on the line between the two embeddings at which gradients are averaged;
            1 takes this run's own gradient.
        positions: The positions whose logits the metric gets.

    Returns:
        (receivers, senders), zero where the receiver cannot read the sender.

    Raises:
        AnalysisError: if the metric is a distance from this run, and `steps` is 1.
    """
    if steps == 1 and measure.is_flat_at_clean:
        raise AnalysisError(
            f"every edge scores zero: {measure.name!r} has no slope at the clean run, where a "
            "distance from it is least. Give a metric that has one, such as logit_diff, or "
            "average the gradient along the way to the corrupted run: steps=5."
        )
    total = mx.zeros((len(graph.receivers), len(graph.senders)))
    for step in range(steps):
        embed = None
        if steps > 1:
            share = (step + 0.5) / steps
            embed = senders[0] + share * (others[0] - senders[0])
        _, parts = gradient_parts(
            model.layout,
            graph,
            ids,
            measure.scalar,
            embed=embed,
            positions=positions,
        )
        total = total + mx.concatenate(_contracted(graph, parts, others - senders))
        evaluate(total)
    scores = total / steps * graph.mask()
    evaluate(scores)
    return scores


#: Bytes of float32 that one product of gradients and changes may take.
PRODUCT_BYTES = 1 << 30


def _contracted(graph: Graph, parts: Iterable[Part], changes: mx.array) -> list[mx.array]:
    """For each part (receivers, senders): gradients times what the senders change, evaluated.

    Args:
        graph: The model's.
        parts: Of all receivers.
        changes: (senders, B, S, D).
    """
    found: list[mx.array] = []
    for receivers, gradient in parts:
        upstream = graph.upstream[receivers.start]
        scores = _product(gradient, changes[:upstream])
        # Described while the device still works on the part before, and no further ahead.
        evaluate(found[-1:])
        found.append(mx.pad(scores, [(0, 0), (0, len(graph.senders) - upstream)]))
        start_evaluating(found[-1])
    return found


def _product(gradient: mx.array, changes: mx.array) -> mx.array:
    """(receivers, B, S, D) and (senders, B, S, D) → (receivers, senders) float32."""
    rows, tokens = gradient.shape[0] + changes.shape[0], gradient.shape[2]
    most = max(1, PRODUCT_BYTES // (4 * rows * gradient[0, :, :1].size))
    total = mx.zeros((gradient.shape[0], changes.shape[0]))
    for first in range(0, tokens, most):
        some = slice(first, first + most)
        flat = [
            x[:, :, some].reshape(x.shape[0], -1).astype(mx.float32) for x in (gradient, changes)
        ]
        total = total + flat[0] @ flat[1].T
    return total


@analysis(result=EdgeScoresResult)
def edge_attribution_patching(
    model: InterpretableModel,
    clean: Any,
    corrupted: Any,
    *,
    metric: MetricLike = "logit_diff",
    metric_kwargs: Mapping[str, Any] | None = None,
    steps: int = 1,
    position: int = -1,
    unequal: UnequalPair = "refuse",
) -> EdgeScoresResult:
    """Score every edge by attribution patching (EAP; Syed et al. 2023), with q/k/v inputs.

    The score of sender → receiver is the estimated change of the metric when, in the clean run,
    the receiver reads what the sender writes in the corrupted run. With `steps` above 1 the
    gradient is averaged along the line between the embeddings (EAP-IG; Hanna et al. 2024),
    which does not miss what saturates at the clean run.

    Args:
        model: The model.
        clean, corrupted: Prompts of equal length.
        metric: Name of a metric that can be differentiated, or a function (patched, clean,
            corrupted) of logits (1, S, V) whose result, an mx.array, can be.
        metric_kwargs: Its keywords, such as correct_token and incorrect_token.
        steps: Gradients to average; 5 is usual for EAP-IG.
        position: Position whose logits are measured.
        unequal: "refuse" prompts of different length, or "trim" the beginning of the longer one,
            so that the last tokens stand at the same positions.

    Returns:
        Every edge with its score; ``.circuit(edges=…)`` prunes.

    Raises:
        InputError: for prompts that do not pair, or a metric without a gradient.
        AnalysisError: if the metric does not change with any edge, as a distance from the clean
            run does not where `steps` is 1.
        PointAbsent: if the model's heads do not write to the residual stream each on its own.
    """
    steps = count(steps, "steps", most=MOST_STEPS)
    first, second = pair(model, clean, corrupted, unequal)
    graph = graph_of(model.layout)
    measure = measure_of(model, (first, second), metric, metric_kwargs, position)
    warned = []
    if measure.is_share:
        measure.check_gap()
        warned = gap_warnings([measure])
    senders = sent(model.layout, graph, first.ids)
    others = sent(model.layout, graph, second.ids)
    scores = edge_scores(
        model,
        graph,
        first.ids,
        senders,
        others,
        measure,
        steps=steps,
        positions=read_positions(metric, first, position),
    )
    edges = EdgeTable.of(graph.senders, graph.receivers, graph.upstream, scores)
    return EdgeScoresResult(
        edges,
        "EAP" if steps == 1 else "EAP-IG",
        clean_value=measure.ends[0],
        corrupted_value=measure.ends[1],
        warnings=warned,
    )


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Edge attribution patching."""
    return [edge_attribution_patching]
