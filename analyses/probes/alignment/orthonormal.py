"""Orthonormal columns with a gradient: the Q of a QR decomposition."""

from __future__ import annotations

import numpy as np

from ..examples.labels import Floats


def orthonormal(free: Floats) -> Floats:
    """Q (F, k) of free parameters (F, k): their columns made orthonormal."""
    basis: Floats = np.linalg.qr(free)[0]
    return basis


def free_gradient(free: Floats, basis: Floats, gradient: Floats) -> Floats:
    """Gradient with respect to free parameters, of a number that depends on their span.

    With A = QR and f a function of QQᵀ it is ``(I − QQᵀ) ∂f/∂Q R⁻ᵀ``: what would turn the basis
    within its own span changes nothing.

    Args:
        free: A (F, k).
        basis: Q.
        gradient: ∂f/∂Q.
    """
    across: Floats = gradient - basis @ (basis.T @ gradient)
    turned = np.linalg.solve(basis.T @ free, across.T).T
    return turned.astype(np.float64)


def random_basis(features: int, rank: int, seed: int) -> Floats:
    """A uniformly random subspace: orthonormal columns (features, rank)."""
    return orthonormal(np.random.default_rng(seed).normal(size=(features, rank)))
