"""Parts of a cache's residual stream: they sum to it, and to the logits, in numpy."""

from __future__ import annotations

import copy
import re
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mlxray import InterpretableModel
from mlxray.checks import elsewhere
from mlxray.errors import AddressError, AnalysisError, InputError, PointAbsent
from mlxray.testing.zoo import small_model

IDS = [[1, 2, 3, 4], [5, 6, 7, 8]]
FAMILIES = ["gpt2", "llama", "gemma2", "qwen3", "mixtral", "granite", "cohere", "nemotron_h"]


def model_of(family: str) -> InterpretableModel:
    return InterpretableModel(small_model(family))


def close(a: mx.array, b: Any, tolerance: float = 1e-3) -> bool:
    a, b = np.array(a, dtype=np.float64), np.array(b, dtype=np.float64)
    return (
        a.shape == b.shape
        and np.isfinite(b).all()
        and np.abs(a - b).max() <= tolerance * max(1e-3, np.abs(b).max())
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_sum_to_each_stream(family: str) -> None:
    model = model_of(family)
    _, cache = model.run_with_cache(IDS)
    last = model.cfg.n_layers - 1
    assert close(cache.decompose_resid().sum(axis=0), cache["resid_post", last])
    assert mx.array_equal(cache.decompose_resid(-1), cache.decompose_resid(last + 1))
    for layer in range(last + 1):
        assert close(cache.decompose_resid(layer).sum(axis=0), cache["resid_pre", layer])
        if ("resid_mid", layer) in cache:
            middle = cache.decompose_resid(layer, mlp_input=True)
            assert close(middle.sum(axis=0), cache["resid_mid", layer])
    stack, labels = cache.decompose_resid(return_labels=True, pos_slice=-1)
    assert labels[0] == "embed" and stack.shape == (len(labels), 2, model.cfg.d_model)
    for part, label in zip(stack, labels, strict=True):
        assert mx.array_equal(part, cache[label][:, -1])


def test_modes_and_positions(llama_model: InterpretableModel) -> None:
    _, cache = llama_model.run_with_cache(IDS)
    _, labels = cache.decompose_resid(2, mode="attn", return_labels=True)
    assert labels == ["embed", "layers.0.attn_add", "layers.1.attn_add"]
    _, labels = cache.decompose_resid(2, mode="mlp", incl_embeds=False, return_labels=True)
    assert labels == ["layers.0.mlp_add", "layers.1.mlp_add"]
    whole = cache.decompose_resid()
    assert mx.array_equal(cache.decompose_resid(pos_slice=slice(1, 3)), whole[:, :, 1:3])
    assert mx.array_equal(cache.decompose_resid(pos_slice=2), whole[:, :, 2])
    streams, labels = cache.accumulated_resid(2, incl_mid=True, mlp_input=True, return_labels=True)
    names = ["0.resid_pre", "0.resid_mid", "1.resid_pre", "1.resid_mid", "2.resid_pre"]
    assert labels == [f"layers.{name}" for name in [*names, "2.resid_mid"]]
    for stream, label in zip(streams, labels, strict=True):
        assert mx.array_equal(stream, cache[label])
    _, labels = cache.accumulated_resid(return_labels=True)
    assert labels[-1] == "layers.2.resid_post" and len(labels) == 4


@pytest.mark.parametrize("family", ["gpt2", "llama", "granite", "cohere"])
def test_heads_sum_to_what_attention_adds(family: str) -> None:
    """With the output projections' biases, which belong to no head."""
    model = model_of(family)
    layers = range(model.cfg.n_layers)
    points = [(p, x) for p in ("head_out", "attn_add", "resid_post", "resid_pre") for x in layers]
    cache = model.activations(IDS, points)
    stack, labels = cache.stack_head_results(return_labels=True)
    assert labels == [f"L{x}H{h}" for x in layers for h in range(model.cfg.n_heads)]
    for layer in layers:
        own = stack[[i for i, label in enumerate(labels) if label.startswith(f"L{layer}H")]]
        factor = model.model.args.residual_multiplier if family == "granite" else 1.0
        wanted = cache["attn_add", layer] - factor * model.b_O[layer]
        assert close(own.sum(axis=0), wanted)
    whole, labels = cache.stack_head_results(1, incl_remainder=True, return_labels=True)
    assert labels[-1] == "remainder" and close(whole.sum(axis=0), cache["resid_pre", 1])
    assert stack.shape[1:] == (2, 4, model.cfg.d_model)
    assert mx.array_equal(cache.stack_head_results(pos_slice=-1), stack[:, :, -1])


def biases(model: InterpretableModel) -> np.ndarray:
    """What the logits are without a stream: the final norm's bias through the head, its own too."""
    norm = model.layout.modules[model.adapter.final_norm]
    constant = np.array(model.b_U, dtype=np.float64)
    if "bias" in norm:
        constant = constant + np.array(norm.bias, np.float64) @ np.array(model.W_U, np.float64)
    return constant


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen3", "mixtral", "nemotron_h"])
def test_parts_sum_to_logits_and_their_differences(family: str) -> None:
    model = model_of(family)
    logits, cache = model.run_with_cache(IDS)
    logits, constant = np.array(logits, np.float64), biases(model)
    stack = cache.decompose_resid()
    found = cache.logit_attrs(stack, 7)
    assert found.shape == stack.shape[:3]
    assert close(found.sum(axis=0), logits[..., 7] - constant[7])
    right, wrong = [3, 9], [5, 11]
    found = cache.logit_attrs(stack, right, wrong).sum(axis=0)
    for row in range(2):
        a, b = right[row], wrong[row]
        wanted = logits[row, :, a] - logits[row, :, b] - constant[a] + constant[b]
        assert close(found[row], wanted), row
    each = mx.array([[2, 3, 4, 5], [6, 7, 8, 9]])
    found = cache.logit_attrs(stack, each, 1).sum(axis=0)
    told = np.take_along_axis(logits, np.array(each)[..., None], axis=-1)[..., 0]
    assert close(found, told - logits[..., 1] - constant[np.array(each)] + constant[1])
    last = cache.decompose_resid(pos_slice=-1)
    found = cache.logit_attrs(last, right, wrong, pos_slice=-1)
    assert close(found, cache.logit_attrs(stack, right, wrong)[:, :, -1])


def test_parts_of_a_logit_by_hand() -> None:
    """Each part of GPT-2's: centred, over the stream's deviation, times the weights, read out."""
    model = model_of("gpt2")
    _, cache = model.run_with_cache(IDS)
    stack = cache.decompose_resid()
    norm = model.model.model.ln_f
    stream = np.array(cache["resid_post", -1], np.float64)
    scale = np.sqrt(stream.var(axis=-1) + norm.eps)
    parts = np.array(stack, np.float64)
    parts = (parts - parts.mean(axis=-1, keepdims=True)) / scale[..., None]
    readout = np.array(norm.weight, np.float64) * np.array(model.W_U, np.float64)[:, 4]
    assert close(cache.logit_attrs(stack, 4), parts @ readout)


def test_the_logit_before_a_cap() -> None:
    model = model_of("gemma2")
    logits, cache = model.run_with_cache(IDS)
    cap = model.model.args.final_logit_softcapping
    stack = cache.decompose_resid()
    for token in (3, 8):
        before = np.array(cache.logit_attrs(stack, token).sum(axis=0), np.float64)
        assert np.abs(before).max() > cap  # or the cap would not be tried
        assert close(cap * np.tanh(before / cap), logits[..., token])


def test_heads_behind_a_norm_are_refused() -> None:
    model = model_of("gemma2")
    cache = model.activations(IDS, ("head_out", 0))
    with pytest.raises(PointAbsent, match="stands between the heads of layer 0 and the stream"):
        cache.stack_head_results(1)


def test_what_the_run_did_not_keep(llama_model: InterpretableModel) -> None:
    _, everything = llama_model.run_with_cache(IDS)
    with pytest.raises(AddressError, match=r"Ask for it: model.run_with_cache\(prompt, \[\("):
        everything.stack_head_results()
    cache = llama_model.activations(IDS, ["embed", ("attn_add", 0)])
    with pytest.raises(AddressError, match=r"did not keep 'layers.0.mlp_add'"):
        cache.decompose_resid(1)
    with pytest.raises(AddressError, match=r"did not keep 'layers.2.resid_post'"):
        cache.logit_attrs(mx.zeros((1, 2, 4, 16)), 1)


def test_streams_that_are_no_sum() -> None:
    model = model_of("gemma4_text")
    _, cache = model.run_with_cache(IDS)
    with pytest.raises(AnalysisError, match="not the sum of the embedding"):
        cache.decompose_resid()


def test_wrong_arguments(llama_model: InterpretableModel) -> None:
    _, cache = llama_model.run_with_cache(IDS)
    stack = cache.decompose_resid()
    for layer in (7, -2):
        with pytest.raises(AddressError, match=f"no layer {layer}: write 0 to 2, or None"):
            cache.accumulated_resid(layer)
    for wrong, message in [
        ({"mlp_input": True}, "needs the layer whose MLP"),
        ({"mode": "heads"}, "there is no mode 'heads'"),
        ({"pos_slice": 4}, "there is no position 4"),
        ({"pos_slice": "last"}, "pos_slice is an integer"),
        ({"apply_ln": True}, "no argument 'apply_ln' here: cache.logit_attrs"),
    ]:
        with pytest.raises(InputError, match=message):
            cache.decompose_resid(**wrong)
    with pytest.raises(InputError, match="nothing of mode 'mlp' is added before layer 0"):
        cache.decompose_resid(0, mode="mlp", incl_embeds=False)
    with pytest.raises(InputError, match="there are no heads before layer 0"):
        cache.stack_head_results(0)
    for tokens, message in [
        (99, "token id 99 is outside the vocabulary"),
        (" a", re.escape("model.to_single_token(' a')")),
        ([1, 2, 3], r"one for each of 2 prompt\(s\)"),
        ([[1, 2], [3, 4]], r"or one for each position, \(2, 4\)"),
        (1.5, "tokens is an integer"),
    ]:
        with pytest.raises(InputError, match=message):
            cache.logit_attrs(stack, tokens)
    with pytest.raises(InputError, match=r"shape \(7, 2, 4, 16\); with this pos_slice it is"):
        cache.logit_attrs(stack, 1, pos_slice=-1)


def test_positions_of_prompts_that_differ_in_length(llama_model: InterpretableModel) -> None:
    _, cache = llama_model.run_with_cache([[1, 2, 3], [4, 5]])
    assert cache.decompose_resid().shape[1:] == (2, 3, 16)
    with pytest.raises(InputError, match="different lengths"):
        cache.decompose_resid(pos_slice=-1)


@pytest.mark.parametrize("name", elsewhere.CACHE)
def test_attributes_with_another_line(llama_model: InterpretableModel, name: str) -> None:
    cache = llama_model.activations(IDS, "embed")
    with pytest.raises(AttributeError) as caught:
        getattr(cache, name)
    assert str(caught.value) == f"a cache has no {name!r}: {elsewhere.CACHE[name]}"


def test_a_cache_can_be_copied(llama_model: InterpretableModel) -> None:
    cache = llama_model.activations(IDS, "embed")
    assert mx.array_equal(copy.copy(cache)["embed"], cache["embed"])
    assert not hasattr(cache, "nothing")
