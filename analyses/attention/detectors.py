"""Finding heads of a known kind by their attention patterns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx

from mlxray import Analysis, InterpretableModel, analysis, hookimpl
from mlxray.errors import AnalysisError, InputError

from ..prompts import one_prompt, token_texts
from .heads_result import DetectedHeadsResult, HeadTypesResult
from .patterns import attention_layers, reduce_patterns
from .repeated import repeated_random_tokens
from .scores import (
    current_token_score,
    first_token_score,
    induction_score,
    pattern_scores,
    previous_token_score,
)


@dataclass(frozen=True)
class AttentionPatternDetector:
    """Names what a head does by its attention pattern.

    Attributes:
        induction_threshold, previous_token_threshold, first_token_threshold,
            current_token_threshold: A head is of a type if its score is above the threshold.
    """

    induction_threshold: float = 0.4
    previous_token_threshold: float = 0.5
    first_token_threshold: float = 0.3
    current_token_threshold: float = 0.3

    def analyze_head(
        self, attention_pattern: Any, seq_len_for_induction: int | None = None
    ) -> dict[str, float]:
        """Every score of one head.

        Args:
            attention_pattern: (queries, keys) attention probabilities, numpy or mlx.
            seq_len_for_induction: Length of the block that the prompt repeats; None leaves
                ``"induction"`` out.

        Raises:
            InputError: if the pattern is no matrix or too small.
        """
        scores = {
            "previous_token": previous_token_score(attention_pattern),
            "first_token": first_token_score(attention_pattern),
            "current_token": current_token_score(attention_pattern),
        }
        if seq_len_for_induction is not None:
            scores["induction"] = induction_score(attention_pattern, seq_len_for_induction)
        return scores

    def classify_head(
        self, attention_pattern: Any, seq_len_for_induction: int | None = None
    ) -> list[str]:
        """The types whose score is above their threshold; see `analyze_head`."""
        scores = self.analyze_head(attention_pattern, seq_len_for_induction)
        return [name for name, score in scores.items() if score > self.threshold(name)]

    def threshold(self, name: str) -> float:
        """The threshold of a type."""
        limit: float = getattr(self, f"{name}_threshold")
        return limit


def check_threshold(threshold: Any) -> None:
    """Raise InputError unless scores can be compared with it: above NaN is nothing."""
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
        raise InputError(f"threshold is a number; got {threshold!r}.")
    if math.isnan(threshold):
        raise InputError("threshold is not a number: no score is above it or below.")


@analysis(result=HeadTypesResult)
def detect_head_types(
    model: InterpretableModel,
    text: Any,
    threshold: float = 0.4,
    layers: Sequence[int] | None = None,
) -> HeadTypesResult:
    """Which heads look at the previous token, the first token or the token itself.

    Args:
        model: The model.
        text: One prompt of at least two tokens: text or token ids.
        threshold: A head is of a type if its score is above it.
        layers: Layers to look at; None for all that have attention.

    Returns:
        A mapping: ``result["previous_token"]`` lists (layer, head), strongest first; so do
        ``"first_token"`` and ``"current_token"``.

    Raises:
        InputError: for several prompts, one token alone, or a threshold that is no number.
        PointAbsent: if a layer has no attention that can be seen.
    """
    check_threshold(threshold)
    batch, tokens = one_prompt(model, text)
    if len(tokens) < 2:
        raise InputError("attention of a single token says nothing: give at least two tokens.")
    wanted = attention_layers(model, layers)
    found = reduce_patterns(model, batch, wanted, lambda p: pattern_scores(p[0]))
    return HeadTypesResult(wanted, matrices(found), tokens, threshold)


@analysis(result=DetectedHeadsResult)
def detect_induction_heads(
    model: InterpretableModel,
    n_random_tokens: int = 50,
    n_repeats: int = 2,
    threshold: float = 0.4,
    layers: Sequence[int] | None = None,
    seed: int = 42,
) -> DetectedHeadsResult:
    """Which heads complete repeated sequences, found with random tokens (Olsson et al. 2022).

    Args:
        model: The model.
        n_random_tokens: Tokens of the block that is repeated.
        n_repeats: How often it comes.
        threshold: A head is listed if its `induction_score` is above it.
        layers: Layers to look at; None for all that have attention.
        seed: Of the random tokens.

    Returns:
        A list of `HeadScore`, best first; every head's score is in ``.scores["induction"]``.

    Raises:
        InputError: if the prompt does not fit the model; the message says what would.
        PointAbsent: if a layer has no attention that can be seen.
    """
    check_threshold(threshold)
    prompt = repeated_random_tokens(model, n_random_tokens, n_repeats, seed)
    wanted = attention_layers(model, layers)
    start = prompt.start
    found = reduce_patterns(
        model,
        model.tokens.batch(prompt.ids),
        wanted,
        lambda p: {
            "induction": pattern_scores(p[0, :, start:, start:], prompt.period)["induction"]
        },
    )
    tokens = token_texts(model, prompt.ids)
    return DetectedHeadsResult(wanted, matrices(found), tokens, "induction", threshold)


def matrices(found: dict[int, dict[str, mx.array]]) -> dict[str, mx.array]:
    """Layer → name → (H,) turned into name → (layers, H).

    Raises:
        AnalysisError: if layers differ in their number of heads, or a score is NaN.
    """
    rows = list(found.values())
    counts = {layer: next(iter(scores.values())).shape[0] for layer, scores in found.items()}
    if len(set(counts.values())) > 1:
        raise AnalysisError(
            f"the layers differ in their number of heads ({counts}); choose some with layers=[…]."
        )
    stacked = {name: mx.stack([scores[name] for scores in rows]) for name in rows[0]}
    if any(bool(mx.any(mx.isnan(scores)).item()) for scores in stacked.values()):
        raise AnalysisError("the attention patterns hold NaN.")
    return stacked


@hookimpl
def mlxray_analyses() -> list[Analysis[..., Any]]:
    """Detectors of head types."""
    return [detect_head_types, detect_induction_heads]
