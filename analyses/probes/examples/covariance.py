"""The axes along which activations vary, and by how much."""

from __future__ import annotations

import numpy as np

from .labels import Floats

#: Variance along an axis, as a share of the largest, that counts as rounding.
_ROUNDING = 1e-12


def principal(centered: Floats) -> tuple[Floats, Floats]:
    """Standard deviations (k,) and orthonormal axes (F, k) of rows (N, F) with mean zero.

    The covariance is ``axes · deviations² · axesᵀ``; axes along which the rows do not vary, up to
    rounding, are left out, so that dividing by deviations gives the pseudo-inverse.
    """
    count, width = centered.shape
    if count < width:
        _, sizes, vectors = np.linalg.svd(centered, full_matrices=False)
        deviations, axes = sizes / np.sqrt(count), vectors.T
    else:
        values, axes = np.linalg.eigh(centered.T @ centered / count)
        deviations = np.sqrt(np.maximum(values, 0.0))
    least = max(_ROUNDING, width * np.finfo(float).eps) ** 0.5
    kept = deviations > least * deviations.max(initial=0.0)
    return deviations[kept], axes[:, kept]
