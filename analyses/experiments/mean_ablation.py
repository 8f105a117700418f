"""Mean ablation: which places a prediction depends on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx
from tqdm import tqdm

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.errors import InputError
from mlxray.results import AblationResult
from mlxray.results.ablation import VARIES

from ..causal.intervals import mean_and_interval
from ..causal.measure import MetricLike
from ..causal.sweep import DEFAULT_BUDGET
from ..prompts import token_texts
from .mean_ablation_cells import AblatedCell, Ablation
from .mean_ablation_settings import Component, Exact, Settings, Source


@analysis(result=AblationResult)
def mean_ablation(
    model: InterpretableModel,
    prompt: Any,
    *,
    component: Component = "resid_post",
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    reference: Sequence[str] | None = None,
    source: Source = "mean",
    without_first: bool = False,
    metric: MetricLike | None = None,
    metric_kwargs: Mapping[str, Any] | None = None,
    exact: Exact = "fast",
    budget: int = DEFAULT_BUDGET,
    callback: Callable[[AblatedCell], Any] | None = None,
    progress: bool | None = None,
    seed: int = 0,
) -> AblationResult:
    """Replace each place by its mean over the prompt, and see what the prediction loses.

    The effect of a layer and position is the probability of the likeliest next token before,
    less that after the residual stream there is replaced by its mean over the prompt's positions
    (as in mlux; of ablations, mean ablation keeps the activation nearest to its usual size:
    Wang et al. 2022). Positive: the prediction needs it. The first position often has a huge
    norm and then makes most of the mean; `without_first` leaves it out.

    Args:
        model: The model.
        prompt: A text, or several of them: effects are then means, with 95 % bootstrap
            intervals.
        component: What is ablated: "resid_post", "resid_pre", "resid_mid", "mlp" or "attention"
            (what these return) by position, or "heads": each head's z at all positions at once.
        layers: Layers to ablate; None for all.
        positions: Positions to ablate one at a time (heads: all together); None for all.
        reference: Texts for source "dataset".
        source: What is put in: "mean" over the prompt's own positions, "zero", or "dataset", the
            mean over all positions of the reference.
        without_first: Leave each text's first position out of the mean.
        metric: Instead of the probability: name of a metric, or a function (ablated, unablated,
            unablated) → number; the effect is its value before less that after.
        metric_kwargs: The metric's keywords.
        exact: "fast", or "naive" for one full forward pass per place, to check.
        budget: Bytes that the activations of one pass may take.
        callback: Called with each cell as it is found.
        progress: Show a progress bar; None for one where a terminal is there to show it.
        seed: For the intervals.

    Raises:
        InputError: for a prompt, a name or a combination that cannot be used, before the first
            ablated run.
        PointAbsent: if the model does not have the component.
        AnalysisError: if logits are not finite numbers; the message names the place.
    """
    settings = Settings(
        component, layers, positions, reference, source, without_first,
        metric, metric_kwargs, exact, budget,
    )  # fmt: skip
    rows = model.tokens.batch(prompt).rows()
    runs = [Ablation(model, ids, settings, index=i) for i, ids in enumerate(rows)]
    if len({run.grid.shape for run in runs}) > 1:
        raise InputError("the prompts differ in length, so their positions do not correspond.")
    found = _run(runs, callback, sys.stderr.isatty() if progress is None else progress)
    effects, interval = mean_and_interval(found, seed)
    first = runs[0]
    ends = [run.batch.lengths[0] - 1 for run in runs]
    return AblationResult(
        effects,
        first.grid.layers,
        settings.by,
        _positions(first, positions, min(ends)),
        _tokens(runs),
        component,
        source,
        "probability" if metric is None else first.measure.name,
        [run.base_score for run in runs],
        [run.target for run in runs],
        token_texts(model, [run.target for run in runs]),
        interval,
        metadata={"model": model.name, "replaced_by": settings.replaced_by},
    )


def _run(
    runs: Sequence[Ablation], callback: Callable[[AblatedCell], Any] | None, progress: bool
) -> list[mx.array]:
    """The effects of each prompt, in the shape of the grid."""
    effects = []
    with tqdm(total=sum(map(len, runs)), disable=not progress, unit="cell") as bar:
        for run in runs:
            if progress:
                bar.set_description(f"ablating: {run.estimate()}")
            places = {_key(run, cell[0]): i for i, cell in enumerate(run.grid.cells)}
            numbers = [0.0] * len(run)
            for cell in run:
                numbers[places[_key(run, cell)]] = cell.effect
                bar.update()
                if callback is not None:
                    callback(cell)
            effects.append(run.grid.array(numbers))
    return effects


def _key(run: Ablation, place: Any) -> tuple[int, int | None, int | None]:
    position = place.position if run.settings.by == "position" else None
    return place.layer, position, place.head


def _positions(run: Ablation, asked: Sequence[int] | None, last: int) -> list[int]:
    if asked is not None:
        return [run.batch.index(0, p) for p in asked]
    return list(range(last + 1))


def _tokens(runs: Sequence[Ablation]) -> list[str]:
    if len({len(run.tokens) for run in runs}) > 1:
        return []
    columns = zip(*(run.tokens for run in runs), strict=True)
    return [same[0] if len(set(same)) == 1 else VARIES for same in columns]


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Mean ablation."""
    return [mean_ablation]
