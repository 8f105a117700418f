"""The model object: its parts by name, its layers, and what it says of itself."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxray import Adapter, InterpretableModel
from mlxray.errors import AddressError, InputError, PluginError, PointAbsent
from mlxray.run.proxies import LayerListProxy, ModuleProxy, OutputProxy

from .conftest import state_of
from .reference import forward
from .test_values import close

IDS = [3, 5, 7, 2]


def test_layers_by_index(llama_model: InterpretableModel) -> None:
    layers = llama_model.layers
    assert isinstance(layers, LayerListProxy) and len(layers) == 3
    assert [layer.module for layer in layers] == llama_model.model.model.layers
    assert layers[-1].module is layers[2].module
    for bad in (3, -4):
        with pytest.raises(AddressError, match="0 to 2"):
            layers[bad]
    assert isinstance(layers[0], ModuleProxy)
    assert isinstance(layers[0].output, OutputProxy)


def test_parts_by_attribute(llama_model: InterpretableModel) -> None:
    raw = llama_model.model
    attn = llama_model.layers[1].self_attn
    assert attn.module is raw.model.layers[1].self_attn
    assert attn.q_proj.module is raw.model.layers[1].self_attn.q_proj
    assert attn.n_heads == 4 and attn.scale == raw.model.layers[1].self_attn.scale
    assert attn.q_proj.weight is raw.model.layers[1].self_attn.q_proj.weight
    assert llama_model.lm_head.module is raw.lm_head
    assert llama_model.module("model.norm").module is raw.model.norm
    assert llama_model.module("norm").module is raw.model.norm
    assert llama_model.module("model").layers[2].mlp.module is raw.model.layers[2].mlp
    with pytest.raises(AttributeError):
        attn.no_such_part  # noqa: B018
    with pytest.raises(AddressError):
        llama_model.module("layers.0.no_such_part")


def test_a_proxy_calls_its_module(llama_model: InterpretableModel) -> None:
    x = mx.ones((1, 2, 16))
    norm = llama_model.layers[0].input_layernorm
    assert mx.array_equal(norm(x), norm.module(x))


def test_named_modules(llama_model: InterpretableModel) -> None:
    names = dict(llama_model.named_modules())
    assert names[""] is llama_model.model
    assert names["model.layers.2.mlp.down_proj"] is llama_model.model.model.layers[2].mlp.down_proj
    assert set(names) == {name for name, _ in llama_model.model.named_modules()}


def test_texts_for_people(llama_model: InterpretableModel) -> None:
    assert repr(llama_model) == "<InterpretableModel llama: 3 layers, adapter llama>"
    assert repr(llama_model.layers[1].mlp) == "<model.layers.1.mlp: MLP>"
    assert repr(llama_model.layers[1].mlp.output) == "<activation layers.1.mlp.output>"
    assert {"trace", "run_with_hooks", "logit_lens"} <= set(dir(llama_model))


def test_copies_and_odd_questions(llama_model: InterpretableModel) -> None:
    """Tools ask objects for names that they do not have."""
    shallow = copy.copy(llama_model)
    assert shallow.layout is llama_model.layout
    assert not hasattr(llama_model, "_repr_html_")
    assert not hasattr(llama_model, "__wrapped__")
    assert not hasattr(llama_model, "shape")
    assert getattr(llama_model, "no_such_thing", 5) == 5
    empty = InterpretableModel.__new__(InterpretableModel)
    assert not hasattr(empty, "trace_nothing")


def test_layer_indices(llama_model: InterpretableModel) -> None:
    assert llama_model.layer_indices(None) == [0, 1, 2]
    assert llama_model.layer_indices([-1, 0]) == [2, 0]
    assert llama_model.layer_indices(range(2)) == [0, 1]
    with pytest.raises(InputError, match="leave it out for all"):
        llama_model.layer_indices([])
    with pytest.raises(AddressError, match="no layer 3"):
        llama_model.layer_indices([0, 3])


def test_layers_of_any_kind_of_integer_are_plain_ones(llama_model: InterpretableModel) -> None:
    for layers in (mx.array([0, 2]), np.array([0, -1]), (0, 2)):
        found = llama_model.layer_indices(layers)
        assert found == [0, 2]
        assert {type(layer) for layer in found} == {int}


@pytest.mark.parametrize(
    ("layers", "fault"),
    [
        ([1, 1], "layer 1 is named twice"),
        ([1, -2], "layer 1 is named twice"),
        (1, r"layers is a list of integers, such as \[1\]"),
        (1.0, "layers is a list of integers"),
        ("1", "layers is a list of integers"),
        (b"01", "layers is a list of integers"),
        ([1.5], "list of integers; got .*at 0: 1.5"),
        (["1"], "list of integers; got .*at 0: '1'"),
        ([True], "list of integers; got .*at 0: True"),
        ([None], "list of integers; got .*at 0: None"),
        (mx.array([1.5]), "list of integers; got .*at 0: 1.5"),
    ],
)
def test_what_is_no_list_of_layers_is_named(
    llama_model: InterpretableModel, layers: Any, fault: str
) -> None:
    with pytest.raises(InputError, match=fault):
        llama_model.layer_indices(layers)


def test_watch_and_patterns(any_model: InterpretableModel) -> None:
    _, expected = forward(any_model.model, IDS)
    found = any_model.watch(IDS, "mlp_out", [1, 0])
    assert list(found) == [1, 0]
    for layer, value in found.items():
        close(value, expected["mlp_out", layer])
    patterns = any_model.get_attention_patterns(IDS, layers=[1])
    assert list(patterns) == [1] and patterns[1].dtype == mx.float32
    close(patterns[1], expected["pattern", 1])
    assert list(any_model.get_attention_patterns(IDS)) == any_model.layer_indices(None)
    with pytest.raises(InputError):
        any_model.watch(IDS, "mlp_out", [])
    with pytest.raises(AddressError, match="mlp_out"):
        any_model.watch(IDS, "mlp_outt")
    with pytest.raises(AddressError):
        any_model.get_attention_patterns(IDS, [7])


def test_points_that_an_adapter_declares_absent(make: Any) -> None:
    raw = make.llama()
    adapter = InterpretableModel(raw).adapter
    absent = {"resid_mid": "attention and MLP run in parallel", "embed": "it has none"}
    model = InterpretableModel(raw, adapter=replace(adapter, absent=absent))
    for address in (("resid_mid", 1), "layers.1.resid_mid", "embed"):
        name = address if address == "embed" else "resid_mid"
        with pytest.raises(PointAbsent, match=absent[name]) as error:
            model.activations(IDS, [address])
        assert error.value.point == name and error.value.reason == absent[name]
        with pytest.raises(PointAbsent):
            model.run_with_hooks(IDS, [(address, lambda a: a)])
    _, cache = model.run_with_cache(IDS)
    assert ("resid_mid", 1) not in cache and "embed" not in cache
    assert ("resid_post", 1) in cache


def test_wrapping_leaves_the_model_as_it_was(make: Any) -> None:
    raw = make.llama()
    state = state_of(raw)
    bare = raw(mx.array([IDS]))
    model = InterpretableModel(raw)
    assert model.model is raw and state_of(raw) == state
    assert mx.array_equal(raw(mx.array([IDS])), bare)
    again = InterpretableModel(raw)
    with model.trace(IDS), again.trace(IDS) as inner:
        model.layers[0].output *= 2
        saved = again.layers[0].output.save()
    assert mx.array_equal(inner.output, bare)
    assert mx.array_equal(saved, again.activations(IDS, ["layers.0"])["layers.0"])


def test_an_adapter_by_name_by_value_and_by_type(make: Any) -> None:
    raw = make.llama()
    by_type = InterpretableModel(raw)
    by_name = InterpretableModel(raw, adapter="llama")
    by_value = InterpretableModel(raw, adapter=by_type.adapter)
    assert by_type.adapter == by_name.adapter == by_value.adapter
    other = InterpretableModel(raw, adapter=Adapter(name="mine"))
    assert other.adapter.name == "mine"
    assert mx.array_equal(other.run_with_cache(IDS)[0], by_type.run_with_cache(IDS)[0])
    with pytest.raises(PluginError):
        InterpretableModel(raw, adapter="nothing")


def test_a_changed_module_tree(make: Any) -> None:
    raw = make.llama()
    model = InterpretableModel(raw)
    raw.model.layers[1].mlp.down_proj = new = nn.Linear(24, 16, bias=False)
    mx.eval(new.parameters())
    cache = model.activations(IDS, ["layers.1.mlp.down_proj", ("mlp_act", 1)])
    assert mx.allclose(cache["layers.1.mlp.down_proj"], new(cache["mlp_act", 1]), atol=1e-6)
