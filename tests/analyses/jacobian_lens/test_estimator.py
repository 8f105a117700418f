"""The estimator: a plain loop of vjps, central differences in float64 sums, closed forms."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx_lm.models.base import create_attention_mask

from mlxray import InterpretableModel
from mlxray.analyses.lenses.jacobian.estimator import (
    jacobian_rows,
    positions,
    prompt_jacobian,
    pull_back_of,
)
from mlxray.errors import PointAbsent
from mlxray.run.pull_back import PullBack
from mlxray.run.tail import Tail
from mlxray.testing.zoo import small_model

TOKENS = [1 + (7 * i * i + 3 * i) % 60 for i in range(12)]
SKIP = 3
#: Positions that count: all but the first three and the last.
COUNTED = list(range(3, 11))


def rest(model, layer):
    """From a layer's stream to the last one's, by calling the blocks as mlx-lm's llama does."""
    blocks = model.model.model.layers[layer + 1 :]

    def run(stream):
        mask = create_attention_mask(stream, None)
        for block in blocks:
            stream = block(stream, mask, None)
        return stream

    return run


def plain_loop(model, layer, tokens=TOKENS):
    """One vjp for each dimension."""
    stream = model.watch(tokens, "resid_post", [layer])[layer]
    width = stream.shape[-1]
    rows = []
    for dimension in range(width):
        cotangent = np.zeros(stream.shape, np.float32)
        cotangent[0, COUNTED, dimension] = 1
        found = mx.vjp(rest(model, layer), [stream], [mx.array(cotangent)])[1][0]
        rows.append(np.array(found)[0, COUNTED].mean(axis=0))
    return np.stack(rows)


def close(found, wanted, tolerance=1e-4):
    return np.abs(found - wanted).max() <= tolerance * np.abs(wanted).max()


@pytest.mark.floats
@pytest.mark.parametrize("batch_size", [1, 5, 32])
@pytest.mark.parametrize("shared", [True, False])
def test_it_is_the_plain_loop_of_vjps(make, batch_size, shared):
    model = make("llama", scale=0.3)
    found = prompt_jacobian(
        model, TOKENS, [0, 1], skip_first=SKIP, batch_size=batch_size, shared=shared
    )
    for layer in (0, 1):
        assert close(found[layer], plain_loop(model, layer))


@pytest.mark.floats
def test_it_is_what_central_differences_measure(make):
    """Moving every counted position of the stream by a little moves the last one's sum by J."""
    model = make("gemma2", scale=0.3)
    found = prompt_jacobian(model, TOKENS, [0], skip_first=SKIP)[0]
    step, moved = 0.02, np.random.default_rng(0).normal(size=(4, 32)).astype(np.float32)
    moved /= np.linalg.norm(moved, axis=-1, keepdims=True)
    for direction in moved:
        sums = []
        for sign in (step, -step):
            added = np.zeros((1, len(TOKENS), 32), np.float32)
            added[0, COUNTED] = sign * direction
            with model.trace(TOKENS) as trace:
                trace.edit("layers.0.resid_post", lambda x, a=added: x + mx.array(a))
                last = model.layers[-1].output.save()
            sums.append(np.array(last)[0, COUNTED].astype(np.float64).sum(axis=0))
        measured = (sums[0] - sums[1]) / (2 * step * len(COUNTED))
        assert np.abs(found @ direction - measured).max() < 0.02 * np.abs(measured).max()


def test_blocks_that_add_nothing_have_the_identity(make):
    """With no attention and no MLP in layers 1 and 2, each position counts once, for itself."""
    model = make("llama")
    for block in model.model.model.layers[1:]:
        block.self_attn.o_proj.weight = mx.zeros_like(block.self_attn.o_proj.weight)
        block.mlp.down_proj.weight = mx.zeros_like(block.mlp.down_proj.weight)
    found = prompt_jacobian(model, TOKENS, [0, 1, 2], skip_first=SKIP)
    for layer in (0, 1, 2):
        assert np.array_equal(found[layer], np.eye(32, dtype=np.float32))


@pytest.mark.floats
def test_a_linear_block_has_its_closed_form(make):
    """A block that averages values over all tokens before: J = I + O V times a sum of 1 / (p + 1).

    Queries and keys are zero, so attention is uniform; the norm before it is skipped.
    """
    model = make("llama", num_hidden_layers=2, num_key_value_heads=4)
    block = model.model.model.layers[1]
    attention = block.self_attn
    attention.q_proj.weight = mx.zeros_like(attention.q_proj.weight)
    block.mlp.down_proj.weight = mx.zeros_like(block.mlp.down_proj.weight)
    block.input_layernorm = Nothing()
    found = prompt_jacobian(model, TOKENS, [0], skip_first=SKIP)[0]
    mixing = np.array(attention.o_proj.weight) @ np.array(attention.v_proj.weight)
    reach = [sum(1 / (p + 1) for p in COUNTED if p >= source) for source in COUNTED]
    assert close(found, np.eye(32) + np.mean(reach) * mixing)


class Nothing(nn.Module):
    """A norm that does nothing."""

    def __call__(self, x):
        return x


def test_the_last_layer_is_the_identity(make):
    model = make("gpt2")
    found = prompt_jacobian(model, TOKENS, [1, 2], skip_first=SKIP)
    assert np.array_equal(found[2], np.eye(32, dtype=np.float32))
    assert not np.allclose(found[1], np.eye(32), atol=0.1)


@pytest.mark.floats
@pytest.mark.parametrize("family", ["gpt2", "cohere", "gemma3_text", "qwen3"])
def test_sharing_the_forward_pass_changes_nothing(make, family):
    model = make(family, scale=0.3)
    together = prompt_jacobian(model, TOKENS, [0, 1], skip_first=SKIP, shared=True)
    apart = prompt_jacobian(model, TOKENS, [0, 1], skip_first=SKIP, shared=False)
    for layer in (0, 1):
        assert close(together[layer], apart[layer])


@pytest.mark.floats
def test_four_bits_are_unpacked_to_share_the_forward_pass(quantized):
    model = quantized("llama", scale=0.3)
    assert pull_back_of(model, TOKENS, [0, 1]).shared
    for shared in (True, False):
        found = prompt_jacobian(model, TOKENS, [0, 1], skip_first=SKIP, shared=shared)
        for layer in (0, 1):
            assert close(found[layer], plain_loop(model, layer))


@pytest.mark.parametrize("name", ["gpt2/4-bit", "gemma2/8-bit"])
def test_layers_with_a_bias_and_other_widths_of_packing(name):
    model = InterpretableModel(small_model(name))
    assert pull_back_of(model, TOKENS, [0]).shared
    ways = [
        prompt_jacobian(model, TOKENS, [0], skip_first=SKIP, shared=shared)[0]
        for shared in (True, False)
    ]
    assert close(*ways, tolerance=1e-3)


@pytest.mark.parametrize("name", ["mixtral", "mixtral/4-bit"])
def test_experts_go_without_sharing(name):
    """MLX has no rule to map their products over cotangents; the numbers come all the same."""
    model = InterpretableModel(small_model(name))
    assert not pull_back_of(model, TOKENS, [0]).shared
    found = prompt_jacobian(model, TOKENS, [0], skip_first=SKIP, batch_size=8)[0]
    again = prompt_jacobian(model, TOKENS, [0], skip_first=SKIP, batch_size=3)[0]
    assert np.isfinite(found).all() and close(again, found)


def test_a_rule_of_mlx_that_is_wrong_is_not_used(make, monkeypatch):
    model = make("llama")
    honest = mx.vmap

    def wrong(function):
        return lambda cotangents: [2 * found for found in honest(function)(cotangents)]

    assert pull_back_of(model, TOKENS, [0]).shared
    monkeypatch.setattr(mx, "vmap", wrong)
    assert not pull_back_of(model, TOKENS, [0]).shared


def test_passes_and_positions(make):
    model = make("llama")
    pull_back = pull_back_of(model, TOKENS, [0])
    parts = [rows for rows, _ in jacobian_rows(pull_back, SKIP, 12)]
    assert parts == [slice(0, 12), slice(12, 24), slice(24, 32)]
    assert list(positions(12, SKIP)) == COUNTED
    assert not positions(17, 16)


@pytest.mark.parametrize("name", ["gemma3n", "deepseek_v41", "kimi_k3/residual-attention"])
def test_models_of_several_streams_are_refused_with_their_reason(name):
    model = InterpretableModel(small_model(name))
    with pytest.raises(PointAbsent, match=r"stream|residual"):
        model.fit_jacobian_lens([TOKENS], skip_first=SKIP, verbose=False)
    with pytest.raises(PointAbsent):
        Tail(model.layout)


def test_any_points_may_be_pulled_back_to(make):
    model = make("llama", scale=0.3)
    back = PullBack(model.layout, TOKENS, "layers.2.mlp_out", ["layers.0.attn_out", "embed"])
    cotangents = mx.random.normal((2, *back.shape), key=mx.random.key(1))
    found = back(cotangents, lambda gradient: gradient[0, 0])
    assert [tuple(value.shape) for value in found] == [(2, 32), (2, 32)]
