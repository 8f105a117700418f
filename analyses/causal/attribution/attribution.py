"""Attribution patching: every effect at once, to first order, from one backward pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.checks.arguments import count
from mlxray.errors import InputError

from ...datasets.prompts import UnequalPair, pair
from ...patching.gaps import gap_warnings
from ...patching.grid import block_component, layers_with
from ...patching.measure import MOST_STEPS, Measure, MetricLike
from .certificate import certify
from .estimates import Estimates
from .query_key import key_effects, query_effects
from .relevance import relevance_edits
from .result import AttributionMapResult, AttributionResult

METHODS = ("gradient", "integrated_gradients", "finite_diff", "query_key", "relevance")


@analysis(result=AttributionResult)
def attribution_patching(
    model: InterpretableModel,
    clean: Any,
    corrupted: Any,
    component: str = "resid_post",
    metric: MetricLike = "l2_distance",
    n_projections: int = 1,
    eps: float = 1e-3,
    *,
    method: str = "gradient",
    layers: Sequence[int] | None = None,
    metric_kwargs: Mapping[str, Any] | None = None,
    position: int = -1,
    steps: int = 8,
    verify_top: int = 0,
    verify_random: int = 0,
    seed: int = 0,
    unequal: UnequalPair = "refuse",
) -> AttributionResult:
    """Estimate the effect of patching each layer, head and position (Nanda 2023).

    The estimate is (clean − corrupted activation) · gradient of the metric, in the corrupted
    run: what `activation_patching` measures, to first order.

    Args:
        model: The model.
        clean, corrupted: Prompts of equal length.
        component: A point of the vocabulary.
        metric: Name of a metric that can be differentiated, or a function (patched, clean,
            corrupted) of logits (1, S, V) whose result, an mx.array, can be.
        n_projections: For "finite_diff": step sizes (eps, 2·eps, …) whose slopes are averaged.
        eps: For "finite_diff": the step, as a share of the way from corrupted to clean.
        method: "gradient"; "integrated_gradients", the gradient's mean over `steps` points of
            the way from corrupted to clean at the point itself (Sundararajan et al. 2017);
            "finite_diff", central differences along that way, one pair of runs for each layer;
            "query_key", for "q" and "k": the change of the attention pattern is computed exactly
            and only what follows to first order (AtP*, Kramár et al. 2024); "relevance", with
            the propagation rules of RelP in norms and MLPs in place of their gradients
            (Jafari et al. 2025).
        layers: Layers to look at; None for all that have the component.
        metric_kwargs: The metric's keywords.
        position: Position whose logits are measured.
        steps: For "integrated_gradients".
        verify_top, verify_random: Patch this many of the largest estimates, and of the others
            drawn at random, exactly; the result's `certificate` compares.
        seed: For what is drawn.
        unequal: "refuse" prompts of different length, or "trim" the beginning of the longer one,
            so that the last tokens stand at the same positions.

    Raises:
        InputError: for prompts that do not pair, an unknown method, or a metric without gradient.
        PointAbsent: if the model does not have the point.
    """
    point = block_component(component)
    _check(point, method, n_projections, eps, steps)
    if min(verify_top, verify_random) < 0:
        raise InputError("verify_top and verify_random are numbers of places, 0 for none.")
    batches = pair(model, clean, corrupted, unequal)
    wanted = layers_with(model, point, layers)
    estimates = Estimates(
        model,
        batches,
        {point: wanted},
        metric,
        metric_kwargs,
        position,
        ahead=method == "gradient",
    )
    if method == "finite_diff":
        cells = estimates.finite_differences(eps, n_projections)[point]
    elif method == "integrated_gradients":
        cells = estimates.integrated(steps)[point]
    elif method == "query_key":
        effects = query_effects if point == "q" else key_effects
        cells = effects(model, batches, wanted, estimates.scalar, estimates.positions)
    else:
        edits = relevance_edits(model.layout) if method == "relevance" else None
        cells = estimates.gradient(edits)[point]
    measure = estimates.measure
    result = _result(cells, wanted, point, method, measure)
    result.warnings += gap_warnings([measure]) if measure.is_share else []
    if verify_top or verify_random:
        at = estimates.positions
        counts = verify_top, verify_random
        result.certificate = certify(model, batches, result, measure, at, *counts, seed)
    return result


@analysis(result=AttributionMapResult)
def attribution_map(
    model: InterpretableModel,
    clean: Any,
    corrupted: Any,
    components: str | Sequence[str] = ("resid_post", "attn_out", "mlp_out", "z"),
    metric: MetricLike = "l2_distance",
    *,
    layers: Sequence[int] | None = None,
    metric_kwargs: Mapping[str, Any] | None = None,
    position: int = -1,
    unequal: UnequalPair = "refuse",
) -> AttributionMapResult:
    """Attribution patching of several points, layers, heads and positions in one backward pass.

    Args:
        model: The model.
        clean, corrupted: Prompts of equal length.
        components: Points of the vocabulary.
        metric: Name of a metric that can be differentiated, or a function (patched, clean,
            corrupted) of logits (1, S, V) whose result, an mx.array, can be.
        layers: Layers to look at; None for all that have the component.
        metric_kwargs: The metric's keywords.
        position: Position whose logits are measured.
        unequal: "refuse" prompts of different length, or "trim" the beginning of the longer one,
            so that the last tokens stand at the same positions.

    Raises:
        InputError: for prompts that do not pair, no components, or a metric without gradient.
        PointAbsent: if the model does not have a point.
    """
    names = [components] if isinstance(components, str) else components
    points = [block_component(component) for component in names]
    if not points:
        raise InputError("give at least one component.")
    batches = pair(model, clean, corrupted, unequal)
    wanted = {point: layers_with(model, point, layers) for point in points}
    estimates = Estimates(model, batches, wanted, metric, metric_kwargs, position, ahead=True)
    found = estimates.gradient()
    maps = {
        point: _result(cells, wanted[point], point, "gradient", estimates.measure)
        for point, cells in found.items()
    }
    ids = batches[1].rows()[0]
    shown = [model.token_to_str(i) if model.tokenizer is not None else str(i) for i in ids]
    warned = gap_warnings([estimates.measure]) if estimates.measure.is_share else []
    return AttributionMapResult(maps, shown, warnings=warned)


def _result(
    cells: mx.array, layers: list[int], point: str, method: str, measure: Measure
) -> AttributionResult:
    scores = mx.sum(cells, axis=-1)
    return AttributionResult(scores, cells, layers, point, method, measure.name)


def _check(point: str, method: str, n_projections: int, eps: float, steps: int) -> None:
    if method not in METHODS:
        raise InputError(f"method is one of {', '.join(METHODS)}; got {method!r}.")
    if method == "query_key" and point not in ("q", "k"):
        raise InputError(f"method 'query_key' is for component 'q' or 'k'; got {point!r}.")
    count(n_projections, "n_projections", most=MOST_STEPS)
    count(steps, "steps", most=MOST_STEPS)
    if not 0 < eps < math.inf:
        raise InputError(f"eps is a positive number; got {eps}.")


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Attribution patching."""
    return [attribution_patching, attribution_map]
