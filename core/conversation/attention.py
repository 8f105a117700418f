"""Attention patterns summed up by turns."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx

from ..errors import InputError
from .turns import TurnList

KEYS = ("sum", "mean")


def between_turns(
    pattern: mx.array, turns: TurnList, *, keys: str = "sum", content_only: bool = False
) -> mx.array:
    """Attention from each turn to each.

    Args:
        pattern: (H, S, S) probabilities, query × key.
        turns: T of them.
        keys: "sum" (the share that all tokens of a turn get) or "mean" (that one gets), both
            averaged over the queries of the turn that looks.
        content_only: Leave the template's tokens out.

    Returns:
        (H, T, T) float32, looking turn × turn looked at; NaN where a mean has no tokens.

    Raises:
        InputError: for other `keys`.
    """
    if keys not in KEYS:
        raise InputError(f"keys is one of {', '.join(KEYS)}; got {keys!r}.")
    member = _membership(turns, pattern.shape[-1], content_only)
    counts = member.sum(axis=1)
    # 0 / 0 is NaN: the mean of nothing.
    total = member @ pattern.astype(mx.float32) @ member.T / counts[:, None]
    return total / counts[None] if keys == "mean" else total


def mean_of_heads(matrix: mx.array, heads: Sequence[int] | None) -> mx.array:
    """(H, T, T) averaged over some heads, or all.

    Raises:
        InputError: for an empty list, or a head that is not there.
    """
    if heads is None:
        return matrix.mean(axis=0)
    count = matrix.shape[0]
    for head in heads:
        if not -count <= head < count:
            raise InputError(f"there is no head {head}: the layer has {count} (0 to {count - 1}).")
    if not heads:
        raise InputError("the list of heads is empty; leave it out for all heads.")
    return matrix[mx.array([head % count for head in heads])].mean(axis=0)


def _membership(turns: TurnList, tokens: int, content_only: bool) -> mx.array:
    """(T, S): 1 where a token belongs to a turn."""
    positions = mx.arange(tokens)
    rows = []
    for turn in turns:
        chosen = turn.positions(content_only)
        rows.append(mx.logical_and(positions >= chosen.start, positions < chosen.stop))
    return mx.stack(rows).astype(mx.float32)
