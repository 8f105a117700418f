"""Every behaviour's score of every head, in one result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.errors import InputError

from ..prompts import one_prompt, token_texts
from .copying import copying_matrix
from .detectors import matrices
from .heads_result import HeadScoresResult
from .patterns import attention_layers, reduce_patterns
from .repeated import repeated_random_tokens
from .scores import pattern_scores


@analysis(result=HeadScoresResult)
def head_scores(
    model: InterpretableModel,
    text: Any = None,
    layers: Sequence[int] | None = None,
    n_random_tokens: int = 50,
    n_repeats: int = 2,
    seed: int = 42,
    copying: bool = True,
) -> HeadScoresResult:
    """How strongly each head looks back, at the first token or itself, completes, and copies.

    Args:
        model: The model.
        text: Prompt for the previous-, first- and current-token scores; the random tokens that
            induction is measured on if left out.
        layers: Layers to look at; None for all that have attention.
        n_random_tokens, n_repeats, seed: Of the random tokens; see `detect_induction_heads`.
        copying: Also score the heads' OV circuits; see `copying_scores`.

    Returns:
        Matrices (layers, heads): ``"previous_token"``, ``"first_token"``, ``"current_token"``,
        ``"induction"`` (0 to 1) and ``"copying"`` (−1 to 1).

    Raises:
        InputError: if a prompt does not fit the model.
        AnalysisError: if heads have no OV circuit; ``copying=False`` leaves it out.
        PointAbsent: if a layer has no attention that can be seen.
    """
    wanted = attention_layers(model, layers)
    prompt = repeated_random_tokens(model, n_random_tokens, n_repeats, seed)
    start, tokens = prompt.start, token_texts(model, prompt.ids)
    scores = matrices(
        reduce_patterns(
            model,
            model.tokens.batch(prompt.ids),
            wanted,
            lambda p: (
                pattern_scores(p[0, :, start:, start:], prompt.period)
                | (pattern_scores(p[0]) if text is None else {})
            ),
        )
    )
    if text is not None:
        batch, tokens = one_prompt(model, text)
        if len(tokens) < 2:
            raise InputError("attention of a single token says nothing: give at least two tokens.")
        scores |= matrices(reduce_patterns(model, batch, wanted, lambda p: pattern_scores(p[0])))
    if copying:
        scores["copying"] = copying_matrix(model, wanted)
    return HeadScoresResult(wanted, scores, tokens)


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Scores of all heads."""
    return [head_scores]
