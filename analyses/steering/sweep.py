"""The steering sweep: what a vector does at each layer and strength, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import mlx.core as mx
from tqdm import tqdm

from mlxray import Analysis, InterpretableModel, Metric, analysis, hookimpl
from mlxray.arrays import number
from mlxray.errors import AnalysisError, InputError
from mlxray.points.vocabulary import ALIASES, parse

from ..datasets.targets import Token
from ..metrics.lookup import get_metric
from ..patching.gaps import Normalize, check_normalize
from ..patching.sweep import DEFAULT_BUDGET
from ..prompts import token_texts
from .build import steering_vector
from .contrast import Layers, rows_of
from .neutral import Neutral, neutral_batch
from .result import SteeringSweepResult
from .score import LOG_ODDS, MetricScore, Score, Scores, by_function, by_metric, log_odds
from .vector import SteeringVector, finite

STRENGTHS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0)


@analysis(result=SteeringSweepResult)
def steering_sweep(
    model: InterpretableModel,
    prompt: Any,
    *,
    target: Token | None = None,
    other: Token | None = None,
    positive: Sequence[str | Sequence[int]] | None = None,
    negative: Sequence[str | Sequence[int]] | None = None,
    vector: SteeringVector | str | Path | None = None,
    layers: int | Sequence[int] | None = None,
    strengths: float | Sequence[float] = STRENGTHS,
    norm_scaled: bool = True,
    point: str = "resid_post",
    position: str | int = "last",
    method: str = "mean_difference",
    score: str | Metric | Callable[[mx.array], Any] = LOG_ODDS,
    score_kwargs: Mapping[str, Any] | None = None,
    goal: Any = None,
    neutral: Sequence[str | Sequence[int]] | None = None,
    max_cost: float = 1.1,
    normalize: Normalize = "mean",
    verbose: bool = False,
    budget: int = DEFAULT_BUDGET,
) -> SteeringSweepResult:
    """Steer at each layer with each strength: what it does to a prompt, and what it costs.

    The vector is added at every token. The score is read at the prompt's last one, and the cost
    is the perplexity of neutral text under the same steering over that of the unsteered model.

    Args:
        model: The model.
        prompt: One prompt or several, chats included; scores are means over them.
        target: The token that should become likely, as an id or as text such as " Rome".
        other: The token that it is compared with; all others together if left out.
        positive, negative: Prompts that the vector is made from, as for `steering_vector`.
        vector: A steering vector, or its file, in place of them.
        layers: Where to steer, one layer at a time; None for all that the vector has.
        strengths: How much; negative goes the other way.
        norm_scaled: Whether strengths count in mean norms of the activation (see
            `SteeringVector.norms`); otherwise in lengths of the vector.
        point, position, method: How the vector is made; see `steering_vector`.
        score: "log_odds" of the target in nats, the name of a registered metric, or a function
            from logits (V,) to a number; the highest is the best.
        score_kwargs: The metric's keywords.
        goal: For a metric: the prompt that the steered model should answer like; its run counts
            as clean, the unsteered one as corrupted.
        neutral: Texts that steering should not touch, of two tokens at least; None for stories
            that the embedded model knows.
        max_cost: The best cell costs at most this.
        normalize: Of several prompts and a metric that is a share of the gap between goal and
            unsteered run: "mean" divides the mean change by the mean gap; "pair" takes the mean
            of the prompts' own shares, in which those with small gaps count most.
        verbose: Show progress.
        budget: Bytes that the logits of one pass may take.

    Raises:
        InputError: for an empty list, strengths or tokens that cannot be, neither prompts nor a
            vector, or an option that would not be used: before any steered run.
        AddressError: for a layer or point that the model or the vector does not have.
        LoadError: if the vector's file cannot be read.
        AnalysisError: if there is no direction between the prompts, no cell gives finite numbers,
            or the unsteered model does not.
    """
    powers = _strengths(strengths)
    check_normalize(normalize)
    if isinstance(max_cost, bool) or not (isinstance(max_cost, Real) and max_cost > 0):
        raise InputError(f"max_cost is a positive number; got {max_cost!r}.")
    _check_used(score, target=target, other=other, goal=goal, score_kwargs=score_kwargs)
    batch = model.tokens.batch(rows_of(model, prompt, "prompt"))
    texts = neutral_batch(model, neutral)
    judge = log_odds(model, target, other) if score == LOG_ODDS else None
    made = _vector(model, vector, positive, negative, point, layers, position, method)
    places = _places(made, model, layers)
    prompts = Scores(model, batch, list(places), budget)
    judge = judge or _judge(model, score, score_kwargs, goal, prompts.plain, normalize)
    stories = Neutral(model, texts, list(places), budget)
    base_score = prompts.base(judge)
    scores, costs, answers = [], [], []
    title = f"steering {len(places)} layers × {len(powers)} strengths"
    for layer, address in tqdm(places.items(), desc=title, disable=not verbose, unit="layer"):
        shifts = mx.stack([made.shift(address, s, norm_scaled=norm_scaled) for s in powers])
        values, tops = prompts.scores(address, layer, shifts, judge)
        scores.append(values)
        costs.append(stories.costs(address, layer, shifts))
        answers.append(
            [
                token_texts(model, [top])[0] if math.isfinite(value) else ""
                for top, value in zip(tops, values, strict=True)
            ]
        )
    if not any(math.isfinite(value) for row in scores for value in row):
        raise AnalysisError(
            f"steering is too strong: no strength from {min(powers):g} to {max(powers):g} leaves "
            f"finite logits at layers {list(places)}. Try weaker ones."
        )
    return SteeringSweepResult(
        mx.array(scores),
        mx.array(costs),
        list(places),
        powers,
        "".join(next(iter(places.values())).split(".", 2)[2:]) or "resid_post",
        score if isinstance(score, str) else _name(score),
        base_score=base_score,
        base_perplexity=stories.base,
        base_answer=token_texts(model, [int(number(mx.argmax(prompts.plain[0])))])[0],
        answers=answers,
        max_cost=float(max_cost),
        norm_scaled=norm_scaled,
        warnings=judge.warnings if isinstance(judge, MetricScore) else [],
    )


def _strengths(strengths: float | Sequence[float]) -> list[float]:
    """Strengths as distinct finite numbers."""
    if isinstance(strengths, str) or not isinstance(strengths, (Real, Iterable)):
        raise InputError(f"strengths is a list of numbers, such as [0.5]; got {strengths!r}.")
    several = [strengths] if isinstance(strengths, Real) else strengths
    powers = [finite(each) for each in several]
    if not powers:
        raise InputError("the list of strengths is empty.")
    if len(set(powers)) < len(powers):
        raise InputError(f"a strength is given twice: {powers}.")
    return powers


def _vector(
    model: InterpretableModel,
    vector: SteeringVector | str | Path | None,
    positive: Any,
    negative: Any,
    point: str,
    layers: Layers,
    position: str | int,
    method: str,
) -> SteeringVector:
    if (vector is None) == (positive is None and negative is None):
        raise InputError("give positive and negative prompts, or a vector: one of the two.")
    if vector is None:
        return steering_vector(
            model, positive, negative, layers=layers, point=point, position=position, method=method
        )
    if isinstance(vector, SteeringVector):
        vector.check(model)
    elif isinstance(vector, (str, Path)):
        vector = SteeringVector.load(vector, model)
    else:
        kind = type(vector).__name__
        raise InputError(f"vector is a SteeringVector or the path of its file; got {kind}.")
    made_at = {address.split(".", 2)[-1] for address in vector.vectors}
    for name, given, usual, own in (
        ("point", ALIASES.get(point, point), "resid_post", made_at),
        ("position", position, "last", {vector.position}),
        ("method", method, "mean_difference", {vector.method}),
    ):
        if given != usual and given not in own:
            raise InputError(
                f"{name}={given!r} is for making a vector from prompts, and the one given has "
                f"{', '.join(map(repr, own))}: leave it out."
            )
    return vector


def _places(vector: SteeringVector, model: InterpretableModel, layers: Layers) -> dict[int, str]:
    """The one address at each layer."""
    several = [layers] if isinstance(layers, int) else layers
    wanted = None if several is None else model.layer_indices(several)
    found: dict[int, str] = {}
    for address in vector.addresses(wanted):
        layer = parse(address).layer
        if layer is None or layer in found:
            raise InputError(
                f"a sweep steers one layer at a time, and {address!r} "
                + ("belongs to no layer." if layer is None else f"is not alone at layer {layer}.")
            )
        found[layer] = address
    return found


def _check_used(score: Any, **given: Any) -> None:
    """Raise InputError for what is given and the score would not look at.

    Raises:
        PluginError: if the score is the name of no metric.
    """
    if isinstance(score, (str, Metric)):
        if score != LOG_ODDS:
            get_metric(score)
        unused = ["goal", "score_kwargs"] if score == LOG_ODDS else ["target", "other"]
    else:
        unused = list(given)
    named = [f"{name}=" for name in unused if given[name] is not None]
    if named:
        shown = score if isinstance(score, str) else _name(score)
        raise InputError(f"the score {shown!r} does not use {', '.join(named)}: leave it out.")


def _judge(
    model: InterpretableModel,
    score: Any,
    options: Mapping[str, Any] | None,
    goal: Any,
    plain: Sequence[mx.array],
    normalize: Normalize,
) -> Score:
    if isinstance(score, (str, Metric)):
        return by_metric(model, score, options, goal, plain, normalize)
    if not callable(score):
        raise InputError(
            f"a score is {LOG_ODDS!r}, the name of a metric or a function of logits; "
            f"got {type(score).__name__}."
        )
    return by_function(score, _name(score))


def _name(score: Any) -> str:
    return str(getattr(score, "name", getattr(score, "__name__", "score")))


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """The steering sweep."""
    return [steering_sweep]
