"""Edge attribution patching: an estimate for every edge from two runs and a gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.arrays import nested, number
from mlxray.errors import InputError

from ..datasets.prompts import UnequalPair, pair
from ..patching.measure import Measure, MetricLike, bind, last_logits
from .circuit_result import EdgeScoresResult
from .edges import Graph, graph_of, receiver_gradients, sent


def edge_scores(
    model: InterpretableModel,
    graph: Graph,
    ids: mx.array,
    senders: mx.array,
    others: mx.array,
    measure: Measure,
    *,
    steps: int,
    position: int,
) -> mx.array:
    """First-order change of the metric when an edge carries the other run's value.

    Args:
        model, graph: The model.
        ids: (1, S) the run that is changed.
        senders, others: (senders, 1, S, D) what they write in this run and in the other.
        measure: The metric.
        steps: Points on the line between the two embeddings at which gradients are averaged;
            1 takes this run's own gradient.
        position: Where the logits are measured.

    Returns:
        (receivers, senders), zero where the receiver cannot read the sender.
    """
    total = mx.zeros((len(graph.receivers), *senders.shape[1:]))
    for step in range(steps):
        embed = None
        if steps > 1:
            share = (step + 0.5) / steps
            embed = senders[0] + share * (others[0] - senders[0])
        _, gradient = receiver_gradients(
            model.layout,
            graph,
            ids,
            lambda x: measure.scalar(x[:, 0]),
            embed=embed,
            positions=[position],
        )
        total = total + gradient.astype(mx.float32)
        mx.eval(total)
    deltas = (others - senders).astype(mx.float32)
    scores = mx.einsum("vbsd,ubsd->vu", total / steps, deltas) * graph.mask()
    mx.eval(scores)
    return scores


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
        metric: Name of a metric that can be differentiated, or such a function.
        metric_kwargs: Its keywords, such as correct_token and incorrect_token.
        steps: Gradients to average; 5 is usual for EAP-IG.
        position: Position whose logits are measured.
        unequal: "refuse" prompts of different length, or "trim" the beginning of the longer one,
            so that the last tokens stand at the same positions.

    Returns:
        Every edge with its score; ``.circuit(edges=…)`` prunes.

    Raises:
        InputError: for prompts that do not pair, or a metric without a gradient.
        PointAbsent: if the model's heads do not write to the residual stream each on its own.
    """
    if not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps is a whole number, at least 1; got {steps}.")
    first, second = pair(model, clean, corrupted, unequal)
    graph = graph_of(model.layout)
    logits = last_logits(model, first, position), last_logits(model, second, position)
    measure = bind(model, metric, *logits, metric_kwargs)
    values = measure.rows(mx.stack([*logits]))
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
        position=first.index(0, position),
    )
    matrix = nested(scores)
    edges = [(s, r, matrix[graph.receiver(r)][graph.sender(s)]) for s, r in graph.edges]
    return EdgeScoresResult(
        edges,
        "EAP" if steps == 1 else "EAP-IG",
        clean_value=number(values[0]),
        corrupted_value=number(values[1]),
    )


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Edge attribution patching."""
    return [edge_attribution_patching]
