"""Data whose features are known."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def planted(
    tokens: int = 6000, features: int = 20, width: int = 16, share: float = 0.1, seed: int = 0
) -> tuple[mx.array, Floats, Floats]:
    """Activations, the directions (features, width) and the values (tokens, features) in them."""
    rng = np.random.default_rng(seed)
    directions = unit(rng.normal(size=(features, width)))
    values = (rng.random((tokens, features)) < share) * (1 + rng.random((tokens, features)))
    rows = values @ directions + 0.3
    return mx.array(rows.astype(np.float32)), directions, values


def unit(rows: Any) -> Floats:
    found: Floats = np.asarray(rows, np.float64)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def likeness(directions: Floats, decoder: mx.array) -> float:
    """Mean over planted directions of the largest cosine with a row of the decoder."""
    return float((directions @ unit(decoder).T).max(axis=1).mean())


def explained(y: Any, output: Any) -> float:
    y, output = np.asarray(y, np.float64), np.asarray(output, np.float64)
    return float(1 - ((y - output) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())
