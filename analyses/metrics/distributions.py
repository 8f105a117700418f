"""Metrics of the next-token distribution, in nats."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from mlxray import Metric, hookimpl, metric

from .common import Position, compared, picked, token_column, value


def _log_softmax(rows: mx.array) -> mx.array:
    # The largest logit goes first: what is left is small, and keeps its digits in float32.
    rows = rows - mx.max(rows, axis=-1, keepdims=True)
    return rows - mx.logsumexp(rows, axis=-1, keepdims=True)


@metric(aliases=("kl",))
def kl_divergence(
    patched_logits: mx.array,
    clean_logits: mx.array,
    corrupted_logits: mx.array,
    *,
    position: Position = -1,
    per_example: bool = False,
) -> float | mx.array:
    """Minus KL(clean ‖ patched): 0 where the distributions are the same, negative elsewhere.

    The corrupted logits take no part. Tokens to which clean gives no probability add nothing.

    Raises:
        AnalysisError: if something is NaN.
    """
    patched, clean, _ = compared(patched_logits, clean_logits, corrupted_logits, position=position)
    wanted, got = _log_softmax(clean), _log_softmax(patched)
    probability = mx.exp(wanted)
    impossible = probability == 0
    difference = mx.where(impossible, 0.0, wanted) - mx.where(impossible, 0.0, got)
    return value(
        -mx.sum(probability * difference, axis=-1), name="kl_divergence", per_example=per_example
    )


@metric(aliases=("ce_diff",))
def cross_entropy_diff(
    patched_logits: mx.array,
    clean_logits: mx.array,
    corrupted_logits: mx.array,
    *,
    target_token: int | Sequence[int] | None = None,
    position: Position = -1,
    per_example: bool = False,
) -> float | mx.array:
    """CE(corrupted) − CE(patched): by how many nats patching lowered the loss on a token.

    Args:
        patched_logits, clean_logits, corrupted_logits: Logits; see `mlxray.analyses.metrics`.
        target_token: Its id, or one for each row; the token that clean ranks first if left out.
        position: Token position(s).
        per_example: Give (B,) instead of the mean.

    Raises:
        AnalysisError: if something is NaN.
        InputError: if the id is outside the vocabulary.
    """
    patched, clean, corrupted = compared(
        patched_logits, clean_logits, corrupted_logits, position=position
    )
    before, after = _log_softmax(corrupted), _log_softmax(patched)
    if target_token is None:
        best = mx.argmax(clean, axis=-1)
        gain = picked(after, best) - picked(before, best)
    else:
        gain = token_column(after, target_token, "target_token")
        gain = gain - token_column(before, target_token, "target_token")
    return value(gain, name="cross_entropy_diff", per_example=per_example)


@hookimpl
def mlxray_metrics() -> list[Metric]:
    """Divergence and cross-entropy."""
    return [kl_divergence, cross_entropy_diff]
