"""Induction heads: their scores on repeated random tokens, and the loss without them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal, get_args

import mlx.core as mx

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.checks.arguments import count
from mlxray.errors import AnalysisError, InputError, PointAbsent

from ...attention.copying import copying_matrix
from ...attention.detectors import check_threshold, matrices
from ...attention.patterns import attention_layers, reduce_patterns
from ...attention.repeated import ordinary_tokens, repeated_random_tokens
from ...attention.scores import pattern_scores
from ...prompts import token_texts
from .ablation import Head, ablated_losses, other_heads
from .result import MATCHING, InductionResult

#: Samples, and draws of other heads: more would run for days and tell nothing new.
MOST = 10_000

How = Literal["zero", "mean", "resample"]


@analysis(result=InductionResult)
def induction_heads(
    model: InterpretableModel,
    *,
    n_random_tokens: int | None = None,
    n_repeats: int = 2,
    samples: int = 4,
    seed: int = 0,
    tokens: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    threshold: float = 0.4,
    top_k: int | None = None,
    ablation: Sequence[How] = ("zero", "mean", "resample"),
    draws: int = 10,
    copying: bool = True,
    verbose: bool = False,
) -> InductionResult:
    """Which heads complete repeated sequences, and what that is worth (Olsson et al. 2022).

    A block of random tokens comes several times; only what came before tells the later copies.
    Every head is scored by its attention: from a token of a later copy to those *behind* its
    earlier occurrences, together (prefix matching), and by whether it raises what it attends to
    (copying). Then the best heads are switched off at ``z``, at all positions, and the loss on
    the later copies is compared with the model's own and with that of as many other heads.

    Args:
        model: The model.
        n_random_tokens: Tokens of the block; None for 50, or fewer where the model's context has
            no room for them.
        n_repeats: How often it comes.
        samples: Blocks drawn; scores and losses are means over them.
        seed: Of the blocks and of the other heads. Nothing else is random.
        tokens: Ids to draw from; None for the whole vocabulary but special tokens.
        layers: Layers to look at; None for all that have attention.
        threshold: A head is an induction head if its prefix-matching score is above it.
        top_k: How many of the best heads are switched off; None for those above `threshold`,
            at most half of all.
        ablation: What takes the place of a head's ``z``: zeros, its mean over all samples and
            positions, or that of another sample.
        draws: How often as many other heads are drawn.
        copying: Also score the heads' OV circuits; see `copying_scores`.
        verbose: Show progress.

    Returns:
        Scores ``"prefix_matching"`` (the ``"induction"`` of `head_scores`), ``"previous_token"``
        and ``"copying"``, each (layers, heads), and losses by token.

    Raises:
        InputError: if a number is too small, an id is outside the vocabulary, the prompt does not
            fit the model, or no other heads are left to compare with.
        AnalysisError: if heads have no OV circuit (``copying=False`` leaves it out), or a score
            or loss is not a number.
        PointAbsent: if a layer has no attention that can be seen.
    """
    samples, draws = count(samples, "samples", most=MOST), count(draws, "draws", most=MOST)
    ways = _ways(ablation, samples)
    check_threshold(threshold)
    candidates = _candidates(model, tokens)
    prompts = [
        repeated_random_tokens(model, n_random_tokens, n_repeats, (seed, sample), candidates)
        for sample in range(samples)
    ]
    batch = model.tokens.batch([prompt.ids for prompt in prompts])
    wanted = attention_layers(model, layers)
    start = prompts[0].start
    scores = matrices(
        reduce_patterns(
            model, batch, wanted, lambda p: _scores(p[..., start:, start:], prompts[0].period)
        )
    )
    if copying:
        scores["copying"] = _copying(model, wanted)
    result = InductionResult(
        layers=wanted,
        scores=scores,
        tokens=token_texts(model, prompts[0].ids),
        prompts=[prompt.ids for prompt in prompts],
        threshold=threshold,
        start=start,
        period=prompts[0].period,
        candidates=len(set(candidates)),
        losses=mx.zeros((samples, batch.ids.shape[1] - 1)),
        ablated=[],
        draws=[],
        ablations={},
    )
    best = _best(result, top_k)
    others = other_heads(result, best, draws, seed) if best else []
    result.losses, result.ablations = ablated_losses(
        model, batch, best, others, ways if best else [], verbose=verbose
    )
    result.ablated, result.draws = best, others
    return result


def _scores(patterns: mx.array, period: int) -> dict[str, mx.array]:
    """Scores of each head, (H,), from (B, H, S, S)."""
    found = pattern_scores(patterns, period)
    return {
        MATCHING: mx.mean(found["induction"], axis=0),
        "previous_token": mx.mean(found["previous_token"], axis=0),
    }


def _copying(model: InterpretableModel, layers: Sequence[int]) -> mx.array:
    try:
        return copying_matrix(model, layers)
    except (AnalysisError, PointAbsent) as error:
        raise AnalysisError(f"{error} copying=False leaves the copying score out.") from error


def _ways(ablation: Sequence[str], samples: int) -> list[str]:
    known = get_args(How)
    ways = [ablation] if isinstance(ablation, str) else list(dict.fromkeys(ablation))
    for way in ways:
        if way not in known:
            raise InputError(f"a head is switched off by {', '.join(known)}; got {way!r}.")
    if "resample" in ways and samples < 2:
        raise InputError("'resample' takes from another sample: draw samples=2 or more.")
    return ways


def _candidates(model: InterpretableModel, tokens: Sequence[int] | None) -> list[int]:
    if tokens is None:
        return ordinary_tokens(model)
    (ids,) = model.tokens.batch(list(tokens)).rows()
    if len(set(ids)) < 2:
        raise InputError("tokens needs at least two different ids to draw from.")
    return list(dict.fromkeys(ids))


def _best(result: InductionResult, top_k: int | None) -> list[Head]:
    if top_k is not None and top_k < 1:
        raise InputError(f"top_k={top_k}: switch off at least one head.")
    ranked = result.heads(MATCHING)
    chosen = result.induction_heads if top_k is None else ranked[:top_k]
    if top_k is None and 2 * len(chosen) > len(ranked):
        warnings.warn(
            f"{len(chosen)} of {len(ranked)} heads are above the threshold; only the best "
            f"{len(ranked) // 2} are switched off, since as many others are compared with.",
            stacklevel=4,
        )
        chosen = chosen[: len(ranked) // 2]
    if 2 * len(chosen) > len(ranked):
        raise InputError(
            f"{len(chosen)} of {len(ranked)} heads would be switched off, and as many others are "
            f"needed to compare with: pass top_k={len(ranked) // 2} or fewer."
        )
    return [(head.layer, head.head) for head in chosen]


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """The experiment with induction heads."""
    return [induction_heads]
