"""Which learned direction is which known one: the best one-to-one matching."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def cosines(learned: mx.array, known: mx.array) -> Matrix:
    """(n, m) absolute cosines of the rows of two matrices; 0 where a row is zero."""

    def unit(rows: mx.array) -> mx.array:
        rows = rows.astype(mx.float32)
        norms = mx.linalg.norm(rows, axis=-1, keepdims=True)
        return mx.where(norms > 0, rows / mx.maximum(norms, 1e-30), 0)

    found: Matrix = np.array(mx.abs(unit(learned) @ unit(known).T)).astype(np.float64)
    return found


def assignment(costs: Any) -> tuple[Ints, Ints]:
    """The pairs of rows and columns, each at most once, with the least sum of costs.

    As many pairs as the shorter side has. Shortest augmenting paths (Jonker and Volgenant 1987):
    rows are placed one after the other, each by the cheapest chain of moves of earlier ones.

    Args:
        costs: (n, m), finite.

    Returns:
        Row and column of each pair, by row.

    Example:
        >>> rows, columns = assignment([[4.0, 1.0], [2.0, 0.0]])
        >>> columns.tolist()
        [1, 0]
    """
    costs = np.asarray(costs, np.float64)
    if costs.shape[0] > costs.shape[1]:
        columns, rows = assignment(costs.T)
        order = np.argsort(rows)
        return rows[order], columns[order]
    n, m = costs.shape
    # What a row and a column are worth: no cost is below their sum, and a pair's is equal to it.
    row_worth, column_worth = np.zeros(n), np.zeros(m)
    holder = np.full(m, -1, np.int64)  # the row that a column belongs to
    held = np.full(n, -1, np.int64)  # the column of a row
    for start in range(n):
        reach = np.full(m, np.inf)  # the least cost of a chain from `start` to each column
        before = np.full(m, -1, np.int64)  # the row that such a chain comes from
        seen, rows_seen = np.zeros(m, bool), [start]
        row, spent = start, 0.0
        while True:
            through = spent + costs[row] - row_worth[row] - column_worth
            nearer = ~seen & (through < reach)
            reach[nearer], before[nearer] = through[nearer], row
            column = int(np.argmin(np.where(seen, np.inf, reach)))
            spent, seen[column] = reach[column], True
            row = int(holder[column])
            if row < 0:
                break
            rows_seen.append(row)
        others = np.array(rows_seen[1:], np.int64)
        row_worth[start] += spent
        row_worth[others] += spent - reach[held[others]]
        column_worth[seen] -= spent - reach[seen]
        while True:  # along the chain, every row takes the column that it found
            row = int(before[column])
            holder[column] = row
            held[row], column = column, int(held[row])
            if row == start:
                break
    return np.arange(n), held


def mean_correlation(similarity: Matrix) -> float:
    """Mean of (n, m) similarities over the best one-to-one matching (MCC, Song et al. 2025)."""
    rows, columns = assignment(-similarity)
    return float(similarity[rows, columns].mean())
