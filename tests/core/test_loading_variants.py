"""Checkpoints as they really come: quantised, mixed, with fine-tuned weights beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models import llama

from mlxray import InterpretableModel
from mlxray.errors import InputError, LoadError
from mlxray.testing import check_adapter

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "vocab_size": 96,
    "tie_word_embeddings": False,
}
IDS = [3, 1, 4, 1, 5, 9, 2, 6]


def model() -> nn.Module:
    mx.random.seed(0)
    root = llama.Model(llama.ModelArgs.from_dict(CONFIG))
    root.update(tree_map(lambda a: a + 0.1 * mx.random.normal(a.shape), root.parameters()))
    return root


def save(root: nn.Module, folder: Path, config: dict[str, Any]) -> str:
    folder.mkdir()
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(root.parameters())))
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize("bits", [4, 8])
def test_quantised_checkpoints_load_and_keep_the_contract(tmp_path: Path, bits: int) -> None:
    root = model()
    nn.quantize(root, group_size=32, bits=bits)
    config = {**CONFIG, "quantization": {"group_size": 32, "bits": bits}}
    loaded = InterpretableModel(save(root, tmp_path / "quantised", config))
    assert isinstance(loaded.model.model.layers[0].mlp.up_proj, nn.QuantizedLinear)
    assert mx.array_equal(loaded.run_with_hooks(IDS), root(mx.array([IDS])))
    report = check_adapter(loaded)
    assert report.ok, report.failures


def test_bits_that_differ_between_modules(tmp_path: Path) -> None:
    root = model()
    wide = "model.layers.0.mlp.down_proj"

    def bits(path: str, module: nn.Module) -> Any:
        if not hasattr(module, "to_quantized"):
            return False
        return {"group_size": 32, "bits": 8 if path == wide else 4}

    nn.quantize(root, class_predicate=bits)
    kinds = {
        path: bits(path, module)
        for path, module in model().named_modules()
        if hasattr(module, "to_quantized")
    }
    config = {**CONFIG, "quantization": {"group_size": 32, "bits": 4, **kinds}}
    loaded = InterpretableModel(save(root, tmp_path / "mixed", config))
    assert loaded.module("layers.0.mlp.down_proj").module.bits == 8
    assert loaded.module("layers.1.mlp.down_proj").module.bits == 4
    assert mx.array_equal(loaded.run_with_hooks(IDS), root(mx.array([IDS])))


def fine_tuned(folder: Path) -> tuple[str, dict[str, mx.array]]:
    from mlx_lm.tuner.utils import linear_to_lora_layers

    root = model()
    parameters = {"rank": 4, "scale": 2.0, "dropout": 0.0, "keys": ["self_attn.o_proj"]}
    root.freeze()
    linear_to_lora_layers(root, 2, parameters)
    mx.random.seed(5)
    trained = {
        name: 0.3 * mx.random.normal(value.shape)
        for name, value in tree_flatten(root.trainable_parameters())
    }
    folder.mkdir()
    mx.save_safetensors(str(folder / "adapters.safetensors"), trained)
    config = {"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": parameters}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return str(folder), trained


def test_a_lora_adapter_is_part_of_what_is_seen(tmp_path: Path) -> None:
    root = model()
    source = save(root, tmp_path / "base", CONFIG)
    lora_path, trained = fine_tuned(tmp_path / "lora")
    loaded = InterpretableModel(source, lora_path=lora_path)
    name = "model.layers.1.self_attn.o_proj"
    entering = loaded.activations(IDS, ["layers.1.self_attn.o_proj.input"])
    entering = entering["layers.1.self_attn.o_proj.input"]
    low = entering @ trained[f"{name}.lora_a"] @ trained[f"{name}.lora_b"]
    expected = entering @ root.model.layers[1].self_attn.o_proj.weight.T + 2.0 * low
    attention = loaded.watch(IDS, "attn_out", [1])[1]
    assert mx.allclose(attention, expected, rtol=1e-4, atol=1e-5)
    assert not mx.allclose(loaded.run_with_hooks(IDS), root(mx.array([IDS])), atol=1e-2)
    shares = loaded.watch(IDS, "head_out", [1])[1]
    assert mx.allclose(shares.sum(axis=1), attention, rtol=1e-4, atol=1e-5)
    report = check_adapter(loaded)
    assert report.ok, report.failures


def test_adapters_that_cannot_be_used(tmp_path: Path) -> None:
    source = save(model(), tmp_path / "base", CONFIG)
    with pytest.raises(LoadError, match=r"no adapter_config\.json"):
        InterpretableModel(source, lora_path=str(tmp_path))
    lora_path, _ = fine_tuned(tmp_path / "lora")
    weights = Path(lora_path) / "adapters.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(LoadError, match="safetensors"):
        InterpretableModel(source, lora_path=lora_path)
    names = ("model.layers.9.lora_a", "model.layers.9.lora_b")
    mx.save_safetensors(str(weights), {name: mx.zeros((2, 2)) for name in names})
    with pytest.raises(LoadError, match="cannot put"):
        InterpretableModel(source, lora_path=lora_path)
    with pytest.raises(InputError, match="by name"):
        InterpretableModel(model(), lora_path=lora_path)
