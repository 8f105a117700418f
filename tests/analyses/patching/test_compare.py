"""How far logits are from others."""

from __future__ import annotations

import math

import mlx.core as mx
import pytest

from mlxray.analyses.patching.compare import relative_error


@pytest.mark.parametrize(
    ("logits", "expected", "error"),
    [
        ([1.0, -4.0], [1.0, -5.0], 0.2),
        ([1.0, -math.inf], [2.0, -math.inf], 0.5),
        ([1.0, -math.inf], [1.0, 2.0], math.inf),
        ([1.0, math.nan], [1.0, 2.0], math.inf),
        ([1.0, 2.0], [math.nan, 2.0], math.inf),
        ([0.0], [0.0], 0.0),
    ],
)
def test_share_of_the_largest(logits, expected, error):
    assert relative_error(mx.array(logits), mx.array(expected)) == pytest.approx(error)
