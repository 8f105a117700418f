"""The logit difference between a right and a wrong answer (Wang et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from mlxray import Metric, hookimpl, metric

from .common import Position, compared, recovered, token_column


@metric()
def logit_diff(
    patched_logits: mx.array,
    clean_logits: mx.array,
    corrupted_logits: mx.array,
    *,
    correct_token: int | Sequence[int],
    incorrect_token: int | Sequence[int],
    position: Position = -1,
    per_example: bool = False,
    normalize: bool = True,
) -> float | mx.array:
    """Share of the logit difference recovered: (patched − corrupted) / (clean − corrupted).

    1 where the difference between the two tokens' logits is the clean one, 0 where it is the
    corrupted one.

    Args:
        patched_logits, clean_logits, corrupted_logits: Logits; see `mlxray.analyses.metrics`.
        correct_token, incorrect_token: Ids of the two answers, or one for each row.
        position: Token position(s).
        per_example: Give (B,), each row's own share, instead of the share over all rows.
        normalize: False for the change in logits, patched − corrupted, without the division.

    Raises:
        AnalysisError: if clean and corrupted have the same difference, or something is NaN.
        InputError: if an id is outside the vocabulary.
    """

    def difference(rows: mx.array) -> mx.array:
        right = token_column(rows, correct_token, "correct_token")
        return right - token_column(rows, incorrect_token, "incorrect_token")

    patched, clean, corrupted = (
        difference(rows)
        for rows in compared(patched_logits, clean_logits, corrupted_logits, position=position)
    )
    change, gap = patched - corrupted, clean - corrupted
    return recovered(change, gap, name="logit_diff", per_example=per_example, normalize=normalize)


@hookimpl
def mlxray_metrics() -> list[Metric]:
    """Logit difference."""
    return [logit_diff]
