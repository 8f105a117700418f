"""Direct logit attribution against parts written out in float64 numpy, and against the logit."""

import json
from dataclasses import replace

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_map

from mlxray import InterpretableModel
from mlxray.analyses.causal.residual_stream import ResidualStreamAccessor
from mlxray.errors import AnalysisError, InputError, PointAbsent
from mlxray.points.adapter import Variant
from mlxray.run.parts.frozen import Functional, through_norm
from mlxray.testing.planted import PLANTED
from mlxray.testing.zoo import small_model

TOKENS = [1, 2, 3, 4, 5]
TARGET, OTHER = 7, 9


@pytest.fixture(autouse=True)
def _seed():
    mx.random.seed(0)


def wrapped(name):
    return InterpretableModel(small_model(name))


def f64(array):
    return np.array(array.astype(mx.float32)).astype(np.float64)


def cached(model, *addresses):
    cache = model.activations([TOKENS], list(addresses))
    return [f64(cache[a])[0] for a in addresses]


def readout(model, target):
    """(D,) the linear map from the last residual stream to a logit, by its definition."""
    (stream,) = cached(model, ("resid_post", model.layout.n_layers - 1))
    x = stream[-1]
    root = model.model
    if model.adapter.name == "gpt2":
        unembed = f64(root.model.wte.weight)[target] * f64(root.model.ln_f.weight)
        centred = unembed - unembed.mean()
        return centred / np.sqrt(x.var() + root.model.ln_f.eps)
    head = root.lm_head if "lm_head" in root else root.model.embed_tokens
    gain = f64(root.model.norm.weight) + (1 if model.adapter.name.startswith("gemma") else 0)
    return f64(head.weight)[target] * gain / np.sqrt((x**2).mean() + root.model.norm.eps)


def block_weights(model, layer):
    """Output projection (D, H·d) and down projection (D, F)."""
    block = model.layers[layer].module
    if model.adapter.name == "gpt2":
        return f64(block.attn.c_proj.weight), f64(block.mlp.c_proj.weight)
    return f64(block.self_attn.o_proj.weight), f64(block.mlp.down_proj.weight)


@pytest.mark.parametrize("name", ["llama", "llama/tied", "llama/bias", "gpt2", "qwen3", "gemma2"])
def test_every_part_is_what_its_definition_says(name):
    model = wrapped(name)
    result = model.direct_logit_attribution([TOKENS], TARGET, neurons=True)
    linear = readout(model, TARGET)
    size = np.abs(list(dict(result.components()).values())).sum()
    close = {"rel": 1e-4, "abs": 1e-5 * size}
    (embed,) = cached(model, "embed")
    assert result.embedding == pytest.approx(linear @ embed[-1], **close)
    for row, layer in enumerate(result.layers):
        attn, mlp, z, act = cached(
            model, *((p, layer) for p in ("attn_add", "mlp_add", "z", "mlp_act"))
        )
        assert result.head_contributions[row].item() == pytest.approx(linear @ attn[-1], **close)
        assert result.mlp_contributions[row].item() == pytest.approx(linear @ mlp[-1], **close)
        into_attn, into_mlp = linear, linear
        if name == "gemma2":
            block = model.layers[layer].module
            out, mlp_out = cached(model, ("attn_out", layer), ("mlp_out", layer))
            for norm, value, side in (
                (block.post_attention_layernorm, out[-1], "attn"),
                (block.post_feedforward_layernorm, mlp_out[-1], "mlp"),
            ):
                scaled = linear * (1 + f64(norm.weight)) / np.sqrt((value**2).mean() + norm.eps)
                into_attn, into_mlp = (scaled, into_mlp) if side == "attn" else (into_attn, scaled)
        project, down = block_weights(model, layer)
        heads, width = z.shape[0], z.shape[2]
        expected = [
            into_attn @ project[:, h * width : (h + 1) * width] @ z[h, -1] for h in range(heads)
        ]
        np.testing.assert_allclose(f64(result.heads[layer]), expected, rtol=1e-4, atol=1e-5 * size)
        units = (into_mlp @ down) * act[-1]
        np.testing.assert_allclose(f64(result.neurons[layer]), units, rtol=1e-4, atol=1e-5 * size)
        for parts, bias, whole in (
            (result.heads, result.attention_bias, result.head_contributions),
            (result.neurons, result.mlp_bias, result.mlp_contributions),
        ):
            total = mx.sum(parts[layer]).item() + bias[row].item()
            assert total == pytest.approx(whole[row].item(), **close)


@pytest.mark.parametrize("quantised", [False, True])
@pytest.mark.parametrize(
    "name", ["llama", "llama/tied", "llama/bias", "gpt2", "qwen2", "gemma", "gemma3_text"]
)
def test_the_parts_sum_to_the_logit(name, quantised):
    root = small_model(name)
    if quantised:
        nn.quantize(root, 32, 4)
        mx.eval(root.parameters())
    model = InterpretableModel(root)
    logits = f64(root(mx.array([TOKENS])))[0]
    for position in (-1, 2):
        result = model.direct_logit_attribution(
            TOKENS, TARGET, position, incorrect_token=OTHER, neurons=True
        )
        wanted = logits[position, TARGET] - logits[position, OTHER]
        assert result.logit == pytest.approx(wanted, abs=1e-5)
        assert result.total == pytest.approx(wanted, abs=1e-4 * max(1, abs(wanted)))
        assert result.error == result.total - result.logit
        assert sum(v for _, v in result.components()) == pytest.approx(result.total, abs=1e-4)
        assert result.position == position % 5 and result.cap is None


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_half_precision(name, dtype):
    root = small_model(name)
    root.update(tree_map(lambda p: p.astype(dtype), root.parameters()))
    model = InterpretableModel(root)
    logit = root(mx.array([TOKENS])).astype(mx.float32)[0, -1, TARGET].item()
    result = model.direct_logit_attribution(TOKENS, TARGET, neurons=True)
    assert result.logit == logit
    size = sum(abs(v) for _, v in result.components())
    assert abs(result.error) < 4 * mx.finfo(dtype).eps * size


def test_a_cap_is_found_and_the_logit_before_it_is_split():
    model = wrapped("gemma2")
    (normed,) = cached(model, "final_norm")
    embedding = f64(model.model.model.embed_tokens.weight)
    before = normed[-1] @ embedding.T
    result = model.direct_logit_attribution(TOKENS, TARGET, incorrect_token=OTHER)
    cap = model.model.final_logit_softcapping
    assert result.cap == pytest.approx(cap, rel=1e-4)
    assert result.logit == pytest.approx(before[TARGET] - before[OTHER], rel=1e-4)
    assert result.total == pytest.approx(result.logit, rel=1e-4)
    capped = cap * np.tanh(before / cap)
    assert result.capped_logit == pytest.approx(capped[TARGET] - capped[OTHER], abs=1e-4)
    assert "before the cap of 3" in result.summary()


def test_the_model_s_own_prediction_is_the_default_target():
    model = wrapped("llama")
    logits = model.model(mx.array([TOKENS]))[0, -1]
    result = model.direct_logit_attribution(TOKENS)
    assert result.target_token == mx.argmax(logits).item()
    assert result.target_token_str == f"#{result.target_token}"


def test_some_layers_leave_the_others_together():
    model = wrapped("llama")
    whole = model.direct_logit_attribution(TOKENS, TARGET)
    part = model.direct_logit_attribution(TOKENS, TARGET, layers=[-1])
    last = model.layout.n_layers - 1
    assert part.layers == [last] and list(part.heads) == [last]
    assert part.head_contributions.shape == (1,)
    assert part.total == pytest.approx(whole.total, abs=1e-5)
    names = [name for name, _ in part.components()]
    assert names[0] == "embed" and "others" in names and f"a{last}.h0" in names


def test_without_heads():
    result = wrapped("gpt2").direct_logit_attribution(TOKENS, TARGET, heads=False)
    names = [name for name, _ in result.components()]
    assert names == ["embed", "a0", "m0", "a1", "m1", "bias"]
    with pytest.raises(ValueError, match="neurons=True"):
        result.top_neurons()


def test_results_are_told_in_words_and_as_json():
    model = wrapped("gpt2")
    result = model.direct_logit_attribution(TOKENS, TARGET, neurons=True, incorrect_token=OTHER)
    data = json.loads(result.to_json())["data"]
    assert data["total"] == pytest.approx(result.total)
    assert len(data["heads"]["0"]) == model.layout.heads(0)
    best = result.top_components(1)[0]
    assert best[0] in result.summary() and "'#7' less '#9'" in result.summary()
    (layer, unit), value = result.top_neurons(3)[0]
    assert result.neurons[layer][unit].item() == value
    assert abs(value) == max(mx.max(mx.abs(n)).item() for n in result.neurons.values())
    assert result.rows()[0] == ["component", "logit"]


@pytest.mark.parametrize("name", ["path_through_mlp", "path_through_head", "decoys", "induction"])
def test_planted_circuits(name):
    """Only senders with a true edge to the logits write towards the answer."""
    planted = PLANTED[name]()
    model = InterpretableModel(planted.model)
    result = model.direct_logit_attribution(
        [planted.clean], planted.correct, incorrect_token=planted.incorrect
    )
    direct = {s for s, r in planted.edges if r == "logits"}
    for component, value in result.components():
        if component in direct:
            assert value == pytest.approx(4, abs=0.02)
        else:
            assert abs(value) < 1e-3, component


# Refusals


def test_arguments_that_cannot_be():
    model = wrapped("llama")
    for arguments, fault in (
        (([TOKENS, TOKENS], 1), "one prompt"),
        ((TOKENS, 1, 9), "no position 9"),
        ((TOKENS, 10**6), "outside the vocabulary"),
        ((TOKENS, 7, -1, []), "list of layers is empty"),
        ((TOKENS, 7, -1, None, 7), "are the same"),
        ((TOKENS, " Paris"), "needs a tokenizer"),
    ):
        with pytest.raises(InputError, match=fault):
            model.direct_logit_attribution(*arguments)


def test_heads_that_a_family_does_not_have():
    root = small_model("llama")
    plain = InterpretableModel(root)
    adapter = replace(plain.adapter, absent={"head_out": "for a test"})
    model = InterpretableModel(root, adapter=adapter)
    with pytest.raises(PointAbsent, match="for a test"):
        model.direct_logit_attribution(TOKENS, TARGET)
    result = model.direct_logit_attribution(TOKENS, TARGET, heads=False)
    assert result.total == pytest.approx(plain.direct_logit_attribution(TOKENS, TARGET).total)


class _Scaled(nn.Module):
    """A block that does not add what its sub-layers return."""

    def __init__(self, block):
        super().__init__()
        self.self_attn, self.mlp, self.use_sliding = block.self_attn, block.mlp, False
        self.input_layernorm = block.input_layernorm
        self.post_attention_layernorm = block.post_attention_layernorm

    def __call__(self, x, mask=None, cache=None):
        x = x + 0.5 * self.self_attn(self.input_layernorm(x), mask, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


def test_a_stream_with_something_else_in_it():
    root = small_model("llama")
    root.model.layers = [_Scaled(block) for block in root.model.layers]
    model = InterpretableModel(root, adapter="llama")
    with pytest.raises(AnalysisError, match="not the sum of the embedding"):
        model.direct_logit_attribution(TOKENS, TARGET)
    corrected = InterpretableModel(root, adapter=replace(model.adapter, attn_scale=0.5))
    result = corrected.direct_logit_attribution(TOKENS, TARGET)
    assert result.total == pytest.approx(root(mx.array([TOKENS]))[0, -1, TARGET].item(), abs=1e-4)


class _Mixed(nn.Module):
    """A block whose tokens are mixed by a running mean, in place of attention."""

    def __init__(self, block):
        super().__init__()
        self.running = _Running()
        self.mlp, self.use_sliding = block.mlp, False
        self.input_layernorm = block.input_layernorm
        self.post_attention_layernorm = block.post_attention_layernorm

    def __call__(self, x, mask=None, cache=None):
        x = x + self.running(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class _Running(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = mx.array([0.5])

    def __call__(self, x):
        return self.weight * mx.cumsum(x, axis=1)


def test_a_block_that_mixes_tokens_in_another_way():
    root = small_model("llama")
    root.model.layers[1] = _Mixed(root.model.layers[1])
    plain = InterpretableModel(root, adapter="llama").adapter
    changes = {"attn": None, "mixer": "running"}
    adapter = replace(plain, variants=(Variant(changes, has="running"),))
    model = InterpretableModel(root, adapter=adapter)
    result = model.direct_logit_attribution(TOKENS, TARGET, neurons=True)
    assert result.total == pytest.approx(root(mx.array([TOKENS]))[0, -1, TARGET].item(), abs=1e-4)
    assert list(result.mixers) == [1] and 1 not in result.heads and 0 in result.heads
    assert result.head_contributions[1].item() == 0
    assert dict(result.components())["x1"] == result.mixers[1] != 0
    total = sum(value for _, value in result.components())
    assert total == pytest.approx(result.total, abs=1e-4)
    with model.trace([TOKENS]) as trace:
        pass
    names = [n for n, _ in ResidualStreamAccessor(trace.activations).decompose(heads=True)]
    assert "x1" in names and "a1.h0" not in names and "m1" in names


class _Cubic(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = mx.ones((1,))

    def __call__(self, x):
        return x + x**3


class _Odd(nn.Module):
    """Divides by the scale of half of the dimensions: another form, but still a norm."""

    def __init__(self):
        super().__init__()
        self.weight = mx.ones((1,))

    def __call__(self, x):
        return x / mx.sqrt(mx.mean(x[..., :8] ** 2, axis=-1, keepdims=True) + 1e-5)


def test_a_norm_of_another_form():
    root = small_model("llama")
    root.model.norm = _Cubic()
    model = InterpretableModel(root, adapter="llama")
    with pytest.raises(AnalysisError, match=r"'model\.norm' is not a linear map divided"):
        model.direct_logit_attribution(TOKENS, TARGET)
    root.model.norm = _Odd()
    model = InterpretableModel(root, adapter="llama")
    result = model.direct_logit_attribution(TOKENS, TARGET)
    assert result.total == pytest.approx(root(mx.array([TOKENS]))[0, -1, TARGET].item(), abs=1e-4)


def test_a_head_that_is_not_linear():
    class Head(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.weight = inner.weight

        def __call__(self, x):
            return mx.square(x @ self.weight.T) + x @ self.weight.T

    root = small_model("llama")
    root.lm_head = Head(root.lm_head)
    with pytest.raises(AnalysisError, match="neither linear nor a tanh cap"):
        InterpretableModel(root, adapter="llama").direct_logit_attribution(TOKENS, TARGET)


@pytest.mark.parametrize("norm", [nn.RMSNorm(6), nn.LayerNorm(6)])
def test_a_frozen_norm_is_exact_at_its_point_and_linear_elsewhere(norm):
    mx.random.seed(0)
    norm.update(tree_map(lambda p: mx.random.normal(p.shape), norm.parameters()))
    at, other, weight = (mx.random.normal((6,)) * s for s in (3.0, 1.0, 1.0))
    try:
        frozen = through_norm(norm, Functional(weight, 0.5), at, "norm")
    except AnalysisError as error:
        if "this backend of MLX" not in str(error):
            raise
        pytest.skip(str(error))
    exact = mx.sum(weight * norm(at)).item() + 0.5
    assert frozen.of(at).item() + frozen.constant == pytest.approx(exact, rel=1e-5)
    gain = f64(norm.weight)
    x, o = f64(at), f64(other)
    if isinstance(norm, nn.LayerNorm):
        wanted = (o - o.mean()) / np.sqrt(x.var() + norm.eps) * gain
    else:
        wanted = o / np.sqrt((x**2).mean() + norm.eps) * gain
    assert frozen.of(other).item() == pytest.approx(f64(weight) @ wanted, rel=1e-4)


def test_a_norm_whose_gradient_does_not_fit_its_values_is_refused():
    """As a backend's kernel of some width may have it."""

    @mx.custom_function
    def norm(x):
        return x * 2.0

    @norm.vjp
    def norm_vjp(primals, cotangent, output):
        return cotangent * 2.5

    @norm.jvp
    def norm_jvp(primals, tangents):
        return tangents * 2.0

    at = mx.array([1.0, 2.0, 3.0])
    with pytest.raises(AnalysisError, match="'odd' does not fit its values"):
        through_norm(norm, Functional(mx.ones(3)), at, "odd")
