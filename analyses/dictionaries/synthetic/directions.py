"""Directions of features, pushed apart as far as the width allows."""

from __future__ import annotations

import mlx.core as mx

from mlxray.arrays import evaluate

#: Adam's.
_FIRST, _SECOND, _EPSILON = 0.9, 0.999, 1e-8


def unit_rows(rows: mx.array) -> mx.array:
    """Rows of norm 1."""
    return rows / mx.maximum(mx.linalg.norm(rows, axis=-1, keepdims=True), 1e-8)


def slopes(directions: mx.array) -> mx.array:
    """Gradient of Σ_{i≠j} (v_i · v_j)² + F Σ_i (‖v_i‖² − 1)² for directions v (F, D).

    Σ_j (v_i · v_j) v_j = v_i VᵀV, which needs no product of all with all.
    """
    energy = mx.sum(mx.square(directions), axis=-1, keepdims=True)
    others = directions @ (directions.T @ directions) - energy * directions
    return 4 * others + 4 * len(directions) * (energy - 1) * directions


def apart(directions: mx.array, steps: int, rate: float) -> mx.array:
    """Directions (F, D) of norm 1 after so many steps of Adam away from each other."""
    directions = unit_rows(directions)
    first, second = mx.zeros_like(directions), mx.zeros_like(directions)
    for step in range(1, steps + 1):
        slope = slopes(directions)
        first = _FIRST * first + (1 - _FIRST) * slope
        second = _SECOND * second + (1 - _SECOND) * mx.square(slope)
        size = mx.sqrt(second / (1 - _SECOND**step)) + _EPSILON
        directions = directions - rate * first / (1 - _FIRST**step) / size
        evaluate(directions, first, second)
    made = unit_rows(directions)
    evaluate(made)
    return made
