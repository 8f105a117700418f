"""How strongly an attention pattern, or an OV circuit, shows a known behaviour."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from mlxray.arrays import number
from mlxray.checks.annotations import shown
from mlxray.errors import AnalysisError, InputError

if TYPE_CHECKING:
    import numpy as np


#: Eigenvalues below this share of a circuit's norm are rounding.
NOTHING = 1e-6


def pattern_scores(patterns: mx.array, period: int | None = None) -> dict[str, mx.array]:
    """Every behaviour's score of many heads at once, lazy.

    Args:
        patterns: (…, queries, keys) attention probabilities. Queries are the last positions.
        period: Length of the block that the prompt repeats; None leaves ``"induction"`` out.

    Returns:
        Name → (…): mean weight, over the positions that could show the behaviour.

    Raises:
        InputError: if there is no such position.
    """
    scores = {
        "previous_token": _weight_on(patterns, back=1, first=1),
        "first_token": _weight_on_first(patterns),
        "current_token": _weight_on(patterns, back=0, first=1),
    }
    if period is not None:
        if period < 2:
            raise InputError(f"a repeated block has at least 2 tokens; got {period}.")
        scores["induction"] = _induction(patterns, period)
    return scores


def _start(patterns: mx.array, first: int) -> int:
    """The first query at position `first` or behind it."""
    queries, keys = patterns.shape[-2:]
    if queries > keys or first >= keys:
        raise InputError(
            f"a pattern of {queries} queries and {keys} keys has no position to score: it needs "
            f"at least {first + 1} keys, and no more queries than keys."
        )
    return max(first, int(keys - queries))


def _weights(patterns: mx.array, *, back: int, first: int) -> mx.array:
    """Weights of positions from `first` on, on the key `back` before each: (…, positions)."""
    start, keys = _start(patterns, first), patterns.shape[-1]
    rows = patterns[..., start - keys :, start - back : keys - back]
    return mx.diagonal(rows, axis1=-2, axis2=-1).astype(mx.float32)


def _weight_on(patterns: mx.array, *, back: int, first: int) -> mx.array:
    return mx.mean(_weights(patterns, back=back, first=first), axis=-1)


def _weight_on_first(patterns: mx.array) -> mx.array:
    rows = patterns[..., _start(patterns, 1) - patterns.shape[-1] :, 0]
    return mx.mean(rows.astype(mx.float32), axis=-1)


def _induction(patterns: mx.array, period: int) -> mx.array:
    keys = patterns.shape[-1]
    start = _start(patterns, period)
    found = [
        mx.sum(_weights(patterns, back=copies * period - 1, first=copies * period), axis=-1)
        for copies in range(1, (keys - 1) // period + 1)
    ]
    return mx.sum(mx.stack(found), axis=0) / (keys - start)


def _one_score(attention_pattern: Any, name: str, period: int | None = None) -> float:
    pattern = attention_pattern
    if not isinstance(pattern, mx.array):
        try:
            pattern = mx.array(attention_pattern)
        except (TypeError, ValueError, RuntimeError):
            raise InputError(
                f"an attention pattern is an array; got {shown(attention_pattern)}."
            ) from None
    if pattern.ndim != 2:
        raise InputError(
            f"an attention pattern has shape (queries, keys); got {pattern.shape}. "
            "Choose one head: patterns[layer][0, head]."
        )
    score = number(pattern_scores(pattern, period)[name])
    if math.isnan(score):
        raise AnalysisError("the attention pattern holds NaN.")
    return score


def induction_score(attention_pattern: np.ndarray[Any, Any] | mx.array, seq_len: int) -> float:
    """How much positions of a repeated block look at what followed their token before.

    Induction heads (Olsson et al. 2022) look, from position i, at i − seq_len + 1. Where the
    block comes more than twice, the same place in every earlier copy counts.

    Args:
        attention_pattern: (queries, keys) of a prompt that repeats a block.
        seq_len: Length of the block.

    Returns:
        Mean weight over all positions from `seq_len` on, 0 to 1.

    Raises:
        InputError: if the pattern is not longer than the block, or the block than one token.
        AnalysisError: if the pattern holds NaN.
    """
    return _one_score(attention_pattern, "induction", seq_len)


def previous_token_score(attention_pattern: np.ndarray[Any, Any] | mx.array) -> float:
    """Mean weight on the token before, over all positions but the first; 0 to 1.

    Args:
        attention_pattern: (queries, keys) attention probabilities of one head.

    Raises:
        InputError: if there is only one position.
        AnalysisError: if the pattern holds NaN.
    """
    return _one_score(attention_pattern, "previous_token")


def first_token_score(attention_pattern: np.ndarray[Any, Any] | mx.array) -> float:
    """Mean weight on the first token, over all positions but the first; 0 to 1.

    The first position has nothing else to look at and would count for every head.

    Args:
        attention_pattern: (queries, keys) attention probabilities of one head.

    Raises:
        InputError: if there is only one position.
        AnalysisError: if the pattern holds NaN.
    """
    return _one_score(attention_pattern, "first_token")


def current_token_score(attention_pattern: np.ndarray[Any, Any] | mx.array) -> float:
    """Mean weight on the token itself, over all positions but the first; 0 to 1.

    Args:
        attention_pattern: (queries, keys) attention probabilities of one head.

    Raises:
        InputError: if there is only one position.
        AnalysisError: if the pattern holds NaN.
    """
    return _one_score(attention_pattern, "current_token")


def copying_score(
    ov_circuit: np.ndarray[Any, Any] | mx.array,
    unembedding: np.ndarray[Any, Any] | mx.array | None = None,
    embedding: np.ndarray[Any, Any] | mx.array | None = None,
) -> float:
    """How far an OV circuit raises what it reads: Σλ / Σ|λ| of its eigenvalues λ.

    1 where all eigenvalues are positive (attending to a token raises that token), −1 where all
    are negative, near 0 for a circuit that mixes (Elhage et al. 2021, "copying heads").

    Args:
        ov_circuit: (D, D) ``W_V @ W_O``, applied to rows from the right; see `ov_circuit`.
        unembedding: (V, D), the output head's weight. With it the eigenvalues are those of the
            whole circuit from tokens to logits, ``embedding @ ov_circuit @ unembedding.T``.
        embedding: (V, D); the unembedding itself if left out (tied weights).

    Raises:
        InputError: if shapes do not fit.
        AnalysisError: if the circuit has no eigenvalue but zero, or holds NaN.
    """
    circuit = _matrix(ov_circuit, "ov_circuit")
    if circuit.shape[0] != circuit.shape[1]:
        raise InputError(f"ov_circuit has shape (D, D); got {circuit.shape}.")
    if unembedding is None:
        if embedding is not None:
            raise InputError("an embedding needs the unembedding too.")
        return eigenvalue_share(circuit)
    out = _matrix(unembedding, "unembedding")
    into = out if embedding is None else _matrix(embedding, "embedding")
    for name, table in (("unembedding", out), ("embedding", into)):
        if table.shape != (out.shape[0], circuit.shape[0]):
            raise InputError(
                f"{name} has shape (V, {circuit.shape[0]}), a row for each token; "
                f"got {table.shape}."
            )
    # The circuit over tokens is (V, V); its eigenvalues but zeros are those of this (D, D).
    return eigenvalue_share(circuit @ (out.T @ into))


def eigenvalue_share(matrix: np.ndarray[Any, Any], *, empty: float | None = None) -> float:
    """``Σλ / Σ|λ|`` of a square matrix's eigenvalues, −1 to 1.

    Args:
        matrix: (N, N).
        empty: What to give where every eigenvalue is zero, to the matrix's own precision.

    Raises:
        AnalysisError: if every eigenvalue is zero and `empty` is None, or the matrix holds NaN.
    """
    import numpy as np

    if not np.isfinite(matrix).all():
        raise AnalysisError("the circuit holds NaN or infinity.")
    eigenvalues = np.linalg.eigvals(matrix.astype(np.float64))
    total = np.abs(eigenvalues).sum()
    if total <= NOTHING * np.linalg.norm(matrix):
        if empty is None:
            raise AnalysisError("the circuit has no eigenvalue but zero: it copies nothing.")
        return empty
    return float(np.clip(eigenvalues.real.sum() / total, -1, 1))


def _matrix(given: Any, name: str) -> np.ndarray[Any, Any]:
    import numpy as np

    if isinstance(given, mx.array):
        given = given.astype(mx.float32)
    try:
        matrix = np.array(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{name} is a matrix of numbers; got {shown(given)}.") from None
    if matrix.ndim != 2 or not matrix.size:
        raise InputError(f"{name} is a matrix; got shape {matrix.shape}.")
    return matrix
