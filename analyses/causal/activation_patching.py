"""Activation patching: which places carry what makes one prompt's behaviour another's."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
from tqdm import tqdm

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.errors import InputError
from mlxray.tokens import Batch

from ..datasets.pairs import AlignedPairs, PairSet
from ..datasets.prompts import UnequalPair, pair
from ..patching.gaps import Normalize, check_gaps, check_normalize, gap_warnings
from ..patching.grid import make_grid
from ..patching.intervals import mean_and_interval
from ..patching.measure import Measure, MetricLike, measure_of, read_positions
from ..patching.patches import Dictionary
from ..patching.sources import SOURCES, source_values
from ..patching.sweep import DEFAULT_BUDGET, Sweep
from ..prompts import token_texts
from .patching_result import PatchingResult

EXACT = ("batched", "naive")


@analysis(result=PatchingResult, method_defaults={"component": "mlp"})
def activation_patching(
    model: InterpretableModel,
    clean: Any = None,
    corrupted: Any = None,
    component: str = "resid_post",
    layers: Sequence[int] | None = None,
    metric: MetricLike = "l2",
    plot: bool = False,
    figsize: tuple[float, float] = (12, 8),
    cmap: str = "RdBu_r",
    *,
    positions: Sequence[int] | None = None,
    metric_kwargs: Mapping[str, Any] | None = None,
    verbose: bool = False,
    by: str = "auto",
    source: str = "clean",
    reference: Sequence[Any] | None = None,
    position: int = -1,
    exact: str = "batched",
    dictionary: Dictionary | None = None,
    features: Sequence[int] | None = None,
    budget: int = DEFAULT_BUDGET,
    seed: int = 0,
    normalize: Normalize = "mean",
    unequal: UnequalPair = "refuse",
    clean_text: Any = None,
    corrupted_text: Any = None,
) -> PatchingResult:
    """Patch activations of the clean run into the corrupted one, place by place.

    The effect of a place is the metric of the corrupted run with that place patched (Vig et al.
    2020; Meng et al. 2022): with the default metric 1 where the clean logits are back, 0 where
    nothing changed. As a mapping the result gives layer → percent.

    Over several pairs the metric's changes are averaged as they are, and the mean is divided by
    the mean gap between clean and corrupted runs. What makes that share hard to trust (gaps of
    both signs, or near the resolution of the logits' dtype) is in the result's `warnings`.

    Args:
        model: The model.
        clean, corrupted: Prompts of equal length, or two lists of prompts, paired; effects are
            then over all pairs, with 95 % bootstrap intervals. Or, as `clean`, a `PairSet`
            or what its `aligned` gives: each pair is then measured by its own answers.
        component: A point ("resid_post", "z", …), "attn", "mlp", "attn_head" (by head), or a
            module path inside the block, such as "mlp.gate_proj". If it is left out, the function
            patches "resid_post" and the method ``model.activation_patching`` "mlp".
        layers: Layers to patch; None for all that have the component.
        metric: Name of a metric, or a function (patched, clean, corrupted) → number, which gets
            logits (1, S, V) of every position up to `position`.
        plot: Draw the result.
        figsize, cmap: Of the drawing.
        positions: Token positions to patch; None for all.
        metric_kwargs: The metric's keywords; tokens may be text, such as ``" Paris"``. Those of
            other metrics are left out where `metric` is a name.
        verbose: Say what the run takes, and show its progress.
        by: "layer", "position", "head", "neuron", "feature" or "head_position": what is patched
            one at a time in each layer. "auto" is "head" for "attn_head" and "layer" otherwise.
        source: What is put in: "clean", or an ablation: "zero", "mean" (over `reference`), or
            "resample" (another prompt of `reference`, of equal length).
        reference: Prompts for "mean" and "resample".
        position: Position whose logits are measured.
        exact: "batched", or "naive" for one full forward pass per place, to check.
        dictionary, features: With by="feature": an object with `encode` and `decode` (a sparse
            autoencoder of the component), and which of its features; None for all. Where the
            dictionary is attached to the model, component="features" and no `dictionary`.
        budget: Bytes that the activations of one pass may take.
        seed: For which prompt is resampled, and for the intervals.
        normalize: Over several pairs: "mean" divides the mean change by the mean gap; "pair"
            divides each pair's change by its own gap, and then averages, so that pairs with
            small gaps count most.
        unequal: "refuse" prompts of different length, or "trim" the beginning of the longer one,
            so that the last tokens stand at the same positions.
        clean_text, corrupted_text: Other spellings of clean and corrupted.

    Raises:
        InputError: for prompts that do not pair, an empty list of layers or positions, or a
            metric without its keywords: all before the first patched run.
        AnalysisError: if the metric does not tell the clean from the corrupted run.
        AddressError: for a component that the model does not have.
    """
    first = _given(clean, clean_text, "clean")
    _check(source, exact, budget)
    check_normalize(normalize)
    if isinstance(first, (PairSet, AlignedPairs)):
        if corrupted is not None or corrupted_text is not None:
            raise InputError("the pairs hold their corrupted prompts: leave corrupted out.")
        pairs, options = _paired(model, first, metric, metric_kwargs, unequal)
    else:
        pairs = _pairs(model, first, _given(corrupted, corrupted_text, "corrupted"), unequal)
        options = [metric_kwargs] * len(pairs)
    if by == "auto":
        by = "head" if component == "attn_head" else "layer"
    grids = [
        make_grid(
            model,
            batches[1],
            component,
            by=by,
            layers=layers,
            positions=positions,
            dictionary=dictionary,
            features=features,
        )
        for batches in pairs
    ]
    if len({grid.shape for grid in grids}) > 1:
        raise InputError("the pairs differ in length, so their positions do not correspond.")
    several = len(pairs) > 1
    measures = [
        measure_of(model, batches, metric, keywords, position, raw=several)
        for batches, keywords in zip(pairs, options, strict=True)
    ]
    check_gaps(measures, normalize)
    warned = gap_warnings(measures, normalize)
    effects = []
    for batches, grid, measure in zip(
        tqdm(pairs, disable=not verbose or not several), grids, measures, strict=True
    ):
        read = read_positions(metric, batches[1], position)
        sweep = Sweep(model, batches[1], positions=read, budget=budget, dictionary=dictionary)
        values = source_values(model, sweep, grid, batches[0], source, reference, seed)
        if verbose and not several:
            tqdm.write(str(sweep.plan(grid.cells)))
        numbers = sweep.effects(
            grid.cells,
            values,
            measure.rows,
            naive=exact == "naive",
            progress="patching" if verbose and not several else None,
        )
        effects.append(grid.array(numbers))
    found, interval, ends = _over_pairs(effects, measures, normalize, seed)
    result = PatchingResult(
        found,
        grids[0].layers,
        component,
        metric if isinstance(metric, str) else measures[0].name,
        clean_score=ends[0],
        corrupted_score=ends[1],
        by=by,
        interval=interval,
        pairs=len(pairs),
        columns=grids[0].columns,
        tokens=None if several else _tokens(model, pairs[0], by),
        warnings=warned,
    )
    if plot:
        result.plot(backend="matplotlib", figsize=figsize, cmap=cmap).show()
    return result


def _tokens(
    model: InterpretableModel, batches: tuple[Batch, Batch], by: str
) -> list[tuple[str, str]] | None:
    """Both prompts' tokens at each position, where positions are told apart."""
    clean, corrupted = (batch.rows()[0] for batch in batches)
    if "position" not in by or len(clean) != len(corrupted):
        return None
    texts = (token_texts(model, ids) for ids in (clean, corrupted))
    return list(zip(*texts, strict=True))


def _given(value: Any, other: Any, name: str) -> Any:
    if value is None and other is None:
        raise InputError(f"{name} is missing.")
    if value is not None and other is not None:
        raise InputError(f"{name} and {name}_text are the same argument: give one of them.")
    return other if value is None else value


def _check(source: str, exact: str, budget: int) -> None:
    if budget < 1:
        raise InputError(f"the budget is a number of bytes, at least 1; got {budget}.")
    if source not in SOURCES:
        raise InputError(f"source is one of {', '.join(SOURCES)}; got {source!r}.")
    if exact not in EXACT:
        raise InputError(f"exact is one of {', '.join(EXACT)}; got {exact!r}.")


def _paired(
    model: InterpretableModel,
    given: PairSet | AlignedPairs,
    metric: MetricLike,
    metric_kwargs: Mapping[str, Any] | None,
    unequal: UnequalPair,
) -> tuple[list[tuple[Batch, Batch]], list[Mapping[str, Any] | None]]:
    """Prompts, and the metric's keywords for each: the pair's answers, and those given."""
    aligned = given.aligned(model, unequal=unequal) if isinstance(given, PairSet) else given
    prompts = [pair(model, each.clean, each.corrupted) for each in aligned]
    return prompts, [{**each.keywords_for(metric), **(metric_kwargs or {})} for each in aligned]


def _pairs(
    model: InterpretableModel, clean: Any, corrupted: Any, unequal: UnequalPair
) -> list[tuple[Batch, Batch]]:
    first, second = model.tokens.batch(clean), model.tokens.batch(corrupted)
    if len(first.lengths) != len(second.lengths):
        raise InputError(
            f"{len(first.lengths)} clean and {len(second.lengths)} corrupted prompts: "
            "give as many of each."
        )
    rows = zip(first.rows(), second.rows(), strict=True)
    return [pair(model, one, other, unequal) for one, other in rows]


def _over_pairs(
    effects: list[mx.array], measures: list[Measure], normalize: Normalize, seed: int
) -> tuple[mx.array, mx.array | None, tuple[float, float]]:
    """Effects over all pairs, their interval, and what clean and corrupted are on that scale.

    The interval is that of the share, with each pair drawn together with its own gap: that the
    pairs' two ends differ says nothing about a place.
    """
    if len(measures) == 1:
        return effects[0], None, measures[0].ends
    changes = [effect - m.ends[1] for effect, m in zip(effects, measures, strict=True)]
    gaps = [measure.gap for measure in measures]
    if normalize == "pair":
        shares = [change / gap for change, gap in zip(changes, gaps, strict=True)]
        return *mean_and_interval(shares, seed), (1.0, 0.0)
    share, interval = mean_and_interval(changes, seed, gaps=gaps)
    if all(measure.is_share for measure in measures):
        return share, interval, (1.0, 0.0)
    clean = statistics.fmean(measure.ends[0] for measure in measures)
    corrupted = statistics.fmean(measure.ends[1] for measure in measures)
    effect = corrupted + share * (clean - corrupted)
    if interval is not None:
        interval = mx.sort(corrupted + interval * (clean - corrupted), axis=0)
    return effect, interval, (clean, corrupted)


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Activation patching."""
    return [activation_patching]
