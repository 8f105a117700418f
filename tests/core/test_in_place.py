"""Changing arrays in place, by the user or by the model, never reaches what a run kept."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest

from mlxray import Adapter, InterpretableModel
from mlxray import interventions as iv

from .reference import forward, numbers
from .test_values import close

IDS = [3, 5, 7, 2]


def test_saved_values(llama_model: InterpretableModel) -> None:
    with llama_model.trace(IDS) as trace:
        saved = llama_model.layers[0].output.save()
        kept = mx.array(saved)
        saved += 100
        saved[:, 0] = 7
        read = trace.read("layers.1")
        read *= 0
    assert mx.array_equal(trace.saved_values["layers.0.output"], kept)
    assert mx.array_equal(trace.get("layers.0.output"), kept)
    assert mx.array_equal(trace.activations["layers.0"], kept)
    again = trace.get("layers.0.output")
    again += 1
    assert mx.array_equal(trace.get("layers.0.output"), kept)
    assert not mx.array_equal(saved, kept)


def test_the_output_in_the_block_and_after_it(llama_model: InterpretableModel) -> None:
    bare = llama_model.model(mx.array([IDS]))
    with llama_model.trace(IDS) as trace:
        early = trace.output
        early += 100
    late = trace.output
    late -= 3
    assert mx.array_equal(trace.output, bare)
    assert trace.activations["layers.1"].shape == (1, 4, 16)  # replayed against the output


def test_replayed_activations(llama_model: InterpretableModel) -> None:
    with llama_model.trace(IDS) as trace:
        pass
    first = trace.activations["layers.1"]
    kept = mx.array(first)
    first += 1
    assert mx.array_equal(trace.activations["layers.1"], kept)


def test_cache(llama_model: InterpretableModel) -> None:
    _, cache = llama_model.run_with_cache(IDS, ["layers.1", "layers.0.self_attn.rope"])
    for address in ("layers.1", "layers.0.self_attn.rope"):
        value = cache[address]
        first = value[0] if isinstance(value, tuple) else value
        kept = mx.array(first)
        first += 100
        value = cache[address]
        assert mx.array_equal(value[0] if isinstance(value, tuple) else value, kept)


def test_points_that_share_an_array(llama_model: InterpretableModel) -> None:
    """resid_post of one layer and resid_pre of the next are one array in the model."""
    places = [("resid_post", 0), ("resid_pre", 1), ("scores", 0), ("q", 0)]
    cache = llama_model.activations(IDS, places)
    kept = {place: mx.array(cache[place]) for place in places}
    for place in places:
        value = cache[place]
        value *= 0
    for place in places:
        assert mx.array_equal(cache[place], kept[place])


@pytest.mark.parametrize("edge", ["", ".input"])
def test_an_edit_made_in_place_is_an_edit_there_and_nowhere_else(
    llama_model: InterpretableModel, edge: str
) -> None:
    """The norm's argument is the stream that the block goes on with: only the norm may see it."""

    def zero(a: mx.array) -> mx.array:
        a[:] = 0
        return a

    address = "layers.1.input_layernorm" + edge
    with llama_model.trace(IDS, {address: zero}) as trace:
        pre, attn = trace.read(("resid_pre", 1)), trace.read(("attn_out", 1))
        mid = trace.read(("resid_mid", 1))
    clean = llama_model.activations(IDS, [("resid_pre", 1)])
    assert mx.array_equal(pre, clean["resid_pre", 1])
    assert mx.array_equal(attn, mx.zeros_like(attn))  # no bias: nothing in, nothing out
    assert mx.array_equal(mid, pre)
    assert trace.reports[0].changed == 4 * 16
    direct = llama_model.run_with_hooks(IDS, [(address, iv.zero_out)])
    assert mx.array_equal(direct, trace.output)


def test_a_hook_cannot_change_the_models_operands_through_its_inputs(
    llama_model: InterpretableModel,
) -> None:
    def through_inputs(inputs: Any, output: Any, wrapper: Any) -> None:
        inputs[0][:] = 5
        wrapper.args[0][:] = 6

    def through_call(activation: mx.array, call: Any) -> mx.array:
        call.args[0][:] = 7
        return activation

    bare = llama_model.model(mx.array([IDS]))
    for hook in (through_inputs, through_call):
        hooks = [
            (f"layers.{i}.{part}", hook) for i in (0, 1) for part in ("mlp", "input_layernorm")
        ]
        assert mx.array_equal(llama_model.run_with_hooks(IDS, hooks), bare)
        assert mx.array_equal(llama_model.run_with_hooks(IDS, [("model.embed_tokens", hook)]), bare)


def test_values_of_interventions_are_as_they_were_when_made(
    llama_model: InterpretableModel,
) -> None:
    vector = mx.ones((16,))
    whole = mx.ones((1, 1, 16))
    edits = [
        iv.add_vector(vector),
        iv.replace_with(vector),
        iv.replace_at_positions(whole, [0]),
    ]
    before = [llama_model.run_with_hooks(IDS, [("layers.1", edit)]) for edit in edits]
    vector += 10
    whole += 10
    after = [llama_model.run_with_hooks(IDS, [("layers.1", edit)]) for edit in edits]
    assert all(mx.array_equal(a, b) for a, b in zip(before, after, strict=True))


def test_gpt2_adds_positions_in_place(gpt2_model: InterpretableModel) -> None:
    """`hidden_states += self.wpe(…)`: the embedding's own output stays without positions."""
    _, expected = forward(gpt2_model.model, IDS)
    weights = numbers(gpt2_model.model.model.wte.weight)
    for cache in (
        gpt2_model.run_with_cache(IDS)[1],
        gpt2_model.run_with_cache(IDS, ["model.wte", "embed"])[1],
    ):
        close(cache["model.wte"], weights[IDS][None])
        close(cache["embed"], expected["embed"])
    with gpt2_model.trace(IDS) as trace:
        saved = trace.save("model.wte")
    close(saved, weights[IDS][None])
    close(trace.activations["wte"], weights[IDS][None])


class InPlaceAttention(nn.Module):
    """Writes into everything that it can reach, as careless models do."""

    def __init__(self) -> None:
        super().__init__()
        self.n_heads = self.n_kv_heads = 2
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(8, 8, bias=False) for _ in range(4)
        )

    def __call__(self, x: mx.array) -> mx.array:
        def heads(y: mx.array) -> mx.array:
            return y.reshape(*y.shape[:2], 2, 4).transpose(0, 2, 1, 3)

        q, k, v = heads(self.q_proj(x)), heads(self.k_proj(x)), heads(self.v_proj(x))
        z = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.5, mask="causal")
        merged = z.transpose(0, 2, 1, 3).reshape(x.shape)
        q *= 0
        k *= 0
        v *= 0
        z += 50
        out = self.o_proj(merged)
        merged *= 0
        x += 9
        return out


class InPlaceBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn = InPlaceAttention()
        self.mlp = nn.Linear(8, 8)
        self.input_layernorm, self.post_attention_layernorm = nn.RMSNorm(8), nn.RMSNorm(8)

    def __call__(self, x: mx.array) -> mx.array:
        attn = self.self_attn(self.input_layernorm(x))
        attn += x
        hidden = self.mlp(self.post_attention_layernorm(attn))
        hidden += attn
        return hidden


class InPlaceModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCABULARY, 8)
        self.layers = [InPlaceBlock(), InPlaceBlock()]
        self.norm = nn.RMSNorm(8)

    def __call__(self, tokens: mx.array) -> mx.array:
        tokens += 0
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            y = layer(x)
            x += y
        tokens += 1000
        return self.embed_tokens.as_linear(self.norm(x))


VOCABULARY = 11
PATHS = Adapter(
    "in-place", embed="embed_tokens", layers="layers", final_norm="norm", down_proj="none"
)


def test_models_that_write_into_what_they_were_given_or_returned(make: Any) -> None:
    model = InterpretableModel(make.randomised(InPlaceModel()), adapter=PATHS)
    bare = model.model(mx.array([IDS]))
    logits, cache = model.run_with_cache(IDS)
    assert mx.array_equal(logits, bare)
    for layer in (0, 1):
        attn = model.model.layers[layer].self_attn
        pre = cache["resid_pre", layer]
        normed = cache[f"layers.{layer}.input_layernorm"]
        assert mx.allclose(normed, model.model.layers[layer].input_layernorm(pre), atol=1e-6)
        q = attn.q_proj(normed).reshape(1, 4, 2, 4).transpose(0, 2, 1, 3)
        assert mx.allclose(cache["q", layer], q, atol=1e-6)
        v = attn.v_proj(normed).reshape(1, 4, 2, 4).transpose(0, 2, 1, 3)
        assert mx.allclose(cache["v", layer], v, atol=1e-6)
        assert mx.allclose(cache["pattern", layer].sum(-1), mx.ones((1, 2, 4)), atol=1e-6)
        z = cache["pattern", layer] @ v
        assert mx.allclose(cache["z", layer], z, atol=1e-5)
        merged = z.transpose(0, 2, 1, 3).reshape(1, 4, 8)
        assert mx.allclose(cache["attn_out", layer], attn.o_proj(merged), atol=1e-5)
        mlp = model.model.layers[layer].mlp(cache[f"layers.{layer}.post_attention_layernorm"])
        assert mx.allclose(cache["mlp_out", layer], mlp, atol=1e-5)
    embedded = model.model.embed_tokens(mx.array([IDS]))
    assert mx.array_equal(cache["embed_tokens"], embedded)
    with model.trace(IDS) as trace:
        pass
    for name in trace.activations:
        assert mx.array_equal(trace.activations[name], cache[name]), name
