"""Activation patching: which places carry what makes one prompt's behaviour another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
from tqdm import tqdm

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.arrays import nested
from mlxray.errors import AnalysisError, InputError
from mlxray.tokens import Batch

from ..datasets.pairs import AlignedPairs, PairSet
from ..datasets.prompts import UnequalPair, pair
from ..patching.grid import make_grid
from ..patching.intervals import mean_and_interval
from ..patching.measure import Measure, MetricLike, bind, last_logits
from ..patching.patches import Dictionary
from ..patching.sources import SOURCES, source_values
from ..patching.sweep import DEFAULT_BUDGET, Sweep
from .patching_result import PatchingResult

EXACT = ("batched", "naive")


@analysis(result=PatchingResult)
def activation_patching(
    model: InterpretableModel,
    clean: Any = None,
    corrupted: Any = None,
    component: str = "mlp",
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
    unequal: UnequalPair = "refuse",
    clean_text: Any = None,
    corrupted_text: Any = None,
) -> PatchingResult:
    """Patch activations of the clean run into the corrupted one, place by place.

    The effect of a place is the metric of the corrupted run with that place patched (Vig et al.
    2020; Meng et al. 2022): with the default metric 1 where the clean logits are back, 0 where
    nothing changed. As a mapping the result gives layer → percent.

    Args:
        model: The model.
        clean, corrupted: Prompts of equal length, or two lists of prompts, paired; effects are
            then means over the pairs, with 95 % bootstrap intervals. Or, as `clean`, a `PairSet`
            or what its `aligned` gives: each pair is then measured by its own answers.
        component: A point ("resid_post", "z", …), "attn", "mlp", "attn_head" (by head), or a
            module path inside the block, such as "mlp.gate_proj".
        layers: Layers to patch; None for all that have the component.
        metric: Name of a metric, or a function (patched, clean, corrupted) → number.
        plot: Draw the result.
        figsize, cmap: Of the drawing.
        positions: Token positions to patch; None for all.
        metric_kwargs: The metric's keywords; tokens may be text, such as ``" Paris"``.
        verbose: Say what the run takes, and show its progress.
        by: "layer", "position", "head", "neuron", "feature" or "head_position": what is patched
            one at a time in each layer. "auto" is "head" for "attn_head" and "layer" otherwise.
        source: What is put in: "clean", or an ablation: "zero", "mean" (over `reference`), or
            "resample" (another prompt of `reference`, of equal length).
        reference: Prompts for "mean" and "resample".
        position: Position whose logits are measured.
        exact: "batched", or "naive" for one full forward pass per place, to check.
        dictionary, features: With by="feature": an object with `encode` and `decode` (a sparse
            autoencoder of the component), and which of its features; None for all.
        budget: Bytes that the activations of one pass may take.
        seed: For which prompt is resampled, and for the intervals.
        unequal: "refuse" prompts of different length, or "trim" the beginning of the longer one,
            so that the last tokens stand at the same positions.
        clean_text, corrupted_text: Other spellings of clean and corrupted.

    Raises:
        InputError: for prompts that do not pair, an empty list of layers or positions, or a
            metric without its keywords: all before the first patched run.
        AddressError: for a component that the model does not have.
    """
    first = _given(clean, clean_text, "clean")
    _check(source, exact, budget)
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
    measures, ends = [], []
    for batches, keywords in zip(pairs, options, strict=True):
        logits = [last_logits(model, batch, position) for batch in batches]
        _check_ends(logits, position)
        measures.append(bind(model, metric, logits[0], logits[1], keywords))
        ends.append(_ends(measures[-1], logits))
    effects = []
    for batches, grid, measure in zip(
        tqdm(pairs, disable=not verbose or len(pairs) == 1), grids, measures, strict=True
    ):
        sweep = Sweep(model, batches[1], positions=[position], budget=budget, dictionary=dictionary)
        values = source_values(model, sweep, grid, batches[0], source, reference, seed)
        if verbose and len(pairs) == 1:
            tqdm.write(str(sweep.plan(grid.cells)))
        numbers = sweep.effects(
            grid.cells,
            values,
            measure.rows,
            naive=exact == "naive",
            progress="patching" if verbose and len(pairs) == 1 else None,
        )
        effects.append(grid.array(numbers))
    mean, _ = mean_and_interval(effects, seed)
    scores = [sum(column) / len(ends) for column in zip(*ends, strict=True)]
    interval = _interval(effects, ends, scores, seed)
    result = PatchingResult(
        mean,
        grids[0].layers,
        component,
        metric if isinstance(metric, str) else measures[0].name,
        clean_score=scores[0],
        corrupted_score=scores[1],
        by=by,
        interval=interval,
        pairs=len(pairs),
    )
    if plot:
        result.plot(backend="matplotlib", figsize=figsize, cmap=cmap).show()
    return result


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


def _interval(
    effects: list[mx.array], ends: list[tuple[float, float]], scores: list[float], seed: int
) -> mx.array | None:
    """Interval of the mean effect, with pairs drawn together with their own two ends.

    That the pairs' ends differ says nothing about a place, so it is the interval of the share
    that is brought back, on the scale of the effects.
    """
    spans = [clean - corrupted for clean, corrupted in ends]
    shares = [
        (effect - corrupted) / span
        for effect, (_, corrupted), span in zip(effects, ends, spans, strict=True)
    ]
    _, interval = mean_and_interval(shares, seed, weights=spans)
    if interval is None:
        return None
    return mx.sort(scores[1] + interval * (scores[0] - scores[1]), axis=0)


def _check_ends(logits: list[mx.array], position: int) -> None:
    if mx.array_equal(logits[0], logits[1]).item():
        raise AnalysisError(
            f"both prompts give the same logits at position {position}: nothing to bring back."
        )


def _ends(measure: Measure, logits: list[mx.array]) -> tuple[float, float]:
    """The metric of the clean and of the corrupted run.

    Raises:
        AnalysisError: if they are alike, so that there is nothing to bring back.
    """
    clean, corrupted = nested(measure.rows(mx.stack(logits)))
    if clean == corrupted:
        raise AnalysisError(
            f"metric {measure.name!r} finds both runs alike ({clean:g}): nothing to bring back."
        )
    return clean, corrupted


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Activation patching."""
    return [activation_patching]
