"""The finder: on families that adapters declare, and on toys whose names say nothing."""

import random
from dataclasses import fields
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlxray import Adapter, InterpretableModel, OwnSoftmax, registry
from mlxray.errors import AdapterError, PointAbsent
from mlxray.testing import Report, check_adapter
from mlxray.testing.zoo import small_model

from . import toys

find = registry.get("adapter", "structural").find

#: What no point needs the finder does not look for.
OTHERS = ("name", "model_types", "notes", "head", "projections", "up_proj", "gate_proj")
ROLES = [f.name for f in fields(Adapter) if f.name not in OTHERS]


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2", "qwen3", "gemma3", "qwen"])
def test_agrees_with_what_is_declared(name: str):
    model = small_model(name)
    found, declared = find(model), InterpretableModel(model).adapter
    for role in ROLES:
        assert getattr(found, role) == getattr(declared, role), role


def proven(report: Report) -> set[str]:
    assert report.ok, report.table()
    return {v.point for v in report.verdicts() if v.status == "proven"}


ALL = {
    *("embed", "resid_pre", "attn_out", "attn_add", "resid_mid", "mlp_out", "mlp_add"),
    *("resid_post", "q", "k", "v", "scores", "pattern", "z", "head_out", "mlp_act"),
    *("final_norm", "logits"),
}


@pytest.mark.parametrize("forward", [toys.sequential, toys.post_norms, toys.scaled])
@pytest.mark.parametrize("seed", [0, 1])
def test_toy_without_telling_names(forward, seed: int):
    model = toys.make(forward, seed=seed)
    report = check_adapter(model)
    assert report.adapter == "structural"
    assert proven(report) == ALL
    adapter = InterpretableModel(model).adapter
    block = model.part("blocks")[0]
    assert adapter.layers == model.named["blocks"]
    assert (adapter.attn, adapter.mlp) == (block.named["attn"], block.named["mlp"])
    assert adapter.out_proj == block.part("attn").named["out"]
    assert adapter.down_proj == block.part("mlp").named["down"]
    assert (adapter.embed, adapter.head) == (model.named["embed"], model.named["head"])
    assert adapter.final_norm == model.named["norm"]
    assert adapter.heads == "head_count"


def test_roles_of_norms():
    before = InterpretableModel(toys.make(toys.sequential))
    block = before.model.part("blocks")[0]
    assert before.adapter.attn_norm == block.named["norm1"]
    assert before.adapter.mlp_norm == block.named["norm2"]
    after = InterpretableModel(toys.make(toys.post_norms))
    block = after.model.part("blocks")[0]
    assert (after.adapter.attn_norm, after.adapter.mlp_norm) == (None, None)
    assert after.adapter.post_attn_norm == block.named["norm1"]
    assert after.adapter.post_mlp_norm == block.named["norm2"]


def test_factors_are_measured():
    adapter = find(toys.make(toys.scaled))
    assert adapter.attn_scale == pytest.approx(0.3, rel=1e-5)
    assert adapter.mlp_scale == pytest.approx(0.7, rel=1e-5)


def test_parallel_blocks_have_no_middle():
    model = toys.make(toys.parallel)
    assert proven(check_adapter(model)) == ALL - {"resid_mid"}
    with pytest.raises(PointAbsent, match="parallel"):
        InterpretableModel(model).watch([1, 2], "resid_mid")


def test_norms_that_are_functions():
    model = toys.make(toys.without_norm_modules)
    assert proven(check_adapter(model)) == ALL - {"resid_mid"}
    assert "no module receives" in find(model).absent["resid_mid"]


def test_block_that_is_no_sum_is_refused_with_the_reason():
    model = toys.make(toys.squashed)
    report = check_adapter(model)
    # The first half is a sum that the second norm reads; what comes after it cannot be told.
    assert proven(report) == ALL - {"mlp_add"}
    with pytest.raises(PointAbsent, match="not the sum"):
        InterpretableModel(model).watch([1, 2], "mlp_add")


def test_softmax_of_the_models_own():
    model = toys.make(toys.sequential, attention=partial(toys.Attention, fused=False))
    adapter = find(model)
    assert isinstance(adapter.attention, OwnSoftmax)
    # One projection gives queries, keys and values together: no module returns them alone.
    assert proven(check_adapter(model)) == ALL - {"q", "k", "v", "z"}
    assert {"q", "k", "v", "z"} <= set(adapter.absent)


def test_gate_before_the_output_projection():
    model = toys.make(toys.sequential, attention=partial(toys.Attention, gate=True))
    assert "out_proj" in find(model).departures
    assert proven(check_adapter(model)) == ALL


def test_mixer_in_the_place_of_attention():
    model = toys.make(toys.sequential, attention=toys.Running)
    attention = {"attn_out", "attn_add", "q", "k", "v", "scores", "pattern", "z", "head_out"}
    assert proven(check_adapter(model)) == (ALL - attention) | {"mixer_out", "mixer_add"}


def test_kinds_of_blocks():
    names = random.Random(3)

    def block(attn):
        parts = {"norm1": nn.RMSNorm(16), "norm2": nn.RMSNorm(16), "mlp": toys.Feed(names)}
        return toys.Block(names, toys.sequential, attn=attn, **parts)

    blocks = [block(make(names)) for make in (toys.Running, toys.Attention, toys.Running)]
    model = toys.randomize(toys.Toy(names, blocks))
    report = check_adapter(model)
    assert proven(report) == ALL | {"mixer_out", "mixer_add"}
    layers = {v.point: v.layers for v in report.verdicts()}
    assert layers["pattern"] == (1,)
    assert layers["mixer_out"] == (0, 2)


def test_no_attention_and_no_final_norm():
    model = toys.make(toys.only_feed, norm=False)
    assert proven(check_adapter(model)) == {
        *("embed", "resid_pre", "resid_post", "mlp_out", "mlp_add", "mlp_act", "logits")
    }
    with pytest.raises(PointAbsent, match="last block"):
        InterpretableModel(model).run_with_cache([1, 2], ["final_norm"])


class Plain(nn.Module):
    """Embedding, a list of plain layers, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 8)
        self.transformer = [nn.Sequential(nn.Linear(8, 8), nn.GELU()) for _ in range(3)]
        self.head = nn.Linear(8, 30)

    def __call__(self, tokens):
        x = self.embedding(tokens)
        for layer in self.transformer:
            x = layer(x)
        return self.head(x)


@pytest.mark.parametrize("name", ["transformer", "layers"])
def test_plain_modules(name: str):
    model = InterpretableModel(Plain(), layer_attr=name)
    assert len(model.layers) == 3
    _, cache = model.run_with_cache([1, 2, 3], [("resid_pre", 2), "head"])
    assert cache["resid_pre", 2].shape == (1, 3, 8)
    assert cache["head"].shape == (1, 3, 30)
    inner = model.activations([1, 2, 3], ["transformer.1.layers.0"])
    assert inner["transformer.1.layers.0"].shape == (1, 3, 8)


@pytest.mark.parametrize("name", ["transformer", "transformer.h", "blocks"])
def test_layer_attr_that_does_not_exist(name: str):
    with pytest.raises(AttributeError, match=f"{name!r}.*layer_attr") as caught:
        InterpretableModel(toys.make(toys.sequential), layer_attr=name)
    assert isinstance(caught.value, AdapterError)


def test_layer_attr_by_path_or_last_name():
    model = small_model("gpt2")
    assert find(model, "h").layers == find(model, "model.h").layers == "model.h"


def test_model_without_a_list_of_blocks():
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(9, 9)

        def __call__(self, tokens):
            return self.table(tokens)

    with pytest.raises(AdapterError, match="layer_attr"):
        InterpretableModel(Bare())


def test_model_that_takes_no_tokens():
    with pytest.raises(AdapterError, match="cannot be run on token ids"):
        InterpretableModel(nn.Sequential(nn.Linear(3, 4)))


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_half_precision_finds_the_same(name: str, dtype: mx.Dtype):
    model = small_model(name)
    wanted = find(model)
    model.set_dtype(dtype)
    found = find(model)
    for role in ROLES:
        assert getattr(found, role) == getattr(wanted, role), role


def test_looking_leaves_the_model_as_it_was():
    model = small_model("llama")
    classes = [type(m) for m in model.modules()]
    softmax = mx.softmax
    find(model)
    assert [type(m) for m in model.modules()] == classes
    assert mx.softmax is softmax


def test_notes_tell_what_was_found():
    notes = " ".join(find(small_model("gpt2")).notes)
    assert "'model.h'" in notes
    assert "attn 'attn'" in notes
