"""What the metrics share: which logits are compared, and when a number is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence

import mlx.core as mx

from mlxray.arrays import number
from mlxray.checks.arguments import whole_numbers
from mlxray.errors import AnalysisError, InputError

Position = int | Sequence[int]


def compared(*logits: mx.array, position: Position = -1) -> list[mx.array]:
    """The rows that a metric compares: float32 (B, V) of each array of logits.

    Args:
        logits: Each (V,), (1, V) or (B, S, V); one row stands for all rows of the others.
        position: Token position, or one for each row.

    Raises:
        InputError: if shapes do not fit together, or a position does not exist.
    """
    rows = [_rows(each, position) for each in logits]
    if len({row.shape[1] for row in rows}) > 1:
        sizes = ", ".join(str(row.shape[1]) for row in rows)
        raise InputError(f"the logits belong to vocabularies of different sizes: {sizes}.")
    if len({row.shape[0] for row in rows} - {1}) > 1:
        counts = ", ".join(str(row.shape[0]) for row in rows)
        raise InputError(f"the logits have different numbers of rows: {counts}.")
    return rows


def _rows(logits: mx.array, position: Position) -> mx.array:
    if not isinstance(logits, mx.array) or not mx.issubdtype(logits.dtype, mx.floating):
        kind = logits.dtype if isinstance(logits, mx.array) else type(logits).__name__
        raise InputError(f"logits are a floating mx.array; got {kind}.")
    if logits.size == 0 or logits.ndim not in (1, 2, 3):
        raise InputError(f"logits have shape (V,) or (B, S, V); got {logits.shape}.")
    if logits.ndim == 2 and logits.shape[0] > 1:
        raise InputError(
            f"logits of shape {logits.shape} may be positions or prompts: pass logits[None] for "
            "one prompt, or logits[:, None] for a batch of single positions."
        )
    if logits.ndim < 3:
        return logits.astype(mx.float32).reshape(1, -1)
    batch, tokens, _ = logits.shape
    wanted = whole_numbers(position, "position")
    if len(wanted) > 1 and batch not in (1, len(wanted)):
        raise InputError(f"{len(wanted)} positions were given for {batch} rows of logits.")
    for each in wanted:
        if not -tokens <= each < tokens:
            raise InputError(f"there is no position {each}: the logits have {tokens}.")
    index = mx.array([each % tokens for each in wanted])
    rows = mx.arange(batch) if batch > 1 else mx.array([0])
    return logits[rows, index].astype(mx.float32)


def token_column(rows: mx.array, token: int | Sequence[int], name: str) -> mx.array:
    """The logit of one token in each row, (B,).

    Args:
        rows: (B, V).
        token: An id, or one for each row.
        name: The keyword that the ids were given by, for messages.

    Raises:
        InputError: if an id is outside the vocabulary, or their number does not fit.
    """
    ids = whole_numbers(token, name)
    for each in ids:
        if not 0 <= each < rows.shape[1]:
            raise InputError(f"{name}={each} is outside the vocabulary (0 to {rows.shape[1] - 1}).")
    if len(ids) != 1 and rows.shape[0] not in (1, len(ids)):
        raise InputError(f"{name}: {len(ids)} ids were given for {rows.shape[0]} rows.")
    return picked(rows, mx.array(ids))


def picked(rows: mx.array, index: mx.array) -> mx.array:
    """``rows[i, index[i]]``, where one row or one index stands for all: (B, V), (B,) → (B,)."""
    count = max(rows.shape[0], index.shape[0])
    rows = mx.broadcast_to(rows, (count, rows.shape[1]))
    return mx.take_along_axis(rows, mx.broadcast_to(index, (count,))[:, None], axis=1)[:, 0]


def recovered(
    change: mx.array, gap: mx.array, *, name: str, per_example: bool, normalize: bool
) -> float | mx.array:
    """The share of the clean-corrupted gap that patching closed: ``change / gap``.

    Over several rows it is the mean change over the mean gap. A mean of the rows' own shares
    would be decided by the rows with the smallest gaps.

    Args:
        change: (B,). gap: (B,) or (1,).
        name: Of the metric.
        per_example: Give each row's own share, NaN where its gap is zero.
        normalize: Whether to divide at all; otherwise the change itself.

    Raises:
        AnalysisError: if the mean gap is zero: then clean and corrupted are the same to this
            metric.
    """
    if not normalize:
        return value(change, name=name, per_example=per_example)
    if per_example:
        return mx.where(gap == 0, mx.nan, change / mx.where(gap == 0, 1.0, gap))
    mean_gap = number(mx.mean(gap))
    if mean_gap == 0:
        raise AnalysisError(
            f"{name} is undefined: clean and corrupted logits are the same to it, so there is "
            "nothing to recover. Choose prompts, tokens or a position where they differ."
        )
    return value(mx.mean(change, keepdims=True) / mean_gap, name=name, per_example=False)


def value(rows: mx.array, *, name: str, per_example: bool) -> float | mx.array:
    """What a metric returns: the rows themselves, or their mean as a float.

    Raises:
        AnalysisError: if the mean is not a number.
    """
    if per_example:
        return rows
    mean = number(mx.mean(rows))
    if math.isnan(mean):
        raise AnalysisError(f"{name} is not a number: the logits hold NaN, or are all zero.")
    return mean
