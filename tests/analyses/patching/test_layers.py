"""Models whose layers differ: components that some lack, sizes that vary, mixtures of experts."""

import mlx.core as mx
import pytest

from mlxray import InterpretableModel
from mlxray.analyses import activation_patching, attribution_patching
from mlxray.analyses.metrics import l2_distance
from mlxray.errors import AddressError, InputError
from mlxray.testing.zoo import small_model

from ..models import CLEAN, CORRUPTED, small_llama


def wrapped(name):
    found = small_model(name)
    return found if isinstance(found, InterpretableModel) else InterpretableModel(found)


@pytest.mark.parametrize(
    ("name", "component", "layers"),
    [
        ("lfm2", "z", [1]),
        ("lfm2", "mlp", [0, 1, 2]),
        ("recurrent_gemma", "z", [2]),
        ("qwen3_moe", "mlp_act", [0]),
        ("qwen3_moe", "router", [1]),
        ("qwen3_moe", "mlp.gate_proj", [0]),
    ],
)
def test_layers_that_have_the_component(name, component, layers):
    model = wrapped(name)
    found = activation_patching(model, CLEAN, CORRUPTED, component)
    assert found.layers == layers
    naive = activation_patching(model, CLEAN, CORRUPTED, component, exact="naive")
    assert mx.allclose(found.effect_matrix, naive.effect_matrix, atol=1e-5)
    estimated = attribution_patching(model, CLEAN, CORRUPTED, component)
    assert estimated.layers == layers
    if component != "mlp":
        absent = next(layer for layer in range(model.layout.n_layers) if layer not in layers)
        for method in (activation_patching, attribution_patching):
            with pytest.raises(AddressError):
                method(model, CLEAN, CORRUPTED, component, layers=[absent])


def test_layers_of_different_size():
    model = wrapped("openelm")
    for component, by in (("z", "head"), ("q", "head_position"), ("mlp_act", "neuron")):
        with pytest.raises(InputError, match="choose layers with as many heads"):
            activation_patching(model, CLEAN, CORRUPTED, component, by=by)
        alone = activation_patching(model, CLEAN, CORRUPTED, component, by=by, layers=[1])
        assert alone.effect_matrix.shape[0] == 1
    for by in ("layer", "position"):
        for component in ("z", "mlp_act"):
            whole = activation_patching(model, CLEAN, CORRUPTED, component, by=by)
            naive = activation_patching(model, CLEAN, CORRUPTED, component, by=by, exact="naive")
            assert mx.allclose(whole.effect_matrix, naive.effect_matrix, atol=1e-5)
    with pytest.raises(InputError, match="choose layers with as many heads"):
        attribution_patching(model, CLEAN, CORRUPTED, "z")
    assert attribution_patching(model, CLEAN, CORRUPTED, "mlp_act").layers == [0, 1]


def test_a_module_that_is_called_twice():
    with pytest.raises(InputError, match="2 values: choose a point"):
        activation_patching(small_llama(), CLEAN, CORRUPTED, "self_attn.rope")


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe"])
def test_routers_and_experts(name):
    """By layer against a hook that puts the clean value, and each expert's weight by itself."""
    model = wrapped(name)
    clean, corrupted = (model.run_with_hooks(ids) for ids in (CLEAN, CORRUPTED))
    for point in ("router", "expert_out"):
        found = activation_patching(model, CLEAN, CORRUPTED, point)
        for row, layer in enumerate(found.layers):
            value = model.activations(CLEAN, [(point, layer)])[point, layer]
            patched = model.run_with_hooks(
                CORRUPTED, [((point, layer), lambda _, value=value: value)]
            )
            expected = l2_distance(patched, clean, corrupted)
            assert found.effect_matrix[row].item() == pytest.approx(expected, abs=1e-5)
    each = activation_patching(model, CLEAN, CORRUPTED, "router", by="neuron")
    naive = activation_patching(model, CLEAN, CORRUPTED, "router", by="neuron", exact="naive")
    assert each.effect_matrix.shape == (2, 4)
    assert mx.allclose(each.effect_matrix, naive.effect_matrix, atol=1e-5)
