"""The explicit softmax beside the fused kernel: masks, sinks, grouped heads, head shares."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlxray import Adapter, InterpretableModel
from mlxray import interventions as iv
from mlxray.errors import EditNeverFired, PointAbsent
from mlxray.seams.attention import (
    explicit_pattern,
    explicit_scores,
    head_shares,
    merge_heads,
    mix,
    split_heads,
)

from .conftest import VOCABULARY
from .reference import numbers
from .test_values import bend, close

B, H, K, S, T, D = 2, 4, 2, 3, 5, 8
TOKENS = [3, 5, 7, 2]


def draw(shape: tuple[int, ...], seed: int) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed))


def masks(queries: int, keys: int) -> dict[str, Any]:
    lower = mx.arange(keys - queries, keys)[:, None] >= mx.arange(keys)[None]
    window = lower & (mx.arange(keys - queries, keys)[:, None] < mx.arange(keys)[None] + 2)
    additive = mx.where(lower, draw((queries, keys), 9), -1e9)
    return {
        "none": None,
        "causal": "causal",
        "boolean": window,
        "boolean with heads": mx.stack([lower, window] * (H // 2))[None],
        "boolean with batch": mx.stack([lower, window])[:, None],
        "additive": additive,
        "additive with heads": mx.broadcast_to(additive, (1, H, queries, keys)),
        "additive with infinities": mx.where(lower, 0.0, -mx.inf),
    }


def by_loops(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float, mask: Any, sinks: Any
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, pattern and z, number by number."""
    batch, heads, queries, width = q.shape
    keys, group = k.shape[2], heads // k.shape[1]
    scores = np.full((batch, heads, queries, keys), -np.inf)
    pattern = np.zeros_like(scores)
    z = np.zeros((batch, heads, queries, width))
    if mask is not None and not isinstance(mask, str):
        mask = np.broadcast_to(np.array(mask), scores.shape)
    for b, h, i in np.ndindex(batch, heads, queries):
        for j in range(keys):
            score = scale * float(q[b, h, i] @ k[b, h // group, j])
            if isinstance(mask, str):
                score = score if j <= i + keys - queries else -np.inf
            elif mask is not None and mask.dtype == bool:
                score = score if mask[b, h, i, j] else -np.inf
            elif mask is not None:
                score += mask[b, h, i, j]
            scores[b, h, i, j] = score
        weights = [np.exp(s) for s in scores[b, h, i]]
        total = sum(weights) + (np.exp(sinks[h]) if sinks is not None else 0.0)
        for j in range(keys):
            pattern[b, h, i, j] = weights[j] / total
            z[b, h, i] += pattern[b, h, i, j] * v[b, h // group, j]
    return scores, pattern, z


@pytest.mark.parametrize("sunk", [False, True])
@pytest.mark.parametrize("queries", [S, T])
@pytest.mark.parametrize("name", masks(T, T))
def test_scores_pattern_and_mix(name: str, queries: int, sunk: bool) -> None:
    q, k, v = draw((B, H, queries, D), 1), draw((B, K, T, D), 2), draw((B, K, T, D), 3)
    mask = masks(queries, T)[name]
    sinks = draw((H,), 4) if sunk else None
    scores = explicit_scores(q, k, 0.4, mask)
    pattern = explicit_pattern(scores, sinks)
    z = mix(pattern, v)
    expected = by_loops(
        numbers(q),
        numbers(k),
        numbers(v),
        0.4,
        mask,
        None if sinks is None else numbers(sinks),
    )
    for got, theirs in zip((pattern, z), expected[1:], strict=True):
        close(got, theirs)
    finite = np.isfinite(expected[0]) & (expected[0] > -1e8)
    np.testing.assert_allclose(numbers(scores)[finite], expected[0][finite], atol=1e-4)
    assert (numbers(scores)[~finite] < -1e8).all()
    fused = mx.fast.scaled_dot_product_attention(q, k, v, scale=0.4, mask=mask, sinks=sinks)
    assert mx.allclose(z, fused, atol=1e-5)


def test_low_precision_operands_are_computed_in_float32() -> None:
    q, k, v = (draw((1, h, S, D), i).astype(mx.bfloat16) for i, h in enumerate((H, K, K)))
    pattern = explicit_pattern(explicit_scores(q, k, 0.4, "causal"), None)
    assert pattern.dtype == mx.float32
    expected = by_loops(numbers(q), numbers(k), numbers(v), 0.4, "causal", None)
    close(pattern, expected[1])
    close(mix(pattern, v), expected[2])


def test_rows_that_see_nothing_and_enormous_scores() -> None:
    nothing = explicit_pattern(mx.full((1, 1, 2, 3), -mx.inf), None)
    assert mx.array_equal(nothing, mx.zeros((1, 1, 2, 3)))
    with_sink = explicit_pattern(mx.full((1, 1, 1, 3), -mx.inf), mx.array([0.0]))
    assert mx.array_equal(with_sink, mx.zeros((1, 1, 1, 3)))
    huge = explicit_pattern(mx.array([[[[3e38, -3e38, 3e38]]]]), None)
    assert huge.tolist() == [[[[0.5, 0.0, 0.5]]]]
    only_sink = explicit_pattern(mx.array([[[[-200.0, 0.0]]]]), mx.array([200.0]))
    assert mx.all(only_sink == 0)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 5))
def test_splitting_and_merging_heads(batch: int, tokens: int, heads: int, width: int) -> None:
    x = draw((batch, tokens, heads * width), 5)
    split = split_heads(x, heads)
    assert split.shape == (batch, heads, tokens, width)
    assert mx.array_equal(merge_heads(split), x)
    for head in range(heads):
        assert mx.array_equal(split[:, head], x[..., head * width : (head + 1) * width])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("quantised", [True, False])
def test_head_shares_of_any_projection(bias: bool, quantised: bool) -> None:
    project: Any = nn.Linear(4 * 16, 20, bias=bias)
    if bias:
        project.bias = draw((20,), 7)
    if quantised:
        project = nn.QuantizedLinear.from_linear(project, group_size=32)
    merged = draw((2, 3, 64), 6)
    shares = head_shares(project, merged, 4)
    assert shares.shape == (2, 4, 3, 20)
    constant = project.bias if bias else 0
    assert mx.allclose(shares.sum(1), project(merged) - constant, atol=1e-4)
    for head in range(4):
        alone = mx.zeros_like(merged)
        alone[..., 16 * head : 16 * (head + 1)] = merged[..., 16 * head : 16 * (head + 1)]
        assert mx.allclose(shares[:, head], project(alone) - constant, atol=1e-4)


# Attention that differs from mlx-lm's


class Attention(nn.Module):
    """Two heads with sinks; `calls` says how often attention is computed in one call."""

    def __init__(self, calls: int = 1) -> None:
        super().__init__()
        self.n_heads = self.n_kv_heads = 2
        self.calls = calls
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(8, 8, bias=False) for _ in range(4)
        )
        self.sinks = mx.zeros((2,))

    def __call__(self, x: mx.array) -> mx.array:
        q, k, v = (split_heads(p(x), 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        z = mx.zeros_like(q)
        for _ in range(self.calls):
            z = z + mx.fast.scaled_dot_product_attention(
                q, k, v, scale=0.5, mask="causal", sinks=self.sinks
            )
        return self.o_proj(merge_heads(z))


class Block(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.self_attn = attention
        self.input_layernorm, self.post_attention_layernorm = nn.RMSNorm(8), nn.RMSNorm(8)
        self.mlp = nn.Linear(8, 8)

    def __call__(self, x: mx.array) -> mx.array:
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))


class Toy(nn.Module):
    def __init__(self, *attentions: nn.Module) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCABULARY, 8)
        self.layers = [Block(a) for a in attentions]
        self.norm = nn.RMSNorm(8)

    def __call__(self, tokens: mx.array) -> mx.array:
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.embed_tokens.as_linear(self.norm(x))


PATHS = Adapter("toy", embed="embed_tokens", layers="layers", final_norm="norm")


@pytest.fixture(scope="module")
def sunk(make: Any) -> InterpretableModel:
    return InterpretableModel(make.randomised(Toy(Attention(), Attention())), adapter=PATHS)


def test_sinks_take_their_weight(sunk: InterpretableModel) -> None:
    ids = mx.array([TOKENS])
    logits, cache = sunk.run_with_cache(ids)
    assert mx.array_equal(logits, sunk.model(ids))
    for layer in (0, 1):
        sinks = numbers(sunk.model.layers[layer].self_attn.sinks)
        q, k, v = (numbers(cache[name, layer]) for name in "qkv")
        _, pattern, z = by_loops(q, k, v, 0.5, "causal", sinks)
        close(cache["pattern", layer], pattern)
        close(cache["z", layer], z)
        assert (numbers(cache["pattern", layer]).sum(-1) < 0.95).all()


@pytest.mark.parametrize("point", ["scores", "pattern"])
def test_edits_beside_sinks(sunk: InterpretableModel, point: str) -> None:
    """An edit of nothing sends the explicit softmax back: the sink must be in it."""
    bare = sunk.model(mx.array([TOKENS]))
    same = sunk.run_with_hooks([TOKENS], [((point, 0), lambda x: x)])
    assert mx.allclose(same, bare, atol=1e-5)

    def first_key(x: mx.array) -> mx.array:
        new = mx.array(x)
        new[..., 0] = new[..., 0] + 0.7
        return new

    with sunk.trace([TOKENS]) as trace:
        q, k, v = (numbers(trace.read((name, 0))) for name in "qkv")
        trace.edit((point, 0), first_key)
        pattern, z = trace.read(("pattern", 0)), trace.read(("z", 0))
    scores, expected, _ = by_loops(
        q, k, v, 0.5, "causal", numbers(sunk.model.layers[0].self_attn.sinks)
    )
    if point == "pattern":
        expected[..., 0] += 0.7
    else:
        scores[..., 0] += 0.7
        sinks = numbers(sunk.model.layers[0].self_attn.sinks)[None, :, None]
        total = np.exp(scores).sum(-1) + np.exp(sinks)
        expected = np.exp(scores) / total[..., None]
    close(pattern, expected)
    close(z, expected @ v)


def test_attention_computed_twice_in_a_call_has_no_one_pattern(make: Any) -> None:
    model = InterpretableModel(make.randomised(Toy(Attention(), Attention(calls=2))), adapter=PATHS)
    ids = mx.array([TOKENS])
    logits, cache = model.run_with_cache(ids)
    assert mx.array_equal(logits, model.model(ids))
    assert ("pattern", 0) in cache and ("pattern", 1) not in cache
    with pytest.raises(PointAbsent, match="computes attention 2 times in one call"):
        model.get_attention_patterns(ids)
    halved = model.run_with_hooks(ids, [(("z", 1), iv.scale(0.5))])
    assert mx.allclose(
        halved, model.run_with_hooks(ids, [(("attn_out", 1), iv.scale(0.5))]), atol=1e-5
    )


def test_attention_that_cannot_be_seen(make: Any) -> None:
    class Blind(nn.Module):
        """A mean over all tokens before: no softmax anywhere."""

        def __init__(self) -> None:
            super().__init__()
            self.n_heads = self.n_kv_heads = 2
            self.o_proj = nn.Linear(8, 8, bias=False)

        def __call__(self, x: mx.array) -> mx.array:
            counts = mx.arange(1, x.shape[1] + 1)[None, :, None]
            return self.o_proj(mx.cumsum(x, axis=1) / counts)

    model = InterpretableModel(make.randomised(Toy(Blind(), Attention())), adapter=PATHS)
    _, cache = model.run_with_cache([TOKENS])
    assert ("pattern", 0) not in cache and ("pattern", 1) in cache
    for point in ("q", "pattern", "z"):
        with pytest.raises(PointAbsent, match="computed no attention that mlxray can see"):
            model.activations([TOKENS], [(point, 0)])
        with pytest.raises(EditNeverFired):
            model.run_with_hooks([TOKENS], [((point, 0), iv.scale(0.5))])


def test_other_softmaxes_of_the_model_are_let_through(make: Any) -> None:
    """A softmax outside attention, or over something else than keys, is not touched."""

    class Odd(Attention):
        def __call__(self, x: mx.array) -> mx.array:
            gates = mx.softmax(x, axis=-1)
            other = mx.softmax(x[None, None], axis=2)[0, 0]
            stack = mx.softmax(mx.stack([x, x], axis=-1), axis=(-1,)).sum(-1)
            return super().__call__(gates * x + other + stack)

    model = InterpretableModel(make.randomised(Toy(Odd(), Attention())), adapter=PATHS)
    ids = mx.array([TOKENS])
    assert mx.array_equal(model.run_with_cache(ids)[0], model.model(ids))
    logits = model.run_with_hooks(ids, [(("pattern", 0), lambda p: p)])
    assert mx.allclose(logits, model.model(ids), atol=1e-5)


def test_seams_hold_for_one_run_only(llama_model: InterpretableModel) -> None:
    """A softmax of the user's, in a hook and between runs, is MLX's own."""
    x = mx.array(bend((1, 2, 3, 3)), dtype=mx.float32)
    expected = mx.softmax(x, axis=-1)
    seen: list[bool] = []

    def hook(p: mx.array) -> mx.array:
        seen.append(mx.array_equal(mx.softmax(x, axis=-1), expected).item())
        q = mx.fast.scaled_dot_product_attention(p[..., :3], p[..., :3], p[..., :3], scale=1.0)
        seen.append(q.shape == (*p.shape[:3], 3))
        return p

    llama_model.run_with_hooks([1, 2, 3], [(("pattern", 0), hook), (("z", 0), lambda z: z)])
    assert seen == [True, True]
