"""NaN is said wherever values are handed out, at little cost."""

from __future__ import annotations

import warnings
from typing import Any

import mlx.core as mx
import pytest

import mlxray
from mlxray import InterpretableModel
from mlxray import interventions as iv
from mlxray.checks.finite import MOST, NaNCheck, NotANumberWarning

IDS = [1, 2, 3]


def nan_from(make: Any, layer: int) -> InterpretableModel:
    """A model whose stream is NaN from a layer on."""
    root = make.llama()
    root.model.layers[layer].mlp.down_proj.weight *= float("nan")
    return InterpretableModel(root)


def saved(model: Any) -> None:
    with model.trace(IDS):
        model.layers[1].output.save()


def read_later(model: Any) -> None:
    with model.trace(IDS, {"embed": iv.scale(2.0)}) as trace:
        pass
    trace.activations["layers.1.resid_post"]


SURFACES: dict[str, Any] = {
    "run_with_cache": lambda model: model.run_with_cache(IDS),
    "run_with_cache, one": lambda model: model.run_with_cache(IDS, "layers.1"),
    "gradients": lambda model: model.gradients(IDS, lambda x: x.sum(), "layers.0"),
    "run_with_hooks": lambda model: model.run_with_hooks(IDS),
    "activations": lambda model: model.activations(IDS, "layers.1"),
    "watch": lambda model: model.watch(IDS, "resid_post"),
    "get_attention_patterns": lambda model: model.get_attention_patterns(IDS, [2]),
    "get_activations": lambda model: mlxray.get_activations(model, IDS),
    "collect_activations": lambda model: mlxray.collect_activations(model, IDS),
    "trace": saved,
    "trace, later": read_later,
}


@pytest.mark.parametrize("surface", SURFACES)
def test_every_surface_warns(make: Any, surface: str) -> None:
    with pytest.warns(NotANumberWarning, match="NaN: a weight or an edit is not a number"):
        SURFACES[surface](nan_from(make, 1))


@pytest.mark.parametrize("surface", SURFACES)
def test_no_surface_warns_of_numbers(make: Any, surface: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SURFACES[surface](InterpretableModel(make.llama()))


def test_the_warning_names_the_first_place(make: Any) -> None:
    model = nan_from(make, 1)
    with pytest.warns(NotANumberWarning, match=r"^layers\.1\.resid_post and 1 other value hold"):
        model.watch(IDS, "resid_post")
    with pytest.warns(NotANumberWarning, match=r"^layers\.2\.pattern holds"):
        model.get_attention_patterns(IDS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.activations(IDS, ["layers.0.resid_post", "layers.1.pattern"])  # before the fault


def test_nan_of_an_edit_that_a_later_one_hides(make: Any) -> None:
    model = InterpretableModel(make.llama())
    edits = {"layers.0": iv.replace_with(float("nan")), "layers.1": iv.replace_with(1.0)}
    with pytest.warns(NotANumberWarning, match=r"^layers\.0\.resid_post holds"):
        logits, _ = model.run_with_cache(IDS, ("resid_post", 0), interventions=edits)
    assert not mx.isnan(logits).any()


def test_infinities_are_no_fault() -> None:
    values = mx.array([mx.inf, -mx.inf, 1.0])
    check = NaNCheck({"both": values, "one": -mx.abs(values), "ids": mx.array([1])}, values)
    mx.eval(check.pending)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check.warn()


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_one_in_many_is_found(dtype: mx.Dtype) -> None:
    values = mx.full((300, 500), 60000.0).astype(dtype)  # whose sum is infinite in half precision
    clean = NaNCheck({"x": values})
    values[17, 3] = float("nan")
    faulty = NaNCheck({"x": values})
    mx.eval(clean.pending, faulty.pending)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clean.warn()
    with pytest.warns(NotANumberWarning, match="x holds"):
        faulty.warn()


def test_the_check_costs_one_sum_of_each_of_the_last_values() -> None:
    many = {f"value {i}": mx.ones((2,)) for i in range(3 * MOST)}
    (sums,) = NaNCheck(many).pending
    assert sums.shape == (MOST,)
    (sums,) = NaNCheck(many, mx.ones((1, 4, 8))).pending
    assert sums.shape == (MOST + 1,)
    assert NaNCheck({"none": None, "empty": mx.zeros((0,)), "ids": mx.array([1])}).pending == []
