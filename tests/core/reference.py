"""Three transformers in plain NumPy and float64: the oracle of the kernel's tests.

Nothing here imports mlxray. `forward` computes every hook point by its definition and lets an
edit change it there, so that a run of the kernel can be compared number by number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

Array = np.ndarray
Place = str | tuple[str, int]
Change = Callable[[Array], Array]


def numbers(array: mx.array) -> Array:
    """An MLX array as float64."""
    return np.array(array.astype(mx.float32)).astype(np.float64)


def weights_of(model: Any) -> dict[str, Array]:
    """Every parameter by its path."""
    return {name: numbers(value) for name, value in tree_flatten(model.parameters())}


@dataclass
class Taps:
    """Records each point and edits it on the way."""

    edits: Mapping[Place, Change]
    values: dict[Place, Array] = field(default_factory=dict)

    def __call__(self, place: Place, value: Array) -> Array:
        if place in self.edits:
            value = self.edits[place](value)
        self.values[place] = value
        return value


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def layer_norm(x: Array, weight: Array, bias: Array, eps: float) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + eps) * weight + bias


def gelu(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def silu(x: Array) -> Array:
    return x / (1 + np.exp(-x))


def rope(x: Array, base: float) -> Array:
    """Rotary embedding of (B, H, S, d), first half against second half."""
    half = x.shape[-1] // 2
    angles = np.arange(x.shape[2])[:, None] * base ** (-np.arange(half) / half)
    first, second = x[..., :half], x[..., half:]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cos - second * sin, first * sin + second * cos], -1)


def heads_of(x: Array, heads: int) -> Array:
    batch, tokens, width = x.shape
    return x.reshape(batch, tokens, heads, width // heads).transpose(0, 2, 1, 3)


def attend(
    tap: Taps,
    layer: int,
    q: Array,
    k: Array,
    v: Array,
    *,
    scale: float,
    out: Array,
    bias: Array | float = 0.0,
    cap: float | None = None,
    window: int | None = None,
) -> Array:
    """Attention from q (B, H, S, d) and k, v (B, K, S, d) to what the sub-layer returns."""
    q, k, v = tap(("q", layer), q), tap(("k", layer), k), tap(("v", layer), v)
    batch, heads, tokens, width = q.shape
    group = heads // k.shape[1]
    scores = np.empty((batch, heads, tokens, tokens))
    for head in range(heads):
        scores[:, head] = q[:, head] @ k[:, head // group].transpose(0, 2, 1) * scale
    if cap is not None:
        scores = cap * np.tanh(scores / cap)
    rows, columns = np.arange(tokens)[:, None], np.arange(tokens)[None]
    seen = rows >= columns
    if window is not None:
        seen &= rows < columns + window
    scores = tap(("scores", layer), np.where(seen, scores, -np.inf))
    top = scores.max(-1, keepdims=True)
    weights = np.exp(scores - top)
    pattern = tap(("pattern", layer), weights / weights.sum(-1, keepdims=True))
    mixed = np.stack([pattern[:, h] @ v[:, h // group] for h in range(heads)], 1)
    z = tap(("z", layer), mixed)
    shares = [z[:, h] @ out[:, h * width : (h + 1) * width].T for h in range(heads)]
    head_out = tap(("head_out", layer), np.stack(shares, 1))
    return tap(("attn_out", layer), head_out.sum(1) + bias)


def llama(model: Any, ids: Array, tap: Taps) -> Array:
    args, w = model.args, weights_of(model)
    heads, kv_heads = args.num_attention_heads, args.num_key_value_heads
    embedding = w["model.embed_tokens.weight"]
    x = tap("embed", embedding[ids])
    for i in range(args.num_hidden_layers):
        at = f"model.layers.{i}."
        x = tap(("resid_pre", i), x)
        normed = rms_norm(x, w[at + "input_layernorm.weight"], args.rms_norm_eps)
        q, k, v = (normed @ w[f"{at}self_attn.{n}_proj.weight"].T for n in "qkv")
        sliding = args.layer_types[i] == "sliding_attention"
        attn = attend(
            tap,
            i,
            rope(heads_of(q, heads), args.rope_theta),
            rope(heads_of(k, kv_heads), args.rope_theta),
            heads_of(v, kv_heads),
            scale=(args.hidden_size // heads) ** -0.5,
            out=w[at + "self_attn.o_proj.weight"],
            window=args.sliding_window if sliding else None,
        )
        mid = tap(("resid_mid", i), x + tap(("attn_add", i), attn))
        normed = rms_norm(mid, w[at + "post_attention_layernorm.weight"], args.rms_norm_eps)
        gate, up = (normed @ w[f"{at}mlp.{n}_proj.weight"].T for n in ("gate", "up"))
        neurons = tap(("mlp_act", i), silu(gate) * up)
        mlp = tap(("mlp_out", i), neurons @ w[at + "mlp.down_proj.weight"].T)
        x = tap(("resid_post", i), mid + tap(("mlp_add", i), mlp))
    x = tap("final_norm", rms_norm(x, w["model.norm.weight"], args.rms_norm_eps))
    head = embedding if args.tie_word_embeddings else w["lm_head.weight"]
    return tap("logits", x @ head.T)


def gpt2(model: Any, ids: Array, tap: Taps) -> Array:
    args, w = model.args, weights_of(model)
    eps = args.layer_norm_epsilon
    embedding = w["model.wte.weight"]
    x = tap("embed", embedding[ids] + w["model.wpe.weight"][: ids.shape[1]])
    for i in range(args.n_layer):

        def linear(value: Array, name: str, at: str = f"model.h.{i}.") -> Array:
            return value @ w[f"{at}{name}.weight"].T + w[f"{at}{name}.bias"]

        def norm(value: Array, name: str, at: str = f"model.h.{i}.") -> Array:
            return layer_norm(value, w[f"{at}{name}.weight"], w[f"{at}{name}.bias"], eps)

        x = tap(("resid_pre", i), x)
        parts = np.split(linear(norm(x, "ln_1"), "attn.c_attn"), 3, -1)
        q, k, v = (heads_of(part, args.n_head) for part in parts)
        attn = attend(
            tap,
            i,
            q,
            k,
            v,
            scale=(args.n_embd // args.n_head) ** -0.5,
            out=w[f"model.h.{i}.attn.c_proj.weight"],
            bias=w[f"model.h.{i}.attn.c_proj.bias"],
        )
        mid = tap(("resid_mid", i), x + tap(("attn_add", i), attn))
        neurons = tap(("mlp_act", i), gelu(linear(norm(mid, "ln_2"), "mlp.c_fc")))
        mlp = tap(("mlp_out", i), linear(neurons, "mlp.c_proj"))
        x = tap(("resid_post", i), mid + tap(("mlp_add", i), mlp))
    x = tap("final_norm", layer_norm(x, w["model.ln_f.weight"], w["model.ln_f.bias"], eps))
    return tap("logits", x @ embedding.T)


def gemma2(model: Any, ids: Array, tap: Taps) -> Array:
    args, w = model.args, weights_of(model)
    heads, kv_heads = args.num_attention_heads, args.num_key_value_heads
    embedding = w["model.embed_tokens.weight"]

    def norm(value: Array, name: str) -> Array:
        return rms_norm(value, 1 + w[f"model.{name}.weight"], args.rms_norm_eps)

    x = tap("embed", embedding[ids] * args.hidden_size**0.5)
    for i in range(args.num_hidden_layers):
        at = f"layers.{i}."
        x = tap(("resid_pre", i), x)
        normed = norm(x, at + "input_layernorm")
        q, k, v = (normed @ w[f"model.{at}self_attn.{n}_proj.weight"].T for n in "qkv")
        attn = attend(
            tap,
            i,
            rope(heads_of(q, heads), args.rope_theta),
            rope(heads_of(k, kv_heads), args.rope_theta),
            heads_of(v, kv_heads),
            scale=args.query_pre_attn_scalar**-0.5,
            out=w[f"model.{at}self_attn.o_proj.weight"],
            cap=args.attn_logit_softcapping,
        )
        add = tap(("attn_add", i), norm(attn, at + "post_attention_layernorm"))
        mid = tap(("resid_mid", i), x + add)
        normed = norm(mid, at + "pre_feedforward_layernorm")
        gate, up = (normed @ w[f"model.{at}mlp.{n}_proj.weight"].T for n in ("gate", "up"))
        neurons = tap(("mlp_act", i), gelu(gate) * up)
        mlp = tap(("mlp_out", i), neurons @ w[f"model.{at}mlp.down_proj.weight"].T)
        add = tap(("mlp_add", i), norm(mlp, at + "post_feedforward_layernorm"))
        x = tap(("resid_post", i), mid + add)
    x = tap("final_norm", norm(x, "norm"))
    cap = args.final_logit_softcapping
    return tap("logits", cap * np.tanh(x @ embedding.T / cap))


#: The points that `forward` computes.
WHOLE = ("embed", "final_norm", "logits")
PER_LAYER = (
    *("resid_pre", "attn_out", "attn_add", "resid_mid", "mlp_out", "mlp_add", "resid_post"),
    *("q", "k", "v", "scores", "pattern", "z", "head_out", "mlp_act"),
)

FAMILIES = {"llama": llama, "gpt2": gpt2, "gemma2": gemma2}


def forward(
    model: Any, ids: Any, edits: Mapping[Place, Change] | None = None
) -> tuple[Array, dict[Place, Array]]:
    """Logits (B, S, V) and every point of an mlx-lm model, with edits in force."""
    tap = Taps(edits or {})
    return FAMILIES[model.model_type](model, np.atleast_2d(np.array(ids)), tap), tap.values
