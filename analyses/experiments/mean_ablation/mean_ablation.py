"""Mean ablation: which places a prediction depends on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.errors import InputError
from mlxray.tokens import Batch

from ...patching.intervals import mean_and_interval
from ...patching.measure import MetricLike
from ...patching.sweep import DEFAULT_BUDGET
from ...prompts import token_texts
from .cells import AblatedCell, Ablation, one_prompt, reference_means
from .result import VARIES, AblationResult
from .settings import Component, Exact, Settings, Source


@analysis(result=AblationResult)
def mean_ablation(
    model: InterpretableModel,
    prompt: Any,
    *,
    component: Component = "resid_post",
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    reference: Sequence[str | Sequence[Any]] | None = None,
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
            unablated) → number of logits (1, S, V); the effect is its value before less that after.
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
    batch = model.tokens.batch(prompt)
    prompts = [one_prompt(model, ids) for ids in batch.rows()]
    places = [_places(batch, i, positions) for i in range(len(prompts))]
    if settings.by == "position" and len(set(batch.lengths)) > 1:
        raise InputError("the prompts differ in length, so their positions do not correspond.")
    means = reference_means(model, settings, prompts[0]) if settings.reference else None
    shown = sys.stderr.isatty() if progress is None else progress
    effects, runs = [], []
    with tqdm(disable=not shown, unit="cell", total=0) as bar:
        for index, one in enumerate(prompts):
            run = Ablation(model, one, settings, index=index, means=means)
            if not index:
                bar.total = len(run) * len(prompts)
            if shown:
                bar.set_description(f"ablating: {run.estimate()}")
            numbers = [0.0] * len(run)
            for cell in run:
                numbers[cell.number] = cell.effect
                bar.update()
                if callback is not None:
                    callback(cell)
            effects.append(run.grid.array(numbers))
            runs.append((run.base_score, run.target, run.tokens, run.grid.layers, run.measure.name))
            del run  # its activations, before the next one's
    mean, interval = mean_and_interval(effects, seed)
    scores, targets, tokens, rows, names = zip(*runs, strict=True)
    return AblationResult(
        mean,
        rows[0],
        settings.by,
        places[0],
        _common(tokens),
        component,
        source,
        names[0],
        list(scores),
        list(targets),
        token_texts(model, targets),
        interval,
        metadata={"model": model.name, "replaced_by": settings.replaced_by},
    )


def _places(batch: Batch, row: int, positions: Sequence[int] | None) -> list[int]:
    if positions is None:
        return list(range(batch.lengths[row]))
    return [batch.index(row, p) for p in positions]


def _common(prompts: Sequence[list[str]]) -> list[str]:
    """The token at each position; a sign where prompts differ, nothing where lengths do."""
    if len(set(map(len, prompts))) > 1:
        return []
    return [same[0] if len(set(same)) == 1 else VARIES for same in zip(*prompts, strict=True)]


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Mean ablation."""
    return [mean_ablation]
