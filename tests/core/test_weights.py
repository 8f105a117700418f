"""Weights under TransformerLens's names: multiplied by hand, they give what the model computes."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlxray import InterpretableModel
from mlxray.errors import IndexOutside, InputError, PointAbsent
from mlxray.run.weights import WEIGHTS
from mlxray.testing.zoo import small_model

IDS = [[3, 5, 7, 2], [1, 4, 6, 8]]


def model_of(family: str) -> InterpretableModel:
    return InterpretableModel(small_model(family))


def same(a: mx.array, b: mx.array, tolerance: float = 1e-4) -> bool:
    size = mx.max(mx.abs(b)).item()
    return a.shape == b.shape and mx.max(mx.abs(a - b)).item() <= tolerance * size


def by_head(x: mx.array, weight: mx.array, bias: mx.array) -> mx.array:
    """(B, S, D) through (H, D, d) and (H, d): (B, H, S, d)."""
    return mx.stack([x @ w + b for w, b in zip(weight, bias, strict=True)], axis=1)


@pytest.mark.parametrize("family", ["gpt2", "gpt2/4-bit", "gpt2/8-bit"])
def test_queries_keys_and_values_of_gpt2(family: str) -> None:
    model = model_of(family)
    for layer in range(model.cfg.n_layers):
        attn = f"layers.{layer}.attn.input"
        cache = model.activations(IDS, [attn, ("q", layer), ("k", layer), ("v", layer)])
        for letter in "QKV":
            weight, bias = (
                getattr(model, f"W_{letter}")[layer],
                getattr(model, f"b_{letter}")[layer],
            )
            found = by_head(cache[attn], weight, bias)
            assert same(found, cache[letter.lower(), layer], 1e-3), letter


FAMILIES = [
    "llama",
    "llama/bias",
    "qwen",
    "qwen2",
    "gptj",
    "phi",
    "starcoder2",
    "gemma2",
    "cohere2",
]


@pytest.mark.parametrize("family", FAMILIES)
def test_projections_where_positions_are_rotated(family: str) -> None:
    """RoPE leaves position 0 as it is."""
    model = model_of(family)
    attn = model.layout.role(0, model.adapter.attn) + ".input"
    cache = model.activations(IDS, [attn, ("q", 0), ("k", 0), ("v", 0)])
    x = cache[attn]
    assert same(by_head(x[:, :1], model.W_Q[0], model.b_Q[0]), cache["q", 0][:, :, :1])
    assert same(by_head(x[:, :1], model.W_K[0], model.b_K[0]), cache["k", 0][:, :, :1])
    assert same(by_head(x, model.W_V[0], model.b_V[0]), cache["v", 0])
    assert model.W_K[0].shape[0] == model.cfg.n_key_value_heads


@pytest.mark.parametrize("family", ["gpt2", "gpt2/4-bit", "internlm2", "gpt_neox", *FAMILIES])
def test_what_sub_layers_return(family: str) -> None:
    model = model_of(family)
    cache = model.activations(
        IDS, ["layers.0." + p for p in ("z", "attn_out", "mlp_act", "mlp_out")]
    )
    heads = [cache["z", 0][:, h] @ weight for h, weight in enumerate(model.W_O[0])]
    assert same(sum(heads) + model.b_O[0], cache["attn_out", 0], 1e-3)
    assert same(cache["mlp_act", 0] @ model.W_out[0] + model.b_out[0], cache["mlp_out", 0], 1e-3)


@pytest.mark.parametrize("family", ["llama", "llama/bias", "qwen", "internlm2"])
def test_gated_mlps(family: str) -> None:
    model = model_of(family)
    mlp = model.layout.role(0, model.adapter.mlp) + ".input"
    cache = model.activations(IDS, [mlp, ("mlp_act", 0)])
    gate = cache[mlp] @ model.W_gate[0] + model.b_gate[0]
    neurons = gate * mx.sigmoid(gate) * (cache[mlp] @ model.W_in[0] + model.b_in[0])
    assert same(neurons, cache["mlp_act", 0])


@pytest.mark.parametrize("family", ["gpt2", "gptj", "gpt_neox", "phi", "starcoder2"])
def test_mlps_without_a_gate(family: str) -> None:
    model = model_of(family)
    mlp = model.layout.role(0, model.adapter.mlp) + ".input"
    cache = model.activations(IDS, [mlp, ("mlp_act", 0)])
    before = cache[mlp] @ model.W_in[0] + model.b_in[0]
    found = [same(gelu(before), cache["mlp_act", 0]) for gelu in (nn.gelu, nn.gelu_approx)]
    assert any(found)
    with pytest.raises(PointAbsent, match=r"no 'W_gate\[0\]': this block's MLP has no such"):
        model.W_gate[0]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt2/4-bit", "qwen2"])
def test_the_two_ends(family: str) -> None:
    model = model_of(family)
    cache = model.activations(IDS, ["embed", "final_norm", "logits"])
    entered = mx.stack([mx.stack([model.W_E[i] for i in row]) for row in IDS])
    if family.startswith("gpt2"):
        entered = entered + model.W_pos[:4]
    assert same(entered, cache["embed"], 1e-3)
    assert same(cache["final_norm"] @ model.W_U + model.b_U, cache["logits"], 1e-3)
    assert model.W_E.shape == (model.cfg.d_vocab, model.cfg.d_model) == model.W_U.T.shape


def test_layers_are_indexed_and_stacked(llama_model: InterpretableModel) -> None:
    weights = llama_model.W_Q
    assert len(weights) == 3 and mx.stack(list(weights)).shape == (3, 4, 16, 4)
    assert mx.array_equal(weights[-1, 2], weights[2][2])
    assert [w.shape for w in llama_model.W_K[:2]] == [(2, 16, 4)] * 2
    assert set(WEIGHTS) <= set(dir(llama_model)) and "W_Q of 3 layers" in repr(weights)
    with pytest.raises(IndexError, match="no layer 3: the model has 3"):
        weights[3]
    for outside in ((0, 99), (0, 0, -1000), (0, [0, 99])):
        with pytest.raises(IndexOutside):
            _ = weights[outside]
    with pytest.raises(InputError, match="layer is an integer"):
        weights["0"]


def test_a_weight_cannot_be_changed_by_its_view(make: Any) -> None:
    model = InterpretableModel(make.llama())
    before = model([[1, 2]])
    for view in (model.W_E, model.W_U, model.W_Q[0], model.b_O[0]):
        view[:] = 0
    assert mx.array_equal(model([[1, 2]]), before)


def test_weights_follow_modules_that_are_replaced(make: Any) -> None:
    model = InterpretableModel(make.llama())
    wide = make.llama(seed=5)
    model.model.model.layers[0].self_attn.q_proj = wide.model.layers[0].self_attn.q_proj
    assert mx.array_equal(model.W_Q[0], InterpretableModel(wide).W_Q[0])


@pytest.mark.parametrize(
    ("family", "name", "reason"),
    [
        ("llama", "W_pos", "no table of learned positions"),
        ("gpt_neox", "W_Q", "has no 'attention.q_proj'"),
        ("mixtral", "W_in", "has no 'block_sparse_moe.up_proj'"),
        ("mamba", "W_O", "this block has no softmax attention"),
    ],
)
def test_weights_that_there_are_not(family: str, name: str, reason: str) -> None:
    model = model_of(family)
    with pytest.raises(PointAbsent, match=rf"this model has no '{name}.*{reason}"):
        list(getattr(model, name))


def test_gated_queries_are_no_queries() -> None:
    """Qwen3-Next's query projection has a gate in it: twice as many outputs."""
    model = model_of("qwen3_next")
    layer = next(x for x in range(model.cfg.n_layers) if model.layout.roles(x).attn)
    with pytest.raises(PointAbsent, match=r"has \d+ outputs where its heads have \d+"):
        model.W_Q[layer]


def test_lora_is_no_single_matrix(make: Any) -> None:
    from mlx_lm.tuner.lora import LoRALinear

    model = InterpretableModel(make.llama())
    attention = model.model.model.layers[1].self_attn
    attention.q_proj = LoRALinear.from_base(attention.q_proj, r=2)
    with pytest.raises(PointAbsent, match="is LoRALinear, whose weight is no single matrix"):
        model.W_Q[1]
    assert model.W_Q[0].shape == (4, 16, 4)
