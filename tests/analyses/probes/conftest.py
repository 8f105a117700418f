"""Activations with a label planted in them."""

import mlx.core as mx
import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def rows(rng):
    """(200, 12) activations whose first two features tell one of two classes, and the classes."""
    codes = np.arange(200) % 2
    values = rng.normal(size=(200, 12)).astype(np.float32)
    values[:, 0] += 3.0 * (2 * codes - 1)
    values[:, 1] += 2.0 * (2 * codes - 1)
    return mx.array(values), codes
