"""Gradients against central differences of the NumPy oracle, at every point."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.errors import AddressError, EditNeverFired, InputError, MlxrayError

from .reference import PER_LAYER, WHOLE, forward, numbers
from .test_values import bend

IDS = [[3, 5, 7, 2]]
PLACES = [*WHOLE, *((name, 0) for name in PER_LAYER)]


def metric(logits: mx.array) -> mx.array:
    return logits[0, -1, 3] - logits[0, -1, 4] + logits[0, 1, 5]


def slope(model: Any, place: Any, shape: tuple[int, ...], step: float = 1e-5) -> float:
    """Central difference of the metric along a fixed direction at a point, in float64."""

    def value(sign: int) -> float:
        def moved(x: np.ndarray) -> np.ndarray:
            return x + sign * step * bend(shape)

        logits, _ = forward(model, IDS, {place: moved})
        return float(logits[0, -1, 3] - logits[0, -1, 4] + logits[0, 1, 5])

    return (value(1) - value(-1)) / (2 * step)


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_gradient_is_the_central_difference(any_model: InterpretableModel, place: Any) -> None:
    number, found = any_model.gradients(IDS, metric, [place])
    (gradient,) = found.values()
    clean = metric(any_model.model(mx.array(IDS)))
    assert abs(number.item() - clean.item()) < 1e-5
    expected = slope(any_model.model, place, gradient.shape)
    assert expected != 0
    got = float((numbers(gradient) * bend(gradient.shape)).sum())
    assert got == pytest.approx(expected, rel=2e-3, abs=2e-4)


def test_all_points_in_one_pass_agree_with_one_at_a_time(any_model: InterpretableModel) -> None:
    _, together = any_model.gradients(IDS, metric, PLACES)
    assert len(together) == len(PLACES)
    for place in PLACES:
        _, alone = any_model.gradients(IDS, metric, [place])
        for key, value in alone.items():
            assert mx.allclose(together[key], value, rtol=1e-4, atol=1e-5), key


def test_gradients_with_an_edit_in_force(llama_model: InterpretableModel) -> None:
    doubled = {"layers.0.mlp_out": lambda a: 2 * a}
    number, found = llama_model.gradients(IDS, metric, [("resid_mid", 0)], interventions=doubled)
    logits = llama_model.run_with_hooks(IDS, list(doubled.items()))
    assert number.item() == pytest.approx(metric(logits).item(), abs=1e-5)
    clean = llama_model.gradients(IDS, metric, [("resid_mid", 0)])[1]
    assert not mx.allclose(found["layers.0.resid_mid"], clean["layers.0.resid_mid"])


def test_gradient_of_an_edited_point_is_of_its_edited_value(
    llama_model: InterpretableModel,
) -> None:
    """The probe is planted behind the edit: a cut edge has no say in its own gradient."""
    cut = {"layers.1.resid_mid": lambda a: 0.5 * a}
    _, found = llama_model.gradients(IDS, metric, [("resid_mid", 1)], interventions=cut)
    shape = found["layers.1.resid_mid"].shape

    def value(sign: int) -> float:
        moved = {("resid_mid", 1): lambda x: 0.5 * x + sign * 1e-5 * bend(shape)}
        logits, _ = forward(llama_model.model, IDS, moved)
        return float(logits[0, -1, 3] - logits[0, -1, 4] + logits[0, 1, 5])

    got = float((numbers(found["layers.1.resid_mid"]) * bend(shape)).sum())
    assert got == pytest.approx((value(1) - value(-1)) / 2e-5, rel=2e-3, abs=2e-4)


def test_gradient_at_a_module_path_and_at_one_of_its_calls(
    llama_model: InterpretableModel,
) -> None:
    _, found = llama_model.gradients(
        IDS, metric, ["layers.0.mlp", "layers.0.mlp_out", "layers.0.self_attn.rope#0", ("q", 0)]
    )
    assert mx.allclose(found["layers.0.mlp"], found["layers.0.mlp_out"], atol=1e-6)
    assert mx.allclose(found["layers.0.self_attn.rope#0"], found["layers.0.q"], atol=1e-6)


def test_refusals(llama_model: InterpretableModel) -> None:
    with pytest.raises(InputError, match="at least one address"):
        llama_model.gradients(IDS, metric, [])
    with pytest.raises(InputError, match=r"\(1, 4, 31\).*scalar"):
        llama_model.gradients(IDS, lambda logits: logits, ["logits"])
    with pytest.raises(AddressError, match="nothing at"):
        llama_model.gradients(IDS, metric, ["layers.0.nothing"])
    with pytest.raises(EditNeverFired):
        llama_model.gradients(
            IDS,
            metric,
            ["logits"],
            interventions={"layers.0.self_attn.rope#7": lambda a: 0 * a},
        )
    with pytest.raises(MlxrayError, match="rope"):
        llama_model.gradients(IDS, metric, ["layers.0.self_attn.rope"])


def test_model_and_random_stream_are_left_alone(
    llama_model: InterpretableModel, untouched: Any
) -> None:
    untouched(llama_model.model)
    mx.random.seed(5)
    llama_model.gradients(IDS, metric, [("pattern", 0), ("resid_mid", 1)])
    after = mx.random.normal((3,))
    mx.random.seed(5)
    assert mx.array_equal(after, mx.random.normal((3,)))
