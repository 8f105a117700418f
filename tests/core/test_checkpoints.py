"""What a checkpoint says decides: its index, its quantisation, its sizes, before mlx-lm reads."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from mlx_lm.models import llama

from mlxray import InterpretableModel
from mlxray.errors import LoadError
from mlxray.loading.quantisation import check_quantisation

from .checkpoint import CONFIG, IDS, checkpoint, fails

INDEX = "model.safetensors.index.json"
SHARDS = [f"model-{i:05}-of-00002.safetensors" for i in (1, 2)]


def sharded(folder: Path) -> dict[str, str]:
    """Two shards and their index; returns the index's tensor → shard."""
    names = sorted(checkpoint(folder, shards=2))
    where = {name: SHARDS[i % 2] for i, name in enumerate(names)}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return where


def logits(folder: Path) -> mx.array:
    return InterpretableModel(str(folder)).run_with_hooks(IDS)


# The index names the shards


@pytest.mark.parametrize("shard", SHARDS)
def test_a_shard_that_the_index_names_and_the_folder_lacks(tmp_path: Path, shard: str) -> None:
    sharded(tmp_path)
    (tmp_path / shard).unlink()
    assert shard in fails(str(tmp_path), "which the folder does not have. Fetch it again")


def test_shards_that_the_index_does_not_name_are_not_read(tmp_path: Path) -> None:
    """What an older conversion left behind, with other numbers in it."""
    sharded(tmp_path)
    expected = logits(tmp_path)
    weights = {k: v * 0 for s in SHARDS for k, v in mx.load(str(tmp_path / s)).items()}
    for name in ("model.safetensors", "model-0.safetensors", "model-zzz.safetensors"):
        mx.save_safetensors(str(tmp_path / name), weights)
    assert mx.array_equal(logits(tmp_path), expected)
    (tmp_path / "model-broken.safetensors").write_bytes(b"")
    assert mx.array_equal(logits(tmp_path), expected)


def test_the_index_may_give_any_names(tmp_path: Path) -> None:
    where = sharded(tmp_path)
    expected = logits(tmp_path)
    for shard in SHARDS:
        (tmp_path / shard).rename(tmp_path / shard.replace("model", "weights"))
    renamed = {name: shard.replace("model", "weights") for name, shard in where.items()}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": renamed}))
    assert mx.array_equal(logits(tmp_path), expected)
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 3}))
    said = fails(str(tmp_path), "cannot load the model")
    assert "mlxray-" not in said  # no folder that only this program knows


def test_a_tensor_that_is_not_where_the_index_says(tmp_path: Path) -> None:
    where = sharded(tmp_path)
    name = min(where)
    other = SHARDS[1 - SHARDS.index(where[name])]
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {**where, name: other}}))
    assert name in fails(str(tmp_path), f"is in '{other}'; it is in '{where[name]}'")
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {**where, "more": other}}))
    fails(str(tmp_path), f"'more' is in '{other}'; it is not there")


@pytest.mark.parametrize("with_index", [True, False])
def test_a_tensor_in_two_shards(tmp_path: Path, with_index: bool) -> None:
    where = sharded(tmp_path)
    name = min(where)
    weights = mx.load(str(tmp_path / SHARDS[1]))
    mx.save_safetensors(str(tmp_path / SHARDS[1]), {**weights, name: mx.zeros((1,))})
    if not with_index:
        (tmp_path / INDEX).unlink()
    assert name in fails(str(tmp_path), "is both in")


@pytest.mark.parametrize(
    "content",
    ["[]", "null", "{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 5}}',
     '{"weight_map": {"a": "../x.safetensors"}}', '{"weight_map": {"a": "x\\u0000"}}',
     '{"weight_map": {"a": "5", "b": 5}}', '{"weight_map": {"a": ""}}',
     '{"weight_map": {"a": ["x"]}}'],
)  # fmt: skip
def test_an_index_that_is_none(tmp_path: Path, content: str) -> None:
    sharded(tmp_path)
    (tmp_path / INDEX).write_text(content)
    fails(str(tmp_path), r"index\.json' is broken")


# Every file is a file


@pytest.mark.parametrize(
    "name",
    ["config.json", INDEX, *SHARDS[:1], "tokenizer.json", "tokenizer_config.json",
     "generation_config.json", "hf_quant_config.json", "chat_template.jinja", "merges.txt"],
)  # fmt: skip
def test_what_mlx_lm_would_wait_for_or_pass_over(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    sharded(folder)
    path = folder / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    assert name in fails(str(folder), "it is a pipe")
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    assert name in fails(str(folder), "a link to .*nowhere', which is not there")
    path.unlink()
    path.symlink_to(path)
    assert name in fails(str(folder), "leads back to itself")
    path.unlink()
    path.mkdir()
    assert name in fails(str(folder), "it is a folder")


def test_a_model_folder_that_is_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sharded(tmp_path / "model")
    (tmp_path / "link").symlink_to(tmp_path / "model")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a" / "loop")
    assert mx.array_equal(logits(tmp_path / "link"), logits(tmp_path / "model"))
    monkeypatch.chdir(tmp_path)
    for name in ("a/dangling", "a/loop"):  # which could be the name of a repository as well
        fails(name, "a link that leads nowhere")


@pytest.mark.parametrize("name", ["a[1]", "what?", "every*"])
@pytest.mark.parametrize("index", [False, True])
def test_a_folder_whose_name_is_a_pattern(tmp_path: Path, name: str, index: bool) -> None:
    folder = tmp_path / name
    folder.mkdir()
    if index:
        sharded(folder)
    else:
        checkpoint(folder)
    assert logits(folder).shape[1] == len(IDS)


# Sizes


@pytest.mark.parametrize(
    "more",
    [
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 10**40},
        {"n_layers": 10**9},
        {"layer_types": ["full"] * 10**6},
        {"hybrid_override_pattern": "M" * 10**6},
        {"text_config": {"num_hidden_layers": 10**9}},
        {"model_type": "mixtral", "num_local_experts": 10**9},
        {"num_hidden_layers": 513},
    ],
    ids=lambda more: next(reversed(more)),
)
def test_configs_that_ask_for_more_than_the_files_hold(tmp_path: Path, more: Any) -> None:
    checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **more}))
    start = time.process_time()
    fails(str(tmp_path), "config.json.*; the files h(old 21 tensors|ave .* bytes)")
    assert time.process_time() - start < 2


@pytest.mark.parametrize("name", ["rope_theta", "rms_norm_eps", "head_dim"])
def test_numbers_that_are_text(tmp_path: Path, name: str) -> None:
    checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, name: "1000"}))
    fails(str(tmp_path), f"{name} is a number; got the text '1000'|cannot load the model")


def test_a_config_of_many_bytes(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "padding": "x" * (17 << 20)}))
    fails(str(tmp_path), "at most 16777216 are read")


# Quantisations of others


def quantised(folder: Path, facts: Any, **more: Any) -> str:
    checkpoint(folder, config={**CONFIG, "quantization_config": facts, **more})
    return str(folder)


@pytest.mark.parametrize(
    "method",
    ["bitsandbytes", "hqq", "quanto", "aqlm", "torchao", "eetq", "fbgemm_fp8", "auto-round", "exl2",
     "quark", "vptq", "no such method"],
)  # fmt: skip
def test_a_method_that_mlx_lm_does_not_read_is_named(tmp_path: Path, method: str) -> None:
    fails(quantised(tmp_path, {"quant_method": method}), f"quantised with '{method}', which")


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"quant_method": "awq", "bits": 8}, "'awq', and mlx-lm does not read 8 bits"),
        ({"quant_method": "gptq", "bits": 3}, "'gptq', and mlx-lm does not read 3 bits"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, "layout 'gemv'"),
        ({"quant_method": "compressed-tensors", "format": "float-quantized"}, "'float-quantized'"),
        ({"quant_method": "compressed-tensors"}, "format None"),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "algorithm 'FP8'"),
        ({"quant_method": "modelopt", "quantization": {"quant_algo": "FP8"}}, "algorithm 'FP8'"),
        ({"quant_method": "modelopt", "quantization": "FP8"}, "algorithm 'FP8'"),
        ({"quant_method": 5}, "no quant_method"),
        ({"bits": 4, "group_size": 64}, "no quant_method"),
        ([1], "no quant_method"),
    ],
)
def test_what_of_a_method_mlx_lm_does_not_convert(tmp_path: Path, facts: Any, said: str) -> None:
    fails(quantised(tmp_path, facts), said)


def test_it_may_stand_in_two_other_places(tmp_path: Path) -> None:
    facts = {"quant_method": "bitsandbytes"}
    checkpoint(tmp_path / "a", config={**CONFIG, "text_config": {"quantization_config": facts}})
    fails(str(tmp_path / "a"), "'bitsandbytes'")
    checkpoint(tmp_path / "b")
    (tmp_path / "b" / "hf_quant_config.json").write_text(json.dumps(facts))
    fails(str(tmp_path / "b"), "'bitsandbytes'")


def test_groups_in_an_order_of_their_own(tmp_path: Path) -> None:
    source = quantised(tmp_path, {"quant_method": "gptq", "bits": 4})
    weights = mx.load(f"{source}/model.safetensors")
    weights["model.layers.0.mlp.up_proj.g_idx"] = mx.zeros((8,), mx.int32)
    mx.save_safetensors(f"{source}/model.safetensors", weights)
    fails(source, r"'gptq', and .* groups of its own \(g_idx\)")


@pytest.mark.parametrize(
    "facts",
    [
        {"quant_method": "awq", "bits": 4, "version": "GEMM"},
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "compressed-tensors", "format": "pack-quantized"},
        {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"},
        {"quant_method": "modelopt", "quantization": {"quant_algo": "NVFP4"}},
        {"quant_method": "bitnet"},
        {"quant_method": "mxfp8"},
        {"quant_method": "fp8"},
    ],
)
def test_what_mlx_lm_converts_passes(facts: Any) -> None:
    check_quantisation(facts, Path("x"), ["a.qweight"])


WIDE = {**CONFIG, "hidden_size": 64, "intermediate_size": 64}


def write(folder: Path, weights: dict[str, mx.array], facts: Any) -> str:
    folder.mkdir(exist_ok=True)
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    config = {**WIDE, "quantization_config": facts}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def test_mxfp4_and_awq_load(tmp_path: Path) -> None:
    root = llama.Model(llama.ModelArgs(**WIDE))
    plain = dict(tree_flatten(root.parameters()))
    nn.quantize(root, 32, 4, mode="mxfp4")
    packed = dict(tree_flatten(root.parameters()))
    loaded = InterpretableModel(write(tmp_path, packed, {"quant_method": "mxfp4"}))
    assert mx.array_equal(loaded.run_with_hooks(IDS), root(mx.array([IDS])))

    awq = {}
    for name, value in plain.items():
        if not name.endswith("_proj.weight"):
            awq[name] = value
            continue
        rows, columns = value.shape
        stem = name.removesuffix("weight")
        awq[f"{stem}qweight"] = mx.random.randint(0, 2**31 - 1, (columns, rows // 8), mx.int32)
        awq[f"{stem}qzeros"] = mx.zeros((columns // 32, rows // 8), mx.int32)
        awq[f"{stem}scales"] = mx.ones((columns // 32, rows), mx.float16)
    facts = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}
    loaded = InterpretableModel(write(tmp_path, awq, facts))
    assert loaded.module("layers.0.mlp.up_proj").module.bits == 4


@pytest.mark.parametrize("facts", [{"quant_method": "fp8"}, None])
def test_packed_numbers_are_not_taken_for_weights(tmp_path: Path, facts: Any) -> None:
    """Such as fp8 without scales, which fits every shape and is loaded as integers."""
    weights = dict(tree_flatten(llama.Model(llama.ModelArgs(**WIDE)).parameters()))
    name = "model.layers.0.mlp.up_proj.weight"
    weights[name] = mx.ones(weights[name].shape, mx.uint8)
    said = fails(write(tmp_path, weights, facts), "quantised in a way that mlx-lm did not convert")
    assert "layers.0.mlp.up_proj" in said


def test_old_errors_stay_load_errors(tmp_path: Path) -> None:
    """A shard whose arrays are shorter than its header says, named by the index."""
    sharded(tmp_path)
    path = tmp_path / SHARDS[1]
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(LoadError, match="the last 4 bytes are missing"):
        InterpretableModel(tmp_path)
