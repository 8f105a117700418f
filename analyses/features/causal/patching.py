"""Feature patching: what a model's answer owes to each feature of a dictionary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from tqdm import tqdm

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.checks.arguments import count
from mlxray.errors import AnalysisError, InputError, nearest

from ...causal.attribution.certificate import correlation, sign_agreement
from ...patching.intervals import mean_and_interval
from ...patching.measure import MOST_STEPS, MetricLike
from ...patching.sweep import DEFAULT_BUDGET
from ..reading.reader import DictionaryLike, FeatureReader, feature_reader
from .ablation import Ablation, Floats, ablation, attached_features
from .effects_result import FeatureCertificate, FeatureEffectsResult
from .prompts import Prompt, prompts_of

METHODS = ("exact", "gradient", "integrated_gradients")

#: Share of the sum of all effects below which the effect of all together is called cancelled.
_CANCELS = 0.1


@analysis(result=FeatureEffectsResult)
def feature_patching(
    model: InterpretableModel,
    sae: DictionaryLike,
    text: Any,
    layer: int | None = None,
    component: str | None = None,
    feature_ids: Sequence[int] | None = None,
    top_k: int | None = 20,
    metric: MetricLike = "l2",
    *,
    corrupted: Any = None,
    metric_kwargs: Mapping[str, Any] | None = None,
    position: int = -1,
    positions: Sequence[int] | None = None,
    method: str = "exact",
    steps: int = 8,
    verify_top: int = 5,
    verify_random: int = 0,
    budget: int = DEFAULT_BUDGET,
    seed: int = 0,
    verbose: bool = False,
) -> FeatureEffectsResult:
    """By how much a metric falls when each feature of a dictionary is ablated.

    A feature is ablated by taking what it writes out of the activation; what the dictionary does
    not explain (its error) stays, and so do all other features. So a feature that is not active
    has effect exactly 0. Effects are differences of the metric in its own unit: for "l2" the
    distance of the logits from those of the untouched run, for "logit_diff" the fall of the logit
    difference, for "kl" the divergence. Over several texts they are averaged as they are, and
    `shares` divides the mean once, by the mean effect of ablating everything.

    Args:
        model: The model.
        sae: A dictionary (autoencoder, transcoder, cross-layer transcoder), or its path or hub id.
        text: A prompt, a list of prompts, or a `PairSet`, whose clean prompts are run and whose
            corrupted ones and answers are used.
        layer: Where the dictionary stands, if it does not know; see `feature_reader`.
        component: The same within the layer.
        feature_ids: The features to ablate.
        top_k: If none are given, how many: the most active ones (by largest value over texts and
            tokens), or of estimated effects the largest. None for all active ones.
        metric: Name of a metric, or a function (patched, clean, corrupted) → number of logits
            (1, S, V). Its corrupted logits are those with all features ablated.
        corrupted: A prompt, or as many as texts, of equal length: features take the values that
            they have there instead of zero, and the metric's corrupted logits are its own.
        metric_kwargs: The metric's keywords; tokens may be text, such as ``" Paris"``.
        position: Position whose logits are measured.
        positions: Token positions at which features are ablated; None for all.
        method: "exact", one run for each feature; "gradient", all features from one forward and
            backward pass, to first order; "integrated_gradients", the gradient's mean over
            `steps` points of the way from ablated to untouched features.
        steps: For "integrated_gradients".
        verify_top, verify_random: Of estimates, ablate this many of the largest exactly, and of
            the other active ones drawn at random; the result's `certificate` compares.
        budget: Bytes that the activations of one pass may take.
        seed: For what is drawn, and for the intervals.
        verbose: Show a progress bar.

    Returns:
        A mapping feature → effect; see `FeatureEffectsResult`.

    Raises:
        InputError: if the dictionary does not fit, lacks a feature, or cannot be edited (a
            crosscoder); for prompts that do not pair; if the metric refuses its keywords.
        AnalysisError: if effects are estimated from a metric without slope at the untouched run.
        AddressError: if the model lacks the point.

    Example:
        >>> effects = feature_patching(model, sae, "The capital of France is", top_k=20)
        >>> effects[42], effects.top(3)
    """
    _check(method, steps, verify_top, verify_random, budget)
    reader = feature_reader(model, sae, layer, component)
    chosen = None if feature_ids is None else reader.chosen(feature_ids, "feature_ids")
    top_k = None if top_k is None else count(top_k, "top_k")
    prompts = prompts_of(model, text, corrupted, metric, metric_kwargs)
    with attached_features(model, [reader]) as (address,):
        cases = [
            ablation(model, address, p.batch, p.other, metric, p.options, position, positions)
            for p in tqdm(prompts, desc="texts", disable=not verbose or len(prompts) == 1)
        ]
        moved = np.max([case.moved() for case in cases], axis=0)
        certificate = None
        if method == "exact":
            features = largest(moved, top_k) if chosen is None else chosen
            table = exact_effects(cases, features, budget, verbose)
        else:
            if method == "gradient":
                check_slope(cases)
            whole = np.stack([c.estimates(None if method == "gradient" else steps) for c in cases])
            features = largest(whole.mean(axis=0), top_k) if chosen is None else chosen
            table = whole[:, features]
            if verify_top or verify_random:
                certificate = _certify(
                    cases, whole.mean(axis=0), moved, verify_top, verify_random, seed, budget
                )
    return _result(reader, prompts, cases, features, table, metric, method, certificate, seed)


def _check(method: str, steps: int, verify_top: int, verify_random: int, budget: int) -> None:
    if method not in METHODS:
        raise InputError(f"method={method!r}: {nearest(str(method), METHODS)}")
    count(steps, "steps", most=MOST_STEPS)
    count(verify_top, "verify_top", least=0)
    count(verify_random, "verify_random", least=0)
    count(budget, "budget")


def largest(values: Floats, k: int | None) -> list[int]:
    """Features that are not zero, the largest magnitude first, equal ones in order; k at most."""
    order = np.argsort(-np.abs(values), kind="stable")
    return [int(feature) for feature in order[:k] if values[feature]]


def exact_effects(
    cases: Sequence[Ablation], features: Sequence[int], budget: int, verbose: bool = False
) -> Floats:
    """(texts, features)."""
    title = "features" if verbose and len(cases) == 1 else None
    shown = tqdm(cases, desc="features", unit="text", disable=not verbose or len(cases) == 1)
    return np.stack([case.exact(features, budget, title) for case in shown])


def check_slope(cases: Sequence[Ablation]) -> None:
    """Refuse to estimate from a gradient where a metric has none.

    Raises:
        AnalysisError: if the metric is a distance from the untouched run.
    """
    for measure in (case.measure for case in cases if case.total):
        if measure.is_flat_at_clean:
            raise AnalysisError(
                f"every feature's estimate is zero: {measure.name!r} has no slope at the "
                "untouched run, where a distance from it is least. Give a metric that has one, "
                'such as logit_diff, or method="integrated_gradients".'
            )


def _certify(
    cases: Sequence[Ablation],
    estimates: Floats,
    moved: Floats,
    top: int,
    drawn: int,
    seed: int,
    budget: int,
) -> FeatureCertificate | None:
    """Ablate the largest estimates, and some of the other active features, exactly."""
    active = largest(np.where(moved > 0, estimates, 0.0), None)
    # Active features whose estimate is zero come last.
    active += [int(f) for f in np.flatnonzero((moved > 0) & (estimates == 0))]
    rest = active[top:]
    picked = np.random.default_rng(seed).permutation(len(rest))[:drawn]
    features = active[:top] + [rest[i] for i in picked]
    if not features:
        return None
    exact = exact_effects(cases, features, budget).mean(axis=0)
    estimated = estimates[features]
    tested = min(top, len(active))
    return FeatureCertificate(
        features,
        estimated.tolist(),
        exact.tolist(),
        tested,
        correlation(estimated.tolist(), exact.tolist()),
        sign_agreement(estimated.tolist(), exact.tolist()),
        float(np.abs(estimated - exact).max()),
        float(np.abs(exact[tested:]).max()) if len(exact) > tested else None,
    )


def _result(
    reader: FeatureReader,
    prompts: Sequence[Prompt],
    cases: Sequence[Ablation],
    features: Sequence[int],
    table: Floats,
    metric: MetricLike,
    method: str,
    certificate: FeatureCertificate | None,
    seed: int,
) -> FeatureEffectsResult:
    mean = table.mean(axis=0)
    order = [int(i) for i in np.argsort(-np.abs(mean), kind="stable")]
    interval = None
    if len(cases) > 1 and features:
        _, ends = mean_and_interval([mx.array(row.astype(np.float32)) for row in table], seed)
        assert ends is not None
        low, high = np.array(ends, np.float64)
        interval = {features[i]: (float(low[i]), float(high[i])) for i in order}
    values = np.stack([case.activations() for case in cases])
    largest = np.take_along_axis(values, np.abs(values).argmax(axis=0)[None], axis=0)[0]
    moved = np.max([case.moved() for case in cases], axis=0)
    silent = [feature for feature in features if not moved[feature]]
    warned = [f"feature {f} is not active here: its effect is 0" for f in silent[:3]]
    if not moved.any():
        warned = ["no feature of the dictionary is active here"]
    total = float(np.mean([case.total for case in cases]))
    if abs(total) < _CANCELS * np.abs(mean).sum():
        warned.append(
            "effects of both signs nearly cancel in the effect of ablating all features together: "
            "shares of that mean little"
        )
    return FeatureEffectsResult(
        reader.label,
        {features[i]: float(mean[i]) for i in order},
        {features[i]: float(largest[features[i]]) for i in order},
        total,
        int((moved > 0).sum()),
        metric if isinstance(metric, str) else cases[0].measure.name,
        method,
        "zero" if prompts[0].other is None else "corrupted",
        len(cases),
        interval,
        certificate,
        warnings=warned,
        metadata={
            "parameters": {
                "sae": repr(reader.placed.dictionary),
                "place": reader.label,
                "texts": [p.batch.rows()[0] for p in prompts[:8]],
                "method": method,
                "metric_kwargs": dict(prompts[0].options or {}),
            }
        },
    )


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Feature patching."""
    return [feature_patching]
