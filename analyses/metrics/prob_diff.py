"""The probability of a set of right answers less that of wrong ones (Hanna et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import mlx.core as mx

from mlxray import Metric, hookimpl, metric
from mlxray.errors import InputError

from .common import Position, compared, value

#: Ids of some tokens, or one such collection for each row.
Tokens = Iterable[int] | Iterable[Iterable[int]]


@metric(aliases=("probability_difference",))
def prob_diff(
    patched_logits: mx.array,
    clean_logits: mx.array,
    corrupted_logits: mx.array,
    *,
    correct_tokens: Tokens,
    incorrect_tokens: Tokens,
    position: Position = -1,
    per_example: bool = False,
) -> float | mx.array:
    """Σ p(correct) − Σ p(incorrect) of the patched run's next token, from −1 to 1.

    For behaviours with many answers, such as greater-than: the probability of all years after
    the first less that of all years up to it. It is no share of the way from corrupted to clean;
    those two runs take no part.

    Args:
        patched_logits, clean_logits, corrupted_logits: Logits; see `mlxray.analyses.metrics`.
        correct_tokens, incorrect_tokens: Ids of the answers, or one list of ids for each row;
            an id that is given twice counts once.
        position: Token position(s).
        per_example: Give (B,) instead of the mean.

    Raises:
        AnalysisError: if something is NaN.
        InputError: if there are no ids, one is outside the vocabulary, or one is both correct
            and incorrect.
    """
    (patched, _, _) = compared(patched_logits, clean_logits, corrupted_logits, position=position)
    right = _signs(correct_tokens, incorrect_tokens, patched.shape[1])
    if right.shape[0] not in (1, patched.shape[0]) and patched.shape[0] != 1:
        raise InputError(f"{right.shape[0]} lists of tokens for {patched.shape[0]} rows.")
    difference = mx.sum(mx.softmax(patched, axis=-1) * right, axis=-1)
    return value(difference, name="prob_diff", per_example=per_example)


def _signs(correct: Tokens, incorrect: Tokens, vocabulary: int) -> mx.array:
    """(1 or B, V): 1 at correct tokens, −1 at incorrect ones."""
    import numpy as np

    sets = [
        _sets(correct, "correct_tokens", vocabulary),
        _sets(incorrect, "incorrect_tokens", vocabulary),
    ]
    counts = {len(rows) for rows in sets} - {1}
    if len(counts) > 1:
        raise InputError(f"{len(sets[0])} lists of correct_tokens, {len(sets[1])} of incorrect.")
    signs = np.zeros((max(counts, default=1), vocabulary), dtype=np.float32)
    for row in range(len(signs)):
        right, wrong = (rows[row if len(rows) > 1 else 0] for rows in sets)
        if both := right & wrong:
            raise InputError(f"tokens are both correct and incorrect: {sorted(both)}.")
        signs[row, sorted(right)] = 1
        signs[row, sorted(wrong)] = -1
    return mx.array(signs)


def _sets(given: Tokens, name: str, vocabulary: int) -> list[set[int]]:
    items: Any = _listed(given, name)
    rows = [items] if all(hasattr(i, "__index__") for i in items) else items
    found = []
    for row in rows:
        ids = _listed(row, name)
        if not ids:
            raise InputError(f"{name} is empty: give at least one token.")
        for each in ids:
            if isinstance(each, bool) or not hasattr(each, "__index__"):
                raise InputError(f"{name} holds {each!r}: token ids are integers.")
            if not 0 <= each < vocabulary:
                raise InputError(
                    f"{name}: {each} is outside the vocabulary (0 to {vocabulary - 1})."
                )
        found.append({int(each) for each in ids})
    return found


def _listed(given: Any, name: str) -> list[Any]:
    plain = given.tolist() if hasattr(given, "tolist") else given
    if isinstance(plain, str) or not isinstance(plain, Iterable):
        raise InputError(f"{name} is a list of token ids; got {given!r:.40}.")
    return list(plain)


@hookimpl
def mlxray_metrics() -> list[Metric]:
    """Probability difference."""
    return [prob_diff]
