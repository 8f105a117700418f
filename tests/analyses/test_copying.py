"""OV circuits against the weights themselves, and copying scores against V × V eigenvalues."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from mlxray.analyses.attention import circuits, copying_score, ov_circuit
from mlxray.analyses.attention import copying as copying_module
from mlxray.errors import AddressError, AnalysisError


def weight(layer):
    """(in, out) in float64, quantized or not."""
    w = layer.weight
    if isinstance(layer, (nn.QuantizedLinear, nn.QuantizedEmbedding)):
        w = mx.dequantize(w, layer.scales, layer.biases, layer.group_size, layer.bits)
    return np.array(w.astype(mx.float32)).astype(np.float64).T


def by_hand(model, family, layer, head):
    """W_V W_O of one head, and the norm gains before and behind it, from the weights."""
    block = model.layout.modules[model.layout.block(layer)]
    if family == "gpt2":
        width = 32
        values = weight(block.attn.c_attn)[:, 2 * width :]
        outputs = weight(block.attn.c_proj)
        groups, d = 1, 8
    else:
        values, outputs = weight(block.self_attn.v_proj), weight(block.self_attn.o_proj)
        groups, d = 2, outputs.shape[0] // 4
    kv = head // groups
    return values[:, kv * d : (kv + 1) * d] @ outputs[head * d : (head + 1) * d]


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gemma3_text", "gpt2", "cohere"])
def test_circuits_are_the_products_of_the_weights(make, family):
    model = make(family)
    for layer, head in [(0, 0), (1, 3), (2, 2)]:
        expected = by_hand(model, family, layer, head)
        assert np.allclose(np.array(ov_circuit(model, layer, head)), expected, atol=1e-4)


def test_circuits_of_a_quantized_model(quantized):
    model = quantized("llama")
    expected = by_hand(model, "llama", 1, 2)
    assert np.allclose(np.array(ov_circuit(model, 1, 2)), expected, atol=1e-4)


def test_small_portions_give_the_same(make, monkeypatch):
    model = make("gemma2")
    whole, scores = ov_circuit(model, 1, 1), model.copying_scores().scores["copying"]
    monkeypatch.setattr(circuits, "AT_ONCE", 5)
    monkeypatch.setattr(copying_module, "AT_ONCE", 300)
    assert np.allclose(np.array(ov_circuit(model, 1, 1)), np.array(whole), atol=1e-6)
    again = model.copying_scores().scores["copying"]
    assert np.allclose(np.array(again), np.array(scores), atol=1e-4)


def gain(norm, offset):
    return np.array(norm.weight.astype(mx.float32)).astype(np.float64) + offset


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "gpt2", "cohere"])
def test_scores_are_of_the_eigenvalues_over_the_vocabulary(make, family):
    model = make(family)
    scores = np.array(model.copying_scores(layers=[0, 2]).scores["copying"])
    modules, adapter = model.layout.modules, model.adapter
    offset = 1 if family.startswith("gemma") else 0
    center = np.eye(32) - 1 / 32 if family in ("gpt2", "cohere") else np.eye(32)
    embedding = weight(modules[adapter.embed]).T
    head_path, _ = model.layout.output_head()
    unembedding = weight(modules[head_path]).T
    last = center * gain(modules[adapter.final_norm], offset)
    for row, layer in enumerate((0, 2)):
        block = model.layout.block(layer)
        first = center * gain(modules[f"{block}.{adapter.attn_norm}"], offset)
        post = np.eye(32)
        if adapter.post_attn_norm:
            post = post * gain(modules[f"{block}.{adapter.post_attn_norm}"], offset)
        for head in range(4):
            circuit = first @ by_hand(model, family, layer, head) @ post @ last
            values = np.linalg.eigvals(embedding @ circuit @ unembedding.T)
            expected = values.sum().real / np.abs(values).sum()
            assert scores[row, head] == pytest.approx(expected, abs=2e-3)
            assert copying_score(circuit, unembedding, embedding) == pytest.approx(
                expected, abs=1e-4
            )


def test_a_cap_of_the_logits_hardly_matters(make):
    capped = make("gemma2", final_logit_softcapping=1e6).copying_scores().scores["copying"]
    assert capped.shape == (3, 4)
    model = make("gemma2", final_logit_softcapping=30.0, scale=0.3)
    free = make("gemma2", final_logit_softcapping=1e6, scale=0.3)
    difference = model.copying_scores().scores["copying"] - free.copying_scores().scores["copying"]
    assert mx.max(mx.abs(difference)).item() < 0.05


def test_planted_copying_and_its_opposite(planted):
    result = planted.copying_scores()
    assert result.scores["copying"].tolist() == [
        [0, 0],
        [pytest.approx(1, abs=0.05), pytest.approx(-1, abs=0.05)],
    ]
    assert copying_score(ov_circuit(planted, 1, 0)) == pytest.approx(1)
    assert copying_score(ov_circuit(planted, 1, 1)) == pytest.approx(-1)
    moved = np.array(ov_circuit(planted, 0, 1))
    assert np.array_equal(moved[1:13, 13:25], np.eye(12))
    with pytest.raises(AnalysisError, match="copies nothing"):
        copying_score(moved)


def test_heads_that_are_not_there(make):
    with pytest.raises(AddressError, match="4 heads; there is no head 4"):
        ov_circuit(make("llama"), 0, 4)
    with pytest.raises(AddressError, match="no layer 9"):
        ov_circuit(make("llama"), 9, 0)


def test_values_that_are_no_linear_function_are_refused(make):
    model = make("llama", seed=3)
    plain = type(model.model.model.layers[0].self_attn.v_proj)

    class Bent(plain):
        def __call__(self, x):
            return mx.abs(super().__call__(x))

    model.model.model.layers[0].self_attn.v_proj.__class__ = Bent
    with pytest.raises(AnalysisError, match="no linear function"):
        ov_circuit(model, 0, 0)
