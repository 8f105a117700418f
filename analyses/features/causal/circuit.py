"""Feature circuits: the features that a behaviour needs, within a layer and across layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.checks.arguments import count, real
from mlxray.errors import InputError, nearest
from mlxray.points.vocabulary import parse

from ...circuits.circuit_result import Edge
from ...dictionaries.types.cross_layer import CrossLayerTranscoder
from ...patching.measure import MetricLike
from ...patching.sweep import DEFAULT_BUDGET
from ..reading.reader import DictionaryLike, FeatureReader, feature_reader, loaded
from .ablation import Ablation, Floats, ablation, attached_features, keeping
from .circuit_result import FeatureCircuitResult
from .patching import METHODS, check_slope, exact_effects, largest
from .prompts import prompts_of

LOGITS = "logits"


@analysis(result=FeatureCircuitResult)
def feature_circuit(
    model: InterpretableModel,
    sae: DictionaryLike | Sequence[DictionaryLike],
    text: Any,
    layer: int | None = None,
    component: str | None = None,
    threshold: float = 0.01,
    top_k: int | None = 50,
    metric: MetricLike = "l2",
    *,
    corrupted: Any = None,
    metric_kwargs: Mapping[str, Any] | None = None,
    position: int = -1,
    method: str = "exact",
    steps: int = 8,
    budget: int = DEFAULT_BUDGET,
    verbose: bool = False,
) -> FeatureCircuitResult:
    """The features whose ablation changes a metric, and what they pass on to each other.

    A feature is a node if ablating it, as `feature_patching` does, changes the metric by at least
    `threshold`. Its edge to the logits carries that effect. With dictionaries in several layers an
    edge u → d carries what of u's effect passes through d: by how much the metric falls if d alone
    takes the values that it has when u is ablated. It is kept if that reaches `threshold` too.

    Circuits of features are from Marks et al. 2024 (arXiv 2403.19647); edges here are exact
    interventions, so they take one run for each pair of features.

    Args:
        model: The model.
        sae: A dictionary, or its path or hub id; or several, in any order. A cross-layer
            transcoder without `layer` counts as one for each of its layers.
        text: A prompt, a list of prompts, or a `PairSet`; see `feature_patching`.
        layer: Where the dictionary stands, if it does not know; for one dictionary.
        component: The same within the layer.
        threshold: The least change of the metric, in its own unit, mean over the texts.
        top_k: How many features of each dictionary are tried: the most active ones, or of
            estimated effects the largest. None for all active ones.
        metric: Name of a metric, or a function; see `feature_patching`.
        corrupted: Prompts of equal length whose features stand in, instead of zero.
        metric_kwargs: The metric's keywords; tokens may be text, such as ``" Paris"``.
        position: Position whose logits are measured.
        method: How effects of features are found: "exact", "gradient" or "integrated_gradients".
            Edges between features are exact always.
        steps: For "integrated_gradients".
        budget: Bytes that the activations of one pass may take.
        verbose: Show progress bars.

    Raises:
        InputError: if a dictionary does not fit or cannot be edited (a crosscoder), two stand at
            one place, or prompts do not pair.
        AnalysisError: if effects are estimated from a metric without slope at the untouched run.
        AddressError: if the model lacks a point.

    Example:
        >>> circuit = feature_circuit(model, sae, "The capital of France is", threshold=0.01)
        >>> circuit.nodes, circuit.to_graph()
    """
    threshold = real(threshold, "threshold", least=0.0)
    count(steps, "steps")
    top_k = None if top_k is None else count(top_k, "top_k")
    if method not in METHODS:
        raise InputError(f"method={method!r}: {nearest(str(method), METHODS)}")
    readers = _readers(model, sae, layer, component)
    prompts = prompts_of(model, text, corrupted, metric, metric_kwargs)
    with attached_features(model, readers) as addresses:
        cases = [
            [
                ablation(model, address, p.batch, p.other, metric, p.options, position, None)
                for p in prompts
            ]
            for address in tqdm(addresses, desc="dictionaries", disable=not verbose)
        ]
        found = [_effects(each, method, steps, top_k, budget, verbose) for each in cases]
        kept = [
            [f for f, effect in effects.items() if abs(effect) >= threshold] for effects in found
        ]
        edges, tried = _between(readers, cases, kept, threshold, budget, verbose)
        shares = _shares(cases, kept)
    names = [[f"{r.label}.f{f}" for f in fs] for r, fs in zip(readers, kept, strict=True)]
    effects = {
        name: own[feature]
        for own, features, each in zip(found, kept, names, strict=True)
        for feature, name in zip(features, each, strict=True)
    }
    tested = sum(map(len, found))
    total, faithfulness, completeness = shares
    return FeatureCircuitResult(
        [*((name, LOGITS, effect) for name, effect in effects.items()), *edges],
        threshold,
        tested + tried,
        faithfulness,
        "features",
        effects=effects,
        activations=_activations(cases, kept, names),
        total=total,
        completeness=completeness,
        metric_name=metric if isinstance(metric, str) else cases[0][0].measure.name,
        texts=len(prompts),
        features_tested=tested,
        warnings=_warnings(effects, tested, threshold),
        metadata={
            "parameters": {
                "sae": [repr(reader.placed.dictionary) for reader in readers],
                "texts": [p.batch.rows()[0] for p in prompts[:8]],
                "method": method,
                "top_k": top_k,
                "ablated to": "zero" if prompts[0].other is None else "corrupted",
                "metric_kwargs": dict(prompts[0].options or {}),
            }
        },
    )


def _readers(
    model: InterpretableModel, sae: Any, layer: int | None, component: str | None
) -> list[FeatureReader]:
    """One for each place, the earliest layer first."""
    given = list(sae) if isinstance(sae, (list, tuple)) else [sae]
    if not given:
        raise InputError("sae is an empty list: give at least one dictionary.")
    if len(given) > 1 and not (layer is None and component is None):
        raise InputError(
            "layer and component are for one dictionary: of several each knows its own address."
        )
    readers = []
    for each in (loaded(one, layer) for one in given):
        if isinstance(each, CrossLayerTranscoder) and layer is None:
            reads = each.reads or ()
            readers += [feature_reader(model, each, parse(read).layer, component) for read in reads]
        else:
            readers.append(feature_reader(model, each, layer, component))
    labels = [reader.label for reader in readers]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise InputError(
            f"two dictionaries read {twice[0]}: their features cannot be told apart there."
        )
    return sorted(readers, key=lambda reader: parse(reader.reads[0]).layer or 0)


def _effects(
    cases: Sequence[Ablation],
    method: str,
    steps: int,
    top_k: int | None,
    budget: int,
    verbose: bool,
) -> dict[int, float]:
    """Feature → mean effect over the texts, the largest magnitude first."""
    if method == "exact":
        features = largest(np.max([case.moved() for case in cases], axis=0), top_k)
        mean = exact_effects(cases, features, budget, verbose).mean(axis=0)
    else:
        if method == "gradient":
            check_slope(cases)
        whole = np.stack([c.estimates(None if method == "gradient" else steps) for c in cases])
        features = largest(whole.mean(axis=0), top_k)
        mean = whole.mean(axis=0)[features]
    order = np.argsort(-np.abs(mean), kind="stable")
    return {features[i]: float(mean[i]) for i in order}


def _between(
    readers: Sequence[FeatureReader],
    cases: Sequence[Sequence[Ablation]],
    kept: Sequence[Sequence[int]],
    threshold: float,
    budget: int,
    verbose: bool,
) -> tuple[list[Edge], int]:
    """Edges from features to features of later dictionaries, and how many were tried."""
    layers = [parse(reader.reads[0]).layer or 0 for reader in readers]
    weights: dict[tuple[str, str], Floats] = {}
    total = sum(map(len, kept)) * len(cases[0]) if len(readers) > 1 else 0
    with tqdm(total=total, desc="edges", unit="run", disable=not verbose) as bar:
        for at, (reader, own) in enumerate(zip(readers, cases, strict=True)):
            later = [i for i in range(len(readers)) if i != at and layers[i] >= layers[at]]
            later = [i for i in later if kept[i]]
            if not later:
                continue
            for number, case in enumerate(own):
                to = {cases[i][number].address: kept[i] for i in later}
                places = {cases[i][number].address: readers[i].label for i in later}
                for feature, address, fall in case.through(kept[at], to, budget):
                    for receiver, value in zip(to[address], fall, strict=True):
                        edge = f"{reader.label}.f{feature}", f"{places[address]}.f{receiver}"
                        weights.setdefault(edge, np.zeros(len(own)))[number] = value
                    bar.update(address == cases[later[-1]][number].address)
    means = {edge: float(values.mean()) for edge, values in weights.items()}
    strong = [(*edge, weight) for edge, weight in means.items() if abs(weight) >= threshold]
    return sorted(strong, key=lambda edge: -abs(edge[2])), len(means)


def _shares(
    cases: Sequence[Sequence[Ablation]], kept: Sequence[Sequence[int]]
) -> tuple[float, float | None, float | None]:
    """Effect of ablating everything, faithfulness and completeness: means first, then shares."""
    clean, none, circuit, rest = [], [], [], []
    for own in zip(*cases, strict=True):
        clean.append(own[0].clean)
        none.append(keeping(own, [()] * len(own)))
        circuit.append(keeping(own, kept))
        rest.append(keeping(own, kept, others=True))
    nothing = float(np.mean(none))
    total = float(np.mean(clean)) - nothing
    if not total:
        return total, None, None
    faithfulness, left = (float((np.mean(each) - nothing) / total) for each in (circuit, rest))
    return total, faithfulness, left


def _activations(
    cases: Sequence[Sequence[Ablation]],
    kept: Sequence[Sequence[int]],
    names: Sequence[Sequence[str]],
) -> dict[str, float]:
    found: dict[str, float] = {}
    for own, features, each in zip(cases, kept, names, strict=True):
        values = np.stack([case.activations() for case in own])
        best = np.take_along_axis(values, np.abs(values).argmax(axis=0)[None], axis=0)[0]
        found |= {name: float(best[f]) for f, name in zip(features, each, strict=True)}
    return found


def _warnings(effects: Mapping[str, float], tested: int, threshold: float) -> list[str]:
    if effects:
        return []
    if not tested:
        return ["no feature is active here"]
    return [f"no feature reaches threshold={threshold:g}: give a smaller one"]


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Feature circuits."""
    return [feature_circuit]
