"""A distance from a run has no slope at that run, however its logits are rounded."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.analyses.patching.measure import Measure, bind

TOKENS: dict[str, Any] = {
    "correct_token": 5,
    "incorrect_token": 9,
    "correct_tokens": [5, 6],
    "incorrect_tokens": [9],
}
DISTANCES = ["l2", "mse", "cosine", "kl"]
OTHERS = ["logit_diff", "prob_diff", "cross_entropy_diff"]


@pytest.fixture(scope="module")
def logits() -> list[mx.array]:
    """Of two runs and seven positions."""
    return [2 * mx.random.normal((7, 300), key=mx.random.key(i)) for i in (3, 4)]


def bound(logits: list[mx.array], metric: Any, **more: Any) -> Measure:
    model = InterpretableModel("pocket")
    return bind(model, metric, logits[0][-1:], logits[1][-1:], more or TOKENS)


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize("metric", DISTANCES)
def test_a_distance_is_least_at_the_run_itself(
    logits: list[mx.array], metric: str, dtype: mx.Dtype
) -> None:
    assert bound([each.astype(dtype) for each in logits], metric).is_flat_at_clean


@pytest.mark.parametrize("metric", OTHERS)
def test_other_metrics_have_a_slope(logits: list[mx.array], metric: str) -> None:
    assert not bound(logits, metric).is_flat_at_clean


def test_a_token_that_is_ruled_out(logits: list[mx.array]) -> None:
    ruled_out = [mx.where(mx.arange(300) == 7, -mx.inf, each) for each in logits]
    assert bound(ruled_out, "kl").is_flat_at_clean
    assert not bound(ruled_out, "logit_diff").is_flat_at_clean


def test_metrics_of_ones_own() -> None:
    """A distance is flat at the run that it is a distance from, and at no other."""
    pair = [mx.random.normal((1, 50), key=mx.random.key(i)) for i in (0, 1)]

    def far(patched: Any, clean: Any, corrupted: Any) -> Any:
        return mx.sum(mx.square(patched - corrupted))

    def least(patched: Any, clean: Any, corrupted: Any) -> Any:
        return mx.sum(mx.square(patched - clean))

    def constant(patched: Any, clean: Any, corrupted: Any) -> Any:
        return mx.array(1.0)

    model = InterpretableModel("pocket")
    found = {f.__name__: bind(model, f, *pair).is_flat_at_clean for f in (far, least, constant)}
    assert found == {"far": False, "least": True, "constant": False}


def test_a_gradient_does_not_show_it(logits: list[mx.array]) -> None:
    """Why gradients are not asked: a norm's has length 1 where the logits differ by rounding."""
    measure = bound(logits, "l2")
    rounded = measure.clean * (1 + 1e-6 * mx.random.normal(measure.clean.shape))
    near, far = (np.array(mx.grad(measure.scalar)(x)) for x in (rounded, measure.corrupted))
    assert np.linalg.norm(near) == pytest.approx(np.linalg.norm(far), rel=0.05)
