"""The reference's helpers for code written against module paths."""

from __future__ import annotations

from typing import Any

import mlx.nn as nn
import pytest

from mlxray import InterpretableModel, ModuleResolver
from mlxray.errors import AdapterError, AddressError
from mlxray.resolver import find_layer_key_pattern, normalize_layer_key, resolve_component


def test_tied_and_untied_outputs(make: Any) -> None:
    untied, tied = make.llama(), make.gpt2()
    resolver = ModuleResolver(untied)
    assert resolver.get_embedding_layer() is untied.model.embed_tokens
    assert resolver.get_final_norm() is untied.model.norm
    assert resolver.get_lm_head() is untied.lm_head
    assert resolver.get_output_projection() == (untied.lm_head, "lm_head", False)
    resolver = ModuleResolver(tied)
    assert resolver.get_embedding_layer() is tied.model.wte
    assert resolver.get_final_norm() is tied.model.ln_f
    assert resolver.get_lm_head() is None
    assert resolver.get_output_projection() == (tied.model.wte, "model.wte", True)


def test_paths_of_ones_own(make: Any) -> None:
    raw = make.llama()
    resolver = ModuleResolver(
        raw, embedding_path="lm_head", norm_path="model.layers.0.input_layernorm"
    )
    assert resolver.get_embedding_layer() is raw.lm_head
    assert resolver.get_final_norm() is raw.model.layers[0].input_layernorm
    with pytest.raises(AdapterError, match="my_embed"):
        ModuleResolver(raw, embedding_path="my_embed").get_embedding_layer()


def test_a_part_that_was_replaced(make: Any) -> None:
    raw = make.llama()
    resolver = ModuleResolver(raw)
    assert resolver.get_lm_head() is raw.lm_head
    new = raw.lm_head = nn.Linear(16, 31, bias=False)
    assert resolver.get_lm_head() is new
    resolver.clear_cache()
    assert resolver.get_lm_head() is new


def test_a_part_that_is_missing(make: Any) -> None:
    raw = make.llama()
    del raw.model["norm"]
    with pytest.raises(AddressError, match=r"model\.norm"):
        ModuleResolver(raw).get_final_norm()


def test_keys_of_layers(llama_model: InterpretableModel) -> None:
    keys = ["model.model.layers.1", "layers.0.self_attn", "model.layers.10", "lm_head"]
    assert find_layer_key_pattern(keys, 1) == "model.model.layers.1"
    assert find_layer_key_pattern(keys, 10) == "model.layers.10"
    assert find_layer_key_pattern(keys, 0, "self_attn") == "layers.0.self_attn"
    assert find_layer_key_pattern(keys, 0) is None
    assert find_layer_key_pattern(dict.fromkeys(keys), 1, "mlp") is None
    assert find_layer_key_pattern([], 0) is None
    with llama_model.trace([1, 2]) as trace:
        pass
    key = find_layer_key_pattern(trace.activations, 2, "self_attn")
    assert key is not None and trace.activations[key].shape == (1, 2, 16)
    assert normalize_layer_key(key) == "layers.2.self_attn"


def test_components(llama_model: InterpretableModel, gpt2_model: InterpretableModel) -> None:
    for model, attn in ((llama_model, "self_attn"), (gpt2_model, "attn")):
        keys = [name for name, _ in model.named_modules()]
        block = model.layout.block(1)
        assert resolve_component("resid_post", 1, keys) == block
        assert resolve_component("resid_pre", 1, keys) == model.layout.block(0)
        assert resolve_component("attn", 1, keys) == f"{block}.{attn}"
        assert resolve_component("attn_head", 1, keys) == f"{block}.{attn}"
        assert resolve_component("mlp", 1, keys) == f"{block}.mlp"
    keys = [name for name, _ in llama_model.named_modules()]
    assert resolve_component("mlp.gate_proj", 1, keys) == "model.layers.1.mlp.gate_proj"
    for component, layer in (("attn", 9), ("resid_pre", 0), ("nonsense", 1)):
        with pytest.raises(AddressError, match=f"{component!r} of layer {layer}"):
            resolve_component(component, layer, keys)
